"""``cmgmux gateway``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cmgmux.cli.running import RunOptions, run_service
from cmgmux.config import GatewayConfig
from cmgmux.gateway import Gateway

if TYPE_CHECKING:
    from cmgmux._service import Service


def gateway(config: Path, /, *, run: RunOptions | None = None) -> None:
    """Run a gateway instance.

    Args:
        config: TOML file with the instance's settings.
        run: How to run.
    """
    run = run or RunOptions()
    settings = GatewayConfig.load(config)
    run_service(lambda: Gateway(settings, grace_s=run.grace_s), run, _addresses)


def _addresses(service: Service) -> dict[str, Any]:
    running = cast("Gateway", service)
    return {"clients": running.client_address, "channels": running.channel_address}
