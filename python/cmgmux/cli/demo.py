"""``cmgmux demo``."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cyclopts import Parameter
from cyclopts.validators import Number

from cmgmux._supervisor import Child, Supervisor, resident_bytes
from cmgmux.cli.running import interruptible, raise_descriptor_limit
from cmgmux.demo.plan import Plan, gateway_name, most_clients, role_name
from cmgmux.demo.push import push_to_each
from cmgmux.demo.readings import Reading, Summary, is_connected, read
from cmgmux.demo.topology import TOPOLOGIES, TopologyName
from cmgmux.demo.view import view_on, write
from cmgmux.exceptions import ConfigError, ServiceError
from cmgmux.report.merge import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cmgmux.demo.view import View

T = TypeVar("T")

_START_TIMEOUT_S: Final = 20.0
_CONNECT_TIMEOUT_S: Final = 60.0
_NOTIFY_TIMEOUT_S: Final = 60.0
_LOOK_INTERVAL_S: Final = 0.2


def demo(
    *,
    clients: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = 2_000,
    topology: TopologyName = "example1",
    seconds: Annotated[float, Parameter(validator=Number(gte=0, lte=86_400))] = 3.0,
    keep: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the whole path on this machine: many clients wait, and each gets its notification.

    Starts gateway instances, connection points, sample roles and swarms of clients, each a process
    of its own on free ports, with certificates made for the occasion. The clients hold long-polls,
    server-sent events and WebSockets, with requests beside them. Exit status 0 only if every
    client got its own notification and every request its answer.

    Args:
        clients: How many clients.
        topology: example1 is one site with two connection points; example2 is two sites with one
            each. Both have two gateway instances.
        seconds: How long they all wait before they are notified.
        keep: Leave everything running until Ctrl-C, with commands to try.
        json: Progress to standard error, and the summary as one JSON object on the last line of
            standard output.
    """
    fits = most_clients(raise_descriptor_limit())
    if clients > fits:
        raise ConfigError(
            f"{clients} clients need more open files than this system allows: at most {fits} "
            "fit; raise `ulimit -Hn`",
            key="--clients",
        )
    view = view_on(sys.stderr if json else sys.stdout)
    with (
        interruptible(),
        TemporaryDirectory(prefix="cmgmux-demo-") as folder,
        Supervisor() as supervisor,
    ):
        plan = Plan(Path(folder), TOPOLOGIES[topology], clients, endless=keep)
        run = _Demo(topology, plan, supervisor, view)
        with view.opened():
            summary = run.play(hold_s=seconds)
        write(summary, sys.stderr if json else sys.stdout)
        if json:
            print(json_module.dumps(summary.to_json()), flush=True)
        if keep:
            run.wait_for_interrupt()
    return 0 if summary.ok else 1


class _Demo:
    """One run, step by step."""

    def __init__(self, topology: str, plan: Plan, supervisor: Supervisor, view: View) -> None:
        self._topology = topology
        self._plan = plan
        self._supervisor = supervisor
        self._view = view
        self._began_at = time.monotonic()
        self._phase = "making certificates"
        self._looked_at = 0.0
        self._roles: dict[str, str] = {}
        """The address of each site's role."""
        self._gateways: list[str] = []
        """The clients' address of each instance."""
        self._swarms = [swarm.name for swarm in plan.swarms]

    def play(self, *, hold_s: float) -> Summary:
        """Start everything, hold, notify, and sum up."""
        self._start()
        self._phase = "connecting clients"
        for swarm in self._plan.swarms:
            gateway = self._gateways[swarm.instance]
            self._child(swarm.name, self._plan.swarm_command(swarm, gateway=gateway))
        held = self._wait(
            "not all clients are waiting",
            self._all_held,
            _CONNECT_TIMEOUT_S,
            may_end=self._swarms,
        )
        held_s = self._elapsed()
        self._phase = "holding"
        self._hold(hold_s)
        self._phase = "notifying"
        pushed_at = time.monotonic()
        pushed = sum(
            push_to_each(self._roles[site.code], self._plan.clients_of(site))
            for site in self._plan.topology.sites
        )
        self._wait(
            "not all clients were notified",
            lambda: self._all_notified() or None,
            _NOTIFY_TIMEOUT_S,
            may_end=self._swarms,
        )
        notified_s = time.monotonic() - pushed_at
        return self._summary(held, held_s=held_s, pushed=pushed, notified_s=notified_s)

    def wait_for_interrupt(self) -> None:
        """Print what to try, and watch until Ctrl-C."""
        try:
            role = next(iter(self._roles.values()))
            print("\nrunning until Ctrl-C; try:", file=sys.stderr)
            print(f"  {self._plan.curl_command(gateway=self._gateways[0])}", file=sys.stderr)
            print(f"  {self._plan.push_command(role=role)}", file=sys.stderr)
            socket = self._plan.admin_socket(gateway_name(0))
            print(f"  {sys.argv[0]} status {socket}", file=sys.stderr)
            while True:
                self._supervisor.check()
                time.sleep(_LOOK_INTERVAL_S)
        except KeyboardInterrupt:
            return

    def _start(self) -> None:
        self._show()
        plan = self._plan
        sites = plan.topology.sites
        plan.write_certificates()
        self._phase = "starting roles and gateway instances"
        roles = {site.code: self._child(role_name(site), plan.role_command(site)) for site in sites}
        gateways = [
            self._child(gateway_name(index), plan.gateway_command(index))
            for index in range(plan.topology.instances)
        ]
        for code, role in roles.items():
            status = self._wait(f"{role.name} does not start", role.status, _START_TIMEOUT_S)
            self._roles[code] = status["address"]
        channels = []
        for gateway in gateways:
            status = self._wait(f"{gateway.name} does not start", gateway.status, _START_TIMEOUT_S)
            self._gateways.append(status["client_address"])
            channels.append(status["channel_address"])
        self._phase = "connecting the connection points"
        points = [
            self._child(
                point,
                plan.point_command(site, point, role=self._roles[site.code], channels=channels),
            )
            for site in sites
            for point in site.points
        ]
        for point in points:
            self._wait_connected(point)

    def _wait_connected(self, point: Child) -> None:
        self._wait(
            f"the connection point {point.name} does not connect",
            lambda: is_connected(point.status() or {}) or None,
            _START_TIMEOUT_S,
        )

    def _all_held(self) -> Reading | None:
        reading = self._read()
        if reading.hopeless:
            statuses = [self._supervisor.children[name].status() or {} for name in self._swarms]
            reasons = [status["reasons"] for status in statuses if status.get("reasons")]
            raise ServiceError(f"{reading.unhappy} clients or requests failed: {reasons}")
        return reading if reading.all_held else None

    def _hold(self, hold_s: float) -> None:
        until = time.monotonic() + hold_s
        while time.monotonic() < until:
            self._supervisor.check()
            self._show()
            time.sleep(min(_LOOK_INTERVAL_S, hold_s))

    def _all_notified(self) -> bool:
        """Whether all swarms have ended, or endless ones have got a message for each client."""
        if self._plan.endless:
            reading = self._read()
            return reading.messages >= self._plan.clients
        return all(
            self._supervisor.children[name].process.poll() is not None for name in self._swarms
        )

    def _summary(self, held: Reading, *, held_s: float, pushed: int, notified_s: float) -> Summary:
        if self._plan.endless:
            statuses = [self._supervisor.children[name].status() for name in self._swarms]
            reports = [status for status in statuses if status]
            answered = sum(report["messages"] for report in reports)
            percentiles, invalid = {"p50": None, "p99": None}, []
        else:
            merged = merge([self._report(name) for name in self._swarms])
            reports, answered, invalid = [merged], merged["answered"], merged["invalid"]
            percentiles = merged["requests"]["latency"]["percentiles_ms"]
        reasons: Counter[str] = Counter()
        for report in reports:
            reasons.update(report["reasons"])
            reasons.update(report["requests"]["reasons"])
        return Summary(
            topology=self._topology,
            clients=self._plan.clients,
            answered=answered,
            unhappy=sum(
                report["wrong"] + report["failed"] + report["requests"]["failed"]
                for report in reports
            ),
            pushed=pushed,
            reasons=dict(reasons),
            kinds=held.kinds,
            requests=sum(report["requests"]["answered"] for report in reports),
            request_p50_ms=percentiles["p50"],
            request_p99_ms=percentiles["p99"],
            invalid=invalid,
            held_s=held_s,
            notified_s=notified_s,
            total_s=self._elapsed(),
            channels=len(held.channels),
            peak_streams=held.streams,
            memory=held.memory,
            instances=held.instances,
            channels_held=held.channels,
            points=held.points,
        )

    def _report(self, name: str) -> dict[str, Any]:
        """The last word of a swarm that has ended."""
        swarm = self._supervisor.children[name]
        lines = swarm.output.read_text().splitlines()
        if not lines:
            raise ServiceError(swarm.death() or f"{name} gave no report")
        report: dict[str, Any] = json_module.loads(lines[-1])
        return report

    def _child(self, name: str, command: list[str]) -> Child:
        return self._supervisor.start(
            name,
            command,
            log=self._plan.log(name),
            output=self._plan.output(name),
            admin_socket=self._plan.admin_socket(name),
        )

    def _wait(
        self,
        what: str,
        look: Callable[[], T | None],
        timeout_s: float,
        *,
        may_end: Sequence[str] = (),
    ) -> T:
        return self._supervisor.wait_for(
            what, look, timeout_s=timeout_s, may_end=may_end, meanwhile=self._show
        )

    def _show(self) -> None:
        if time.monotonic() >= self._looked_at + _LOOK_INTERVAL_S:
            self._looked_at = time.monotonic()
            self._view.show(self._read())

    def _read(self) -> Reading:
        children = self._supervisor.children
        memory = {name: resident_bytes(child.pid) for name, child in children.items()}
        return read(
            self._plan,
            {name: child.status() for name, child in children.items()},
            phase=self._phase,
            elapsed_s=self._elapsed(),
            memory={name: size for name, size in memory.items() if size is not None},
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at
