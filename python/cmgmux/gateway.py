"""One gateway instance, embedded in a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmgmux import _native
from cmgmux._service import DEFAULT_GRACE_S, Service

if TYPE_CHECKING:
    from cmgmux.config import GatewayConfig
    from cmgmux.exceptions import ConfigError


class Gateway(Service):
    """A gateway instance: clients connect to it, connection points hold channels to it.

    Example:
        >>> async with Gateway(GatewayConfig.load("gateway.toml")) as gateway:
        ...     print(gateway.client_address)
        ...     await gateway.wait_ended()
    """

    def __init__(self, config: GatewayConfig, *, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Prepare an instance; `grace_s` is what exchanges get to finish when it is stopped."""
        self._config = config
        self._gateway = _native.Gateway(config.to_native())
        super().__init__(self._gateway, grace_s=grace_s)

    @property
    def client_address(self) -> str:
        """Where clients connect, as ``address:port``; with port 0 configured, the port chosen."""
        return self._gateway.client_address()

    @property
    def channel_address(self) -> str:
        """Where connection points connect, as ``address:port``."""
        return self._gateway.channel_address()

    def _config_error(self, key: str, reason: str) -> ConfigError:
        return self._config.error(key, reason)
