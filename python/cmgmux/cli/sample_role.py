"""``cmgmux sample-role``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cmgmux.cli.running import RunOptions, run_service
from cmgmux.load import SampleRole

if TYPE_CHECKING:
    from cmgmux._service import Service


def sample_role(
    *,
    listen: str = "127.0.0.1:0",
    admin_socket: Path | None = None,
    shards: int = 1,
    poll_timeout_s: float = 900.0,
    max_held: int = 20_000,
    run: RunOptions | None = None,
) -> None:
    """Run the sample role, which holds notification streams and takes pushes for their clients.

    It serves GET /notifications?client=ID (WebSocket, server-sent events or long-poll),
    POST /push?client=ID, /hello, /bytes?n=N, /echo and /log.

    Args:
        listen: Address and port for plain HTTP; port 0 takes a free one.
        admin_socket: Unix socket that serves counters and state.
        shards: Threads, 1 to 16.
        poll_timeout_s: When a long-poll without a notification is answered 204.
        max_held: Streams held at a time; more are refused.
        run: How to run.
    """
    run = run or RunOptions()
    settings = {
        "listen": listen,
        "admin_socket": admin_socket and str(admin_socket.absolute()),
        "shards": shards,
        "poll_timeout_s": poll_timeout_s,
        "max_held": max_held,
    }
    run_service(lambda: SampleRole(settings, grace_s=run.grace_s), run, _address)


def _address(service: Service) -> dict[str, Any]:
    return {"address": cast("SampleRole", service).address}
