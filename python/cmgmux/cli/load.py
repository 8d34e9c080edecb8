"""``cmgmux load``."""

from __future__ import annotations

import asyncio
import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from cmgmux.cli.running import RunOptions, run_service
from cmgmux.load import Swarm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cmgmux._service import Service

_PROGRESS_INTERVAL_S: Final = 1.0


def load(
    *,
    target: str,
    server_name: str,
    ca: Path,
    path: str,
    certificate: Path | None = None,
    key: Path | None = None,
    clients: int = 1_000,
    first_client: int = 0,
    connect_rate_per_s: float = 500.0,
    connect_timeout_s: float = 10.0,
    response_timeout_s: float = 900.0,
    polls_per_client: int = 1,
    admin_socket: Path | None = None,
    shards: int = 1,
    json: Annotated[bool, Parameter(negative="")] = False,
    run: RunOptions | None = None,
) -> int:
    """Run many clients that each hold a poll through a gateway and check what they get.

    Ends when the last client has; exit status 0 only if all got what they waited for.

    Args:
        target: The gateway, as host:port.
        server_name: The name that its certificate must carry.
        ca: PEM file with the authorities that may vouch for it.
        path: The path to poll, such as /CCM_Proxy_MutualAuth/72057594037927939/poll.
        certificate: PEM file with the certificate that every client shows.
        key: PEM file with its private key.
        clients: How many clients; each costs a descriptor and a port.
        first_client: The id of the first client; the others count up.
        connect_rate_per_s: Most connections begun in a second.
        connect_timeout_s: For TCP and TLS together.
        response_timeout_s: From a poll's start until its notification.
        polls_per_client: Notifications that each client waits for; 0 goes on until stopped.
        admin_socket: Unix socket that serves counters and state.
        shards: Threads, 1 to 16.
        json: Print the report as one JSON object on the last line of standard output.
        run: How to run.
    """
    run = run or RunOptions()
    settings: dict[str, Any] = {
        "target": target,
        "server_name": server_name,
        "ca": str(ca),
        "path": path,
        "certificate": certificate and str(certificate),
        "key": key and str(key),
        "clients": clients,
        "first_client": first_client,
        "connect_rate_per_s": connect_rate_per_s,
        "connect_timeout_s": connect_timeout_s,
        "response_timeout_s": response_timeout_s,
        "polls_per_client": polls_per_client,
        "admin_socket": admin_socket and str(admin_socket.absolute()),
        "shards": shards,
    }
    swarm = Swarm(settings, grace_s=run.grace_s)
    watcher: list[asyncio.Task[None]] = []

    def started(service: Service) -> dict[str, Any]:
        if sys.stderr.isatty():
            watcher.append(asyncio.create_task(_show_progress(service)))
        return {"target": target, "clients": clients}

    run_service(lambda: swarm, run, started)
    report = swarm.report()
    print(json_module.dumps(report) if json else summary_line(report))
    return 0 if succeeded(report, endless=polls_per_client == 0) else 1


def succeeded(report: Mapping[str, Any], *, endless: bool) -> bool:
    """Whether every client got what it waited for; endless ones were stopped while waiting."""
    unhappy = report["wrong"] + report["failed"]
    return unhappy == 0 and (endless or report["answered"] == report["clients"])


def summary_line(report: Mapping[str, Any]) -> str:
    """Say in one line what became of the clients."""
    line = (
        f"{report['clients']} clients: {report['answered']} answered, {report['wrong']} wrong, "
        f"{report['failed']} failed, {report['stopped']} stopped in {report['elapsed_s']:.1f} s"
    )
    reasons = "; ".join(f"{count} x {reason}" for reason, count in report["reasons"].items())
    return f"{line} ({reasons})" if reasons else line


async def _show_progress(service: Service) -> None:
    while True:
        status = service.status()
        print(
            f"\r{status['waiting']} waiting, {status['connecting']} connecting, "
            f"{status['holding']} holding, {status['answers']} answers, "
            f"{status['wrong'] + status['failed']} failed\033[K",
            end="",
            file=sys.stderr,
            flush=True,
        )
        await asyncio.sleep(_PROGRESS_INTERVAL_S)
