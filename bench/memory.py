"""Memory of each process for each client that holds a stream, or is connected and idle."""

from __future__ import annotations

import http.client
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from bench.processes import BenchError, wait_until
from bench.sides import HOLDING_PREFIX, get, status_of, swarm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.sides import Setting, Side

State = Literal["long-poll", "sse", "websocket", "idle"]

STATES: Final[tuple[State, ...]] = ("long-poll", "sse", "websocket", "idle")

_CONNECT_RATE_PER_S: Final = 2_000
_CONNECT_TIMEOUT_S: Final = 60.0
_SETTLE_INTERVAL_S: Final = 0.25
_SETTLE_LOOKS: Final = 20
_SETTLED_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Memory:
    """What one side's processes took for clients in one state."""

    side: str
    state: State
    round: int
    clients: tuple[int, int, int]
    """At the three readings: none, few, all."""
    private_bytes: Mapping[str, tuple[int, int, int]]
    """Private memory of each process at the three readings."""

    @property
    def bytes_per_client(self) -> dict[str, float]:
        """What each client beyond the few added to each process."""
        _, few, most = self.clients
        return {
            name: (at_most - at_few) / (most - few)
            for name, (_, at_few, at_most) in self.private_bytes.items()
        }

    @property
    def bytes_per_client_from_none(self) -> dict[str, float]:
        """The same beside none, which counts what only the first clients cost."""
        none, _, most = self.clients
        return {
            name: (at_most - at_none) / (most - none)
            for name, (at_none, _, at_most) in self.private_bytes.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Give the measurement as an object."""
        return {
            "measurement": "memory",
            **vars(self),
            "bytes_per_client": self.bytes_per_client,
            "bytes_per_client_from_none": self.bytes_per_client_from_none,
        }

    def line(self) -> str:
        """Give the measurement as text."""
        parts = ", ".join(
            f"{name} {size / 1024:.2f} KiB a client"
            f" ({' '.join(f'{reading >> 10:,}' for reading in self.private_bytes[name])} KiB"
            f" with {' '.join(f'{count:,}' for count in self.clients)})"
            for name, size in self.bytes_per_client.items()
        )
        return f"round {self.round} {self.side:5} {self.state}: {parts}"


def measure(
    side: Side, setting: Setting, role_socket: Path, *, state: State, clients: int, number: int
) -> Memory:
    """Read a fresh side's memory with no clients, with a quarter of `clients`, and with all.

    Raises:
        BenchError: A client failed.
    """
    few = max(1, clients // 4)
    readings = [_settled(side)]
    with ExitStack() as stack:
        for first, last in ((0, few), (few, clients)):
            if state == "idle":
                _idle(stack, side, setting, last - first)
            else:
                hold(stack, side, setting, role_socket, kind=state, clients=range(first, last))
            readings.append(_settled(side))
    for part in side.parts.values():
        part.check()
    none, at_few, at_most = readings
    return Memory(
        side=side.name,
        state=state,
        round=number,
        clients=(0, few, clients),
        private_bytes={name: (none[name], at_few[name], at_most[name]) for name in side.parts},
    )


def hold(
    stack: ExitStack,
    side: Side,
    setting: Setting,
    role_socket: Path,
    *,
    kind: str,
    clients: range,
    rate: int = _CONNECT_RATE_PER_S,
) -> float:
    """Have clients hold streams of `kind` until the stack is left; beside the streams before them.

    Returns:
        How long they took to connect, in seconds.
    """
    admin_socket = setting.folder / f"swarm-{clients.start}.sock"
    process = stack.enter_context(
        swarm(
            side,
            setting,
            admin_socket,
            kind=kind,
            first_client=clients.start,
            clients=len(clients),
            rate=rate,
        )
    )

    def all_hold() -> float | None:
        seen = status_of(admin_socket)
        if seen.get("failed") or seen.get("wrong"):
            raise BenchError(f"clients of {side.name} failed: {seen.get('reasons')}")
        if seen.get("holding") != len(clients):
            return None
        return seen["connect_s"] if status_of(role_socket).get("held") == clients.stop else None

    return wait_until(
        f"{clients.stop} clients hold a {kind} through {side.name}",
        all_hold,
        [process, *side.parts.values()],
        timeout_s=_CONNECT_TIMEOUT_S,
    )


def _idle(stack: ExitStack, side: Side, setting: Setting, clients: int) -> None:
    """Connect clients, one after the other, and keep them after their first answer."""
    for connection in _connections(side, setting, clients):
        stack.callback(connection.close)
        try:
            status = get(connection, f"{HOLDING_PREFIX}/hello")
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"a client of {side.name} failed: {error!r}") from error
        if status != http.client.OK:
            raise BenchError(f"a client of {side.name} got {status}")


def _connections(
    side: Side, setting: Setting, clients: int
) -> Iterator[http.client.HTTPSConnection]:
    tls = setting.client_tls()
    return (side.connect(tls) for _ in range(clients))


def _settled(side: Side) -> dict[str, int]:
    """Read the memory of each process once it has stopped changing, or after 5 seconds."""
    before: dict[str, int] = {}
    for _ in range(_SETTLE_LOOKS):
        now = {name: process.private_bytes() for name, process in side.parts.items()}
        if before and all(abs(now[name] - before[name]) < _SETTLED_BYTES for name in now):
            return now
        before = now
        time.sleep(_SETTLE_INTERVAL_S)
    return before
