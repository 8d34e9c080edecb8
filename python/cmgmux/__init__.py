"""Carry the traffic of very many internet clients to on-premises services over a few channels.

`Gateway` is one public instance, `ConnectionPoint` the on-premises end; both are asynchronous
context managers around native services. `GatewayConfig` and `PointConfig` read their settings.
Errors are in `cmgmux.exceptions`, logs in ``logging.getLogger("cmgmux")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmgmux.connection_point import ConnectionPoint
from cmgmux.exceptions import CmgmuxError, ConfigError, ServiceError, UsageError
from cmgmux.gateway import Gateway

if TYPE_CHECKING:
    from cmgmux.config import GatewayConfig, PointConfig

__all__ = [
    "CmgmuxError",
    "ConfigError",
    "ConnectionPoint",
    "Gateway",
    "GatewayConfig",
    "PointConfig",
    "ServiceError",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    # The models need pydantic, which who never reads a configuration should not pay for.
    if name in {"GatewayConfig", "PointConfig"}:
        from cmgmux import config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
