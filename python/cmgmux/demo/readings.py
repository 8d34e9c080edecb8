"""What the statuses of the demo's processes say, and the verdict. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cmgmux.demo.plan import gateway_name, role_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cmgmux.demo.plan import Plan

Status = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """A gateway instance at one moment."""

    name: str
    clients: int
    """Client connections."""
    streams: int
    """Streams on its channels."""
    requests: int
    """Requests so far."""
    memory: int
    """Resident bytes."""


@dataclass(frozen=True)
class Channel:
    """A channel at one moment, as its instance sees it."""

    instance: int
    peer: str
    shard: int
    streams: int
    streams_total: int
    rtt_us: int | None
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class Point:
    """A connection point at one moment."""

    name: str
    channels: int
    exchanges: int
    """Open ones."""
    exchanges_total: int
    upstream: int
    """Connections to roles."""
    memory: int
    """Resident bytes."""


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
    messages: int = 0
    """Notifications that arrived at their client."""
    unhappy: int = 0
    """Clients and requests that got a wrong answer or none."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Streams that are held, by kind."""
    held: int = 0
    """Streams that the roles hold."""
    requests: int = 0
    """Requests beside the streams that were answered."""
    instances: Sequence[Instance] = ()
    channels: Sequence[Channel] = ()
    points: Sequence[Point] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    """Resident bytes of each process."""

    @property
    def all_held(self) -> bool:
        """Every client waits, and the roles know of every one."""
        return self.holding == self.clients and self.held == self.clients

    @property
    def hopeless(self) -> bool:
        """A client has failed, so that they will never all wait."""
        return self.unhappy > 0

    @property
    def streams(self) -> int:
        """Streams open on all channels."""
        return sum(channel.streams for channel in self.channels)


def read(
    plan: Plan,
    statuses: Mapping[str, Status | None],
    *,
    phase: str,
    elapsed_s: float,
    memory: Mapping[str, int],
) -> Reading:
    """Fold the statuses of the processes of `plan` into a reading."""
    known = {name: status for name, status in statuses.items() if status}
    swarms = [known[swarm.name] for swarm in plan.swarms if swarm.name in known]
    requests = [swarm["requests"] for swarm in swarms if swarm.get("requests")]
    kinds: Counter[str] = Counter()
    for swarm in swarms:
        kinds.update({kind: of["held"] for kind, of in swarm.get("kinds", {}).items()})
    gateways = [
        (name, known[name])
        for name in map(gateway_name, range(plan.topology.instances))
        if name in known
    ]
    return Reading(
        phase=phase,
        elapsed_s=elapsed_s,
        clients=plan.clients,
        connecting=sum(swarm["connecting"] for swarm in swarms),
        holding=sum(swarm["holding"] for swarm in swarms),
        messages=sum(swarm["messages"] for swarm in swarms),
        unhappy=sum(swarm["wrong"] + swarm["failed"] for swarm in swarms)
        + sum(each["failed"] for each in requests),
        kinds=dict(kinds),
        held=sum(
            known[role_name(site)]["held"]
            for site in plan.topology.sites
            if role_name(site) in known
        ),
        requests=sum(each["answered"] for each in requests),
        instances=[_instance(name, status, memory) for name, status in gateways],
        channels=[
            _channel(status["index"], channel)
            for _, status in gateways
            for channel in sorted(
                status["channels"], key=lambda channel: (channel["peer"], channel["shard"])
            )
        ],
        points=[
            _point(f"{site.code}/{point}", known[point], memory.get(point, 0))
            for site in plan.topology.sites
            for point in site.points
            if point in known
        ],
        memory=memory,
    )


def _instance(name: str, status: Status, memory: Mapping[str, int]) -> Instance:
    return Instance(
        name=name,
        clients=sum(shard["clients_open"] for shard in status["shards"]),
        streams=sum(channel["streams"] for channel in status["channels"]),
        requests=sum(shard["requests_total"] for shard in status["shards"]),
        memory=memory.get(name, 0),
    )


def _channel(instance: int, status: Status) -> Channel:
    keys = ("peer", "shard", "streams", "streams_total", "rtt_us", "bytes_sent", "bytes_received")
    return Channel(instance=instance, **{key: status[key] for key in keys})


def _point(name: str, status: Status, memory: int) -> Point:
    return Point(
        name=name,
        channels=sum(instance["channels_up"] for instance in status["instances"]),
        exchanges=status["exchanges"]["open"],
        exchanges_total=status["exchanges"]["total"],
        upstream=status["upstream"]["connections"],
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

    topology: str
    clients: int
    answered: int
    """Clients that got their own notification."""
    unhappy: int
    """Clients and requests that got a wrong answer or none."""
    pushed: int
    """Notifications that the roles took."""
    reasons: Mapping[str, int]
    """Unhappy clients and requests by reason."""
    kinds: Mapping[str, int]
    """Streams of each kind that were held at a time."""
    requests: int
    """Requests beside the streams that were answered."""
    request_p50_ms: float | None
    """From the time due; none in a demo that goes on."""
    request_p99_ms: float | None
    invalid: Sequence[str]
    """Why the latencies must not be used."""
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
    instances: Sequence[Instance] = ()
    """The gateway instances while all clients were held."""
    channels_held: Sequence[Channel] = ()
    """The channels then."""
    points: Sequence[Point] = ()
    """The connection points then."""

    @property
    def ok(self) -> bool:
        """Every client got its own notification, and every request its answer."""
        return self.answered == self.pushed == self.clients and self.unhappy == 0

    def to_json(self) -> dict[str, Any]:
        """Give the summary as an object, with the verdict as ``ok``."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """Give the summary as text."""
        memory = ", ".join(f"{name} {mebibytes(size)}" for name, size in self.memory.items())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        requests = f"{self.requests} requests answered beside them"
        if self.request_p50_ms is not None and self.request_p99_ms is not None:
            requests += f", p50 {self.request_p50_ms:.2f} ms, p99 {self.request_p99_ms:.2f} ms"
        lines = [
            f"{self.answered} of {self.clients} clients got their own notification ({kinds})",
            f"all held after {self.held_s:.1f} s over {self.channels} channels "
            f"({self.peak_streams} streams), notified within {self.notified_s:.2f} s",
            requests,
            f"memory while held: {memory}",
        ]
        lines += [f"latencies are not valid: {why}" for why in self.invalid]
        lines += [f"{count} x {reason}" for reason, count in self.reasons.items()]
        return lines


def mebibytes(size: int) -> str:
    """Give a number of bytes in a form to read."""
    return f"{size / (1 << 20):.1f} MiB"
