"""What must hold whatever a hostile peer does: U1 to U7, around each such test."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.path import read_past
from tests.e2e.processes import wait_until
from tests.e2e.roles import MEBIBYTE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from tests.e2e.path import GatedPath
    from tests.e2e.processes import Service
    from tests.e2e.roles import SampleRole

Status = dict[str, Any]

CANARY_BYTES: Final = 300
MEMORY_FACTOR: Final = 1.1
MEMORY_SPARE_BYTES: Final = 16 * MEBIBYTE


@dataclass
class Watch:
    """What a test expects of a hostile act, beside what it sees itself."""

    message: str = ""
    """The line that the victim's log has for it; nothing if none is to be expected."""
    code: str = ""
    """The stable reason in that line and among the counters."""
    times: int = 1
    secrets: list[bytes] = field(default_factory=list)
    """What no line may show."""

    def expect(self, message: str, code: str, *, times: int = 1) -> None:
        """Expect a line and a count of it."""
        self.message, self.code, self.times = message, code, times

    def lines(self, log: str) -> int:
        """How many such lines a log has."""
        whole = (line for line in log.splitlines(keepends=True) if line.endswith("\n"))
        records = (json.loads(line) for line in whole if self.message in line)
        return sum(
            record["msg"] == self.message
            and self.code in (record.get("code"), record.get("reason"))
            for record in records
        )

    def count(self, status: Status) -> int:
        """What the victim has counted: a gateway or a connection point."""
        counts: dict[str, int]
        if self.message == "channel has ended":
            counts = status["channel_ends"]
        elif "links" in status:
            counts = status["links"]["refused"]
        else:
            counts = status["links_failed"]
        return counts.get(self.code, 0)


class Canary(threading.Thread):
    """Sends requests, one after the other, over another channel than the one attacked."""

    def __init__(self, path: GatedPath) -> None:
        """Start at once."""
        super().__init__(daemon=True)
        self._path = path
        self._over = threading.Event()
        self.sent = 0
        self.failure: BaseException | None = None
        self.sang = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        """Go on until told to stop, or until something is wrong."""
        try:
            with self._path.connected() as client:
                while not self._over.is_set():
                    self.sent += 1
                    sing(client)
                    self.sang.release()
        except BaseException as error:
            self.failure = error
            self.sang.release()

    def stop(self) -> None:
        """Let the request under way end; every one must have had its answer."""
        self._over.set()
        self.join()
        if self.failure is not None:
            raise AssertionError("the canary fell silent") from self.failure


def sing(client: ssl.SSLSocket) -> None:
    """Have the role hash some bytes, and check what it says."""
    body = os.urandom(CANARY_BYTES)
    client.sendall(
        b"POST /role/echo HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    head, _, answer = read_past(client, b"\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None, head
    while len(answer) < int(length[1]):
        answer += client.recv(65_536)
    echoed = json.loads(answer)
    assert (echoed["length"], echoed["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def held(gateway: Service, point: Service) -> Status:
    """All that an attack could leave behind (U5), but for memory."""
    status, (own, own_descriptors) = gateway.status(), beyond_roles(point)
    keys = ("channel_id", "streams", "handles", "ring_bytes", "queued_bytes", "unread_bytes")
    channels = [{key: channel[key] for key in keys} for channel in status["channels"]]
    return {
        "channels": sorted(channels, key=lambda channel: str(channel["channel_id"])),
        "detached_bytes": status["detached_bytes"],
        "clients": sum(shard["clients_open"] for shard in status["shards"]),
        "exchanges": sum(shard["exchanges_open"] for shard in status["shards"]),
        "exchanges of the connection point": own["exchanges"]["open"],
        "descriptors": [gateway.descriptors(), own_descriptors],
        "tasks": [status["tasks"], own["tasks"]],
        "threads": [
            len(list(Path(f"/proc/{each.pid}/task").iterdir())) for each in (gateway, point)
        ],
    }


def beyond_roles(point: Service) -> tuple[Status, int]:
    """A connection point's status, and its descriptors but for connections to roles.

    Those are kept for later exchanges, and closed at any time.
    """

    def look() -> tuple[Status, int] | None:
        status, descriptors = point.status(), point.descriptors()
        connections = status["upstream"]["connections"]
        is_same = point.status()["upstream"]["connections"] == connections
        return (status, descriptors - connections) if is_same else None

    return wait_until("connections to roles to stay as they are", look, watched=[point])


def is_back(now: Status, baseline: Status) -> bool:
    """Whether nothing is left beyond the baseline."""
    # The baseline may have counted a task, a thread or an admin connection that was about to end.
    fewer = {
        key: [min(pair) for pair in zip(now[key], baseline[key], strict=True)]
        for key in ("descriptors", "tasks", "threads")
    }
    return now == baseline | fewer


def is_at_rest(status: Status) -> bool:
    """Whether a gateway has nothing under way."""
    return not any(
        channel["ring_bytes"] + channel["queued_bytes"] + channel["unread_bytes"]
        for channel in status["channels"]
    )


def requests(status: Status) -> int:
    """How many requests a gateway has taken."""
    return sum(shard["requests_total"] for shard in status["shards"])


def identities(path: GatedPath) -> list[tuple[int, str]]:
    """The processes, by their ids and the names of their runs."""
    return [(each.pid, each.status()["boot_id"]) for each in (path.gateway, path.point)]


@contextmanager
def unharmed(
    path: GatedPath, role: SampleRole, *, victim: Service | None = None
) -> Iterator[Watch]:
    """Check U1 to U7 around a hostile act against the `victim`, which is the gateway if not said.

    The role must be the canary's alone.
    """
    gateway, point, watch = path.gateway, path.point, Watch()
    victim = victim or gateway
    gateway.wait_for("all to be at rest", is_at_rest)
    before, runs, taken_before = victim.status(), identities(path), requests(gateway.status())
    baseline, memory = held(gateway, point), victim.memory_bytes()
    heard = role.status()["requests"]["echo"]
    canary = Canary(path)
    canary.sang.acquire()
    log_before = victim.log()
    yield watch
    # It sings on after all that.
    while canary.sang.acquire(blocking=False):
        pass
    canary.sang.acquire()
    canary.stop()
    assert identities(path) == runs, "U1: the same processes"
    panics = [each.status()["panics_total"] for each in (gateway, point)]
    assert panics == [0, 0], "U2: no panic"
    # U3 is the canary's.
    wait_until(
        "U5: nothing to be left",
        lambda: is_back(held(gateway, point), baseline) or None,
        watched=[gateway, point],
        details=lambda: f"{held(gateway, point)}\ninstead of\n{baseline}",
    )
    most = memory * MEMORY_FACTOR + MEMORY_SPARE_BYTES
    victim.wait_for("U4: memory to be given back", lambda _: victim.memory_bytes() <= most)
    if watch.message:
        victim.wait_for(
            "U6: the count", lambda status: watch.count(status) - watch.count(before) == watch.times
        )
        earlier = watch.lines(log_before)
        victim.wait_for(
            "U6: its lines", lambda _: watch.lines(victim.log()) - earlier >= watch.times
        )
        lines = watch.lines(victim.log()) - earlier
        assert lines == watch.times, f"U6: one line each of {watch.code}"
    said = gateway.log() + point.log()
    assert "PRIVATE KEY" not in said, "U6: no secret"
    for secret in watch.secrets:
        assert secret.hex() not in said.lower(), "U6: no secret"
        assert ", ".join(map(str, secret)) not in said, "U6: no secret"
    taken = requests(gateway.status()) - taken_before
    seen = role.status()["requests"]["echo"] - heard
    assert canary.sent == taken == seen, "U7: the role saw what the gateway took"
