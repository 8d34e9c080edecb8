"""TLS handshakes a second, and the processor time of each."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.memory import hold

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.sides import Setting, Side

_AS_FAST_AS_THEY_CAN: Final = 100_000


@dataclass(frozen=True)
class Handshakes:
    """What it took one side to let clients in, each with a certificate and without resumption."""

    side: str
    round: int
    clients: int
    per_s: float
    cpu_us: Mapping[str, float]
    """Processor time of each process for each client, its first request included."""

    def to_json(self) -> dict[str, Any]:
        """Give the measurement as an object."""
        return {"measurement": "handshakes", **vars(self)}

    def line(self) -> str:
        """Give the measurement as text."""
        cpu = ", ".join(f"{name} {time_us:.0f}" for name, time_us in self.cpu_us.items())
        return f"round {self.round} {self.side:5} {self.per_s:8,.0f} handshakes/s, CPU us: {cpu}"


def measure(
    side: Side, setting: Setting, role_socket: Path, *, clients: int, number: int
) -> Handshakes:
    """Let `clients` connect as fast as they can, 64 at a time, and hold a long-poll each.

    Raises:
        BenchError: One failed.
    """
    before = {name: process.cpu_s() for name, process in side.parts.items()}
    with ExitStack() as stack:
        took_s = hold(
            stack,
            side,
            setting,
            role_socket,
            kind="long-poll",
            clients=range(clients),
            rate=_AS_FAST_AS_THEY_CAN,
        )
        used = {name: process.cpu_s() - before[name] for name, process in side.parts.items()}
    return Handshakes(
        side=side.name,
        round=number,
        clients=clients,
        per_s=clients / took_s,
        cpu_us={name: cpu_s * 1e6 / clients for name, cpu_s in used.items()},
    )
