"""``cmgmux demo``."""

from __future__ import annotations

import json as json_module
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from cyclopts import Parameter
from cyclopts.validators import Number

from cmgmux._supervisor import Child, Supervisor, resident_bytes
from cmgmux.cli.running import interruptible, raise_descriptor_limit
from cmgmux.demo.plan import HOST, Plan, most_clients
from cmgmux.demo.push import push_to_each
from cmgmux.demo.readings import Reading, Summary, is_connected, read
from cmgmux.demo.view import view_on
from cmgmux.exceptions import ConfigError, ServiceError
from cmgmux.pki import DevelopmentPki

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
    clients: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = 1_000,
    seconds: Annotated[float, Parameter(validator=Number(gte=0, lte=86_400))] = 3.0,
    keep: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the whole path on this machine: many clients wait, and each gets its notification.

    Starts a sample role, a gateway instance, a connection point and a swarm of clients, each a
    process of its own on free ports, with certificates made for the occasion. Exit status 0 only
    if every client got its own notification.

    Args:
        clients: How many clients.
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
        plan = Plan(Path(folder), clients, endless=keep)
        run = _Demo(plan, supervisor, view)
        with view.opened():
            summary = run.play(hold_s=seconds)
        for line in summary.lines():
            print(line, file=sys.stderr if json else sys.stdout)
        if json:
            print(json_module.dumps(summary.to_json()), flush=True)
        if keep:
            run.wait_for_interrupt()
    return 0 if summary.ok else 1


class _Demo:
    """One run, step by step."""

    def __init__(self, plan: Plan, supervisor: Supervisor, view: View) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._view = view
        self._began_at = time.monotonic()
        self._phase = "making certificates"
        self._looked_at = 0.0
        self._role = ""
        self._gateway = ""

    def play(self, *, hold_s: float) -> Summary:
        """Start everything, hold, notify, and sum up."""
        self._start()
        self._phase = "connecting clients"
        swarm = self._child("swarm", self._plan.swarm_command(gateway=self._gateway))
        held = self._wait(
            "not all clients are waiting", self._all_held, _CONNECT_TIMEOUT_S, may_end=("swarm",)
        )
        held_s = self._elapsed()
        self._phase = "holding"
        self._hold(hold_s)
        self._phase = "notifying"
        pushed_at = time.monotonic()
        pushed = push_to_each(self._role, self._plan.clients)
        report = self._wait(
            "not all clients were notified",
            lambda: self._report(swarm),
            _NOTIFY_TIMEOUT_S,
            may_end=("swarm",),
        )
        return Summary(
            clients=self._plan.clients,
            answered=report["messages"] if self._plan.endless else report["answered"],
            unhappy=report["wrong"] + report["failed"],
            pushed=pushed,
            reasons=report["reasons"],
            held_s=held_s,
            notified_s=time.monotonic() - pushed_at,
            total_s=self._elapsed(),
            channels=held.channels,
            peak_streams=held.streams,
            memory=held.memory,
        )

    def wait_for_interrupt(self) -> None:
        """Print what to try, and watch until Ctrl-C."""
        try:
            print("\nrunning until Ctrl-C; try:", file=sys.stderr)
            print(f"  {self._plan.curl_command(gateway=self._gateway)}", file=sys.stderr)
            print(f"  {self._plan.push_command(role=self._role)}", file=sys.stderr)
            socket = self._plan.admin_socket("gateway")
            print(f"  {sys.argv[0]} status {socket}", file=sys.stderr)
            while True:
                self._supervisor.check()
                time.sleep(_LOOK_INTERVAL_S)
        except KeyboardInterrupt:
            return

    def _start(self) -> None:
        self._show()
        DevelopmentPki(site="NYC", server_names=(HOST, "127.0.0.1")).write(self._plan.pki)
        self._phase = "starting the role and the gateway"
        role = self._child("role", self._plan.role_command())
        gateway = self._child("gateway", self._plan.gateway_command())
        self._role = self._wait("the role does not start", role.status, _START_TIMEOUT_S)["address"]
        started = self._wait("the gateway does not start", gateway.status, _START_TIMEOUT_S)
        self._gateway = started["client_address"]
        self._phase = "connecting the connection point"
        channels = started["channel_address"]
        point = self._child("point", self._plan.point_command(role=self._role, channels=channels))
        self._wait(
            "the connection point does not connect",
            lambda: is_connected(point.status() or {}) or None,
            _START_TIMEOUT_S,
        )

    def _all_held(self) -> Reading | None:
        reading = self._read()
        if reading.hopeless:
            swarm = self._supervisor.children["swarm"].status() or {}
            raise ServiceError(f"{reading.unhappy} clients failed: {swarm.get('reasons')}")
        return reading if reading.all_held else None

    def _hold(self, hold_s: float) -> None:
        until = time.monotonic() + hold_s
        while time.monotonic() < until:
            self._supervisor.check()
            self._show()
            time.sleep(min(_LOOK_INTERVAL_S, hold_s))

    def _report(self, swarm: Child) -> dict[str, Any] | None:
        """The swarm's last word, or an endless one's word once all have been answered."""
        if swarm.process.poll() is None:
            status = swarm.status() if self._plan.endless else None
            return status if status and status["messages"] >= self._plan.clients else None
        lines = swarm.output.read_text().splitlines()
        if not lines:
            raise ServiceError(swarm.death() or "the swarm gave no report")
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
            {name: child.status() for name, child in children.items()},
            phase=self._phase,
            elapsed_s=self._elapsed(),
            clients=self._plan.clients,
            memory={name: size for name, size in memory.items() if size is not None},
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at
