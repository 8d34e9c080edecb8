"""One connection point, embedded in a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmgmux import _native
from cmgmux._service import DEFAULT_GRACE_S, Service

if TYPE_CHECKING:
    from cmgmux.config import PointConfig
    from cmgmux.exceptions import ConfigError


class ConnectionPoint(Service):
    """The on-premises end: dials the gateway instances and forwards what they accept to roles.

    It runs from its start on, whether or not an instance can be reached yet.
    """

    def __init__(self, config: PointConfig, *, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Prepare a point; `grace_s` is what exchanges get to finish when it is stopped."""
        self._config = config
        super().__init__(_native.ConnectionPoint(config.to_native()), grace_s=grace_s)

    def _config_error(self, key: str, reason: str) -> ConfigError:
        return self._config.error(key, reason)
