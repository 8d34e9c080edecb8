"""What the statuses of the demo's processes say, and the verdict. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """One look at all processes. Processes that are not there count as nothing."""

    phase: str
    """What the demo is doing."""
    elapsed_s: float
    """Seconds since its start."""
    clients: int
    """Clients wanted."""
    connecting: int = 0
    """Clients that open their connection."""
    holding: int = 0
    """Clients that wait for their notification."""
    answers: int = 0
    """Notifications that arrived at their client."""
    unhappy: int = 0
    """Clients that got a wrong answer or none."""
    held: int = 0
    """Polls that the role holds."""
    channels: int = 0
    """Channels between gateway and connection point."""
    streams: int = 0
    """Streams open on them."""
    requests: int = 0
    """Requests that the gateway has taken."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Resident bytes of each process."""

    @property
    def all_held(self) -> bool:
        """Every client waits, and the role knows of every one."""
        return self.holding == self.clients and self.held == self.clients

    @property
    def hopeless(self) -> bool:
        """A client has failed, so that they will never all wait."""
        return self.unhappy > 0


def read(
    statuses: Mapping[str, Status | None],
    *,
    phase: str,
    elapsed_s: float,
    clients: int,
    memory: Mapping[str, int],
) -> Reading:
    """Fold the statuses of role, gateway, point and swarm into a reading."""
    role = statuses.get("role") or {}
    gateway = statuses.get("gateway") or {}
    swarm = statuses.get("swarm") or {}
    channels = gateway.get("channels", [])
    return Reading(
        phase=phase,
        elapsed_s=elapsed_s,
        clients=clients,
        connecting=swarm.get("connecting", 0),
        holding=swarm.get("holding", 0),
        answers=swarm.get("messages", 0),
        unhappy=swarm.get("wrong", 0) + swarm.get("failed", 0),
        held=role.get("held", 0),
        channels=len(channels),
        streams=sum(channel.get("streams", 0) for channel in channels),
        requests=sum(shard.get("requests_total", 0) for shard in gateway.get("shards", [])),
        memory=memory,
    )


def is_connected(point: Status) -> bool:
    """Whether a connection point has all its channels and every instance took its publication."""
    return bool(point.get("instances")) and all(
        instance["channels_up"] == instance["channels_wanted"] > 0
        and instance["publication"]["state"] == "accepted"
        for instance in point["instances"]
    )


@dataclass(frozen=True)
class Summary:
    """How a demo ended."""

    clients: int
    answered: int
    """Clients that got their own notification."""
    unhappy: int
    """Clients that got a wrong answer or none."""
    pushed: int
    """Notifications that the role took."""
    reasons: Mapping[str, int]
    """Unhappy clients by reason."""
    held_s: float
    """From the demo's start until all clients were held."""
    notified_s: float
    """From the first push until the last client was done."""
    total_s: float
    """The whole demo."""
    channels: int
    """Channels that carried all clients."""
    peak_streams: int
    """Streams that were open on them at a time."""
    memory: Mapping[str, int]
    """Resident bytes of each process while all clients were held."""

    @property
    def ok(self) -> bool:
        """Every client got its own notification."""
        return self.answered == self.pushed == self.clients and self.unhappy == 0

    def to_json(self) -> dict[str, Any]:
        """Give the summary as an object, with the verdict as ``ok``."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """Give the summary as text."""
        memory = ", ".join(f"{name} {mebibytes(size)}" for name, size in self.memory.items())
        lines = [
            f"{self.answered} of {self.clients} clients got their own notification",
            f"all held after {self.held_s:.1f} s over {self.channels} channels "
            f"({self.peak_streams} streams), notified within {self.notified_s:.2f} s",
            f"memory while held: {memory}",
        ]
        lines += [f"{count} x {reason}" for reason, count in self.reasons.items()]
        return lines


def mebibytes(size: int) -> str:
    """Give a number of bytes in a form to read."""
    return f"{size / (1 << 20):.1f} MiB"
