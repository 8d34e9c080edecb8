"""``cmgmux load``."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from cmgmux._supervisor import Supervisor
from cmgmux.cli.running import (
    RunOptions,
    interruptible,
    raise_descriptor_limit,
    run_service,
)
from cmgmux.exceptions import ConfigError, ServiceError
from cmgmux.load import Swarm
from cmgmux.report.memory import MemoryLog
from cmgmux.report.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cmgmux._service import Service

Kind = Literal["long-poll", "sse", "websocket"]

_PROGRESS_INTERVAL_S: Final = 1.0
_DESCRIPTORS_BESIDE_CLIENTS: Final = 256
_MAX_PROCESSES: Final = 64
_INVALID: Final = 3
"""The exit status of a run whose figures must not be used."""


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
    kinds: Annotated[tuple[Kind, ...], Parameter(name="--kind")] = ("long-poll",),
    connect_rate_per_s: float = 500.0,
    connect_timeout_s: float = 10.0,
    response_timeout_s: float = 900.0,
    messages_per_client: int = 1,
    requests_per_s: float = 0.0,
    request_path: str | None = None,
    request_connections: int = 16,
    duration_s: float = 0.0,
    admin_socket: Path | None = None,
    shards: int = 1,
    processes: Annotated[int, Parameter(validator=Number(gte=0, lte=_MAX_PROCESSES))] = 0,
    watch: tuple[str, ...] = (),
    report: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    run: RunOptions | None = None,
) -> int:
    """Hold many notification streams through a gateway, send requests beside them, and measure.

    Ends when the last client has, or after --duration-s. A line a second goes to standard error.
    Exit status 0 if every client and every request got what it waited for, 1 if not, 2 for a
    setting that cannot be used, 3 if the figures must not be used, because the generator itself
    lagged.

    Requests follow an open schedule: each is due at its own time, whatever became of those before,
    and its latency runs from then.

    Args:
        target: The gateway, as host:port.
        server_name: The name that its certificate must carry.
        ca: PEM file with the authorities that may vouch for it.
        path: The path of the streams, such as
            /CCM_Proxy_MutualAuth/72057594037927939/notifications.
        certificate: PEM file with the certificate that every client shows.
        key: PEM file with its private key.
        clients: How many clients; each costs a descriptor and a port.
        first_client: The id of the first client; the others count up.
        kinds: What the clients hold; given several times, they take turns.
        connect_rate_per_s: Most connections begun in a second.
        connect_timeout_s: For TCP and TLS together.
        response_timeout_s: The longest wait for a notification, and for an answer.
        messages_per_client: Notifications that each client waits for; 0 goes on until stopped.
        requests_per_s: Requests due in a second once all clients are connected.
        request_path: What the requests ask for, with its query.
        request_connections: Connections that the requests share.
        duration_s: How long the requests go on; 0: as long as there are clients.
        admin_socket: Unix socket that serves counters and state; with one process only.
        shards: Threads of each process, 1 to 16.
        processes: Processes that share the work; 0: as many as the limit of open files demands.
        watch: NAME=PID of a process whose private memory is recorded each second.
        report: HTML file for the results with plots, overwritten.
        json: Print the results as one JSON object on the last line of standard output.
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
        "kinds": list(kinds),
        "connect_rate_per_s": connect_rate_per_s,
        "connect_timeout_s": connect_timeout_s,
        "response_timeout_s": response_timeout_s,
        "messages_per_client": messages_per_client,
        "requests_per_s": requests_per_s,
        "request_path": request_path,
        "request_connections": request_connections,
        "duration_s": duration_s,
        "admin_socket": admin_socket and str(admin_socket.absolute()),
        "shards": shards,
    }
    count = processes or processes_for(clients, request_connections, raise_descriptor_limit())
    if count > 1 and admin_socket is not None:
        raise ConfigError("is for a run with one process", key="--admin-socket")
    watched = dict(map(_watched, watch))
    with _page(report) as page:
        began = datetime.now(UTC)
        if count == 1:
            reports, memory = _run_here(settings, run, watched)
        else:
            reports, memory = _run_processes(split(settings, count), run, watched)
        results = merge(reports)
        results["ok"] = succeeded(results, endless=messages_per_client == 0)
        results["memory"] = memory.readings
        results["notes"] = memory.notes()
        results["run"] = {
            "began": began.isoformat(timespec="seconds"),
            "cmgmux": version("cmgmux"),
            "processes": count,
            **{name: value for name, value in settings.items() if value is not None},
        }
        if page is not None:
            from cmgmux.report.page import render

            page.write_text(render(results))
    for line in (*(f"invalid: {why}" for why in results["invalid"]), *results["notes"]):
        print(line, file=sys.stderr)
    print(json_module.dumps(results) if json else summary_line(results))
    if results["invalid"]:
        return _INVALID
    return 0 if results["ok"] else 1


def processes_for(clients: int, request_connections: int, descriptor_limit: int) -> int:
    """Say how many processes hold so many connections, each with so many descriptors."""
    room = max(1, descriptor_limit - _DESCRIPTORS_BESIDE_CLIENTS)
    return min(_MAX_PROCESSES, max(1, -(-(clients + request_connections) // room)))


def split(settings: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Share the work of a swarm out among `count` processes, or as many as it suffices for."""
    clients, connections = settings["clients"], settings["request_connections"]
    most = max(clients, connections if settings["requests_per_s"] else 0, 1)
    count = min(count, most)
    shares = []
    first_client = settings["first_client"]
    for number in range(count):
        share = clients // count + (number < clients % count)
        shares.append(
            {
                **settings,
                "clients": share,
                "first_client": first_client,
                "connect_rate_per_s": settings["connect_rate_per_s"] / count,
                "requests_per_s": settings["requests_per_s"] / count,
                "request_connections": max(1, connections // count),
            }
        )
        first_client += share
    return shares


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """Write the settings of a swarm as arguments of this command."""
    options = [f"--kind={kind}" for kind in settings["kinds"]]
    options += [
        f"--{name.replace('_', '-')}={value}"
        for name, value in settings.items()
        if name != "kinds" and value is not None
    ]
    return ["load", *options, "--processes=1", "--json"]


def succeeded(report: Mapping[str, Any], *, endless: bool) -> bool:
    """Whether all got what they waited for; endless clients were stopped while waiting."""
    unhappy = report["wrong"] + report["failed"]
    if report["requests"]:
        unhappy += report["requests"]["failed"]
    return unhappy == 0 and (endless or report["answered"] == report["clients"])


def summary_line(report: Mapping[str, Any]) -> str:
    """Say in one line what became of clients and requests."""
    line = (
        f"{report['clients']} clients: {report['answered']} answered, {report['wrong']} wrong, "
        f"{report['failed']} failed, {report['stopped']} stopped in {report['elapsed_s']:.1f} s"
    )
    reasons = dict(report["reasons"])
    if requests := report["requests"]:
        line += f"; {requests['answered']} of {requests['due']} requests answered"
        if (latency := requests["latency"]["percentiles_ms"])["p50"] is not None:
            line += f", p50 {latency['p50']:g} ms, p99 {latency['p99']:g} ms"
        reasons.update(requests["reasons"])
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
    return f"{line} ({told})" if told else line


def progress_line(elapsed_s: float, statuses: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what all processes are at."""
    last = [status["last_second"] for status in statuses]

    def total(key: str) -> int:
        return sum(status[key] for status in statuses)

    def rate(key: str) -> int:
        return sum(each[key] for each in last)

    parts = [f"{elapsed_s:5.0f} s"]
    if starting := total("waiting") + total("connecting"):
        parts.append(f"{starting} to connect")
    parts += [f"{total('holding')} held", f"{rate('messages')} messages/s"]
    if any(status["requests"] for status in statuses):
        parts.append(f"{rate('requests')} requests/s")
        # Of several processes the worst is told; what holds for all of them is in the report.
        for name in ("p50", "p99"):
            slowest = [each[f"request_{name}_ms"] for each in last]
            if known := [value for value in slowest if value is not None]:
                parts.append(f"{name} {max(known):.2f} ms")
    failed = total("wrong") + total("failed")
    failed += sum(status["requests"]["failed"] for status in statuses if status["requests"])
    return ", ".join([*parts, f"{failed} failed"])


def _run_here(
    settings: Mapping[str, Any], run: RunOptions, watched: Mapping[str, int]
) -> tuple[list[dict[str, Any]], MemoryLog]:
    swarm = Swarm(settings, grace_s=run.grace_s)
    memory = MemoryLog({**watched, "load": os.getpid()})
    watchers: list[asyncio.Task[None]] = []

    def started(service: Service) -> dict[str, Any]:
        watchers.append(asyncio.create_task(_watch(service, memory)))
        return {"target": settings["target"], "clients": settings["clients"]}

    run_service(lambda: swarm, run, started)
    return [swarm.report()], memory


async def _watch(service: Service, memory: MemoryLog) -> None:
    while True:
        memory.read()
        await asyncio.sleep(_PROGRESS_INTERVAL_S)
        status = service.status()
        print(progress_line(status["elapsed_s"], [status]), file=sys.stderr)


def _run_processes(
    shares: Sequence[Mapping[str, Any]], run: RunOptions, watched: Mapping[str, int]
) -> tuple[list[dict[str, Any]], MemoryLog]:
    """Run each share in a process of its own, and end them all with this one.

    Raises:
        ServiceError: One of them ended without a report.
    """
    with (
        interruptible(),
        TemporaryDirectory(prefix="cmgmux-load-") as folder,
        Supervisor() as supervisor,
    ):
        for number, share in enumerate(shares):
            name = f"load-{number}"
            socket = Path(folder, f"{name}.sock")
            supervisor.start(
                name,
                [
                    *arguments({**share, "admin_socket": str(socket)}),
                    f"--log-level={run.log_level}",
                    f"--log-format={run.log_format}",
                    f"--grace-s={run.grace_s}",
                    "--stop-at-eof",
                ],
                log=Path(folder, f"{name}.log"),
                output=Path(folder, f"{name}.out"),
                admin_socket=socket,
            )
        children = list(supervisor.children.values())
        memory = MemoryLog({**watched, **{child.name: child.pid for child in children}})
        began_at = time.monotonic()
        # The first Ctrl-C has the clients stop in their time, and gives the report so far.
        with suppress(KeyboardInterrupt):
            while any(child.process.poll() is None for child in children):
                memory.read()
                statuses = [status for child in children if (status := child.status())]
                if statuses:
                    print(progress_line(time.monotonic() - began_at, statuses), file=sys.stderr)
                time.sleep(_PROGRESS_INTERVAL_S)
        for child in children:
            child.request_stop()
        for child in children:
            child.finish(run.grace_s + _PROGRESS_INTERVAL_S)
        reports = []
        for child in children:
            lines = child.output.read_text().splitlines()
            if not lines:
                raise ServiceError(child.death() or f"{child.name} gave no report")
            reports.append(json_module.loads(lines[-1]))
        return reports, memory


def _watched(option: str) -> tuple[str, int]:
    name, _, pid = option.partition("=")
    if not name or not pid.isascii() or not pid.isdigit():
        raise ConfigError(f"{option!r} is not NAME=PID, such as gateway=4711", key="--watch")
    return name, int(pid)


@contextmanager
def _page(path: Path | None) -> Iterator[Path | None]:
    """Give a file beside `path` to write to, which replaces it in the end."""
    if path is None:
        yield None
        return
    try:
        # Before the run, so that nothing is measured in vain.
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            draft = Path(file.name)
    except OSError as error:
        why = f"no file can be made in {path.parent}: {error.strerror}"
        raise ConfigError(why, key="--report") from error
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
