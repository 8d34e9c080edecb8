"""``cmgmux connection-point``."""

from __future__ import annotations

from pathlib import Path

from cmgmux.cli.running import RunOptions, run_service
from cmgmux.config import PointConfig
from cmgmux.connection_point import ConnectionPoint


def connection_point(config: Path, /, *, run: RunOptions | None = None) -> None:
    """Run a connection point.

    Args:
        config: TOML file with the connection point's settings.
        run: How to run.
    """
    run = run or RunOptions()
    settings = PointConfig.load(config)
    run_service(lambda: ConnectionPoint(settings, grace_s=run.grace_s), run)
