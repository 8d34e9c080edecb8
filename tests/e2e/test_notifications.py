"""Clients that hold a poll each: how they are carried, told, and cleared away."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from cmgmux.demo.push import push_to_each
from tests.e2e.path import GatedPath, mapping
from tests.e2e.processes import DEADLINE_S, Service, wait_until
from tests.e2e.roles import SampleRole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS: Final = 2


@pytest.fixture
def role(tmp_path: Path) -> Iterator[SampleRole]:
    """A sample role of its own, so that nothing else counts."""
    with SampleRole(tmp_path) as role:
        yield role


@pytest.fixture
def path(tmp_path: Path, pki: Path, curl: str, role: SampleRole) -> Iterator[GatedPath]:
    """A path that leads to that role alone, for clients with a certificate."""
    mappings = [
        mapping(
            "/notifications",
            f"{role.address}/notifications",
            hold=True,
            authentication="certificate",
        )
    ]
    shards = {"shards": SHARDS}
    with GatedPath(tmp_path, pki, curl, mappings, gateway=shards, point=shards).running() as path:
        yield path


def certificate(pki: Path) -> list[str]:
    """Options for the swarm to show the client certificate."""
    return [f"--certificate={pki / 'client.pem'}", f"--key={pki / 'client.key'}"]


CHANNEL_COUNTERS: Final = ("streams", "handles", "ring_bytes", "queued_bytes")


def occupied(path: GatedPath, role: SampleRole) -> dict[str, Any]:
    """Everything that clients occupy anywhere along the path at this moment."""
    gateway, point, served = path.gateway.status(), path.point.status(), role.status()
    (instance,) = point["instances"]
    ends = {"gateway": path.gateway, "point": path.point, "role": role}
    return {
        "gateway channels": channels(gateway["channels"]),
        "point channels": channels([channel["stats"] for channel in instance["channels"]]),
        "clients": sum(shard["clients_open"] for shard in gateway["shards"]),
        "gateway exchanges": sum(shard["exchanges_open"] for shard in gateway["shards"]),
        "point exchanges": point["exchanges"]["open"],
        "mapping exchanges": [each["exchanges_open"] for each in point["mappings"]],
        "upstream connections": point["upstream"]["connections"],
        "held": served["held"],
        "role connections": served["open_connections"],
        "panics": [gateway["panics_total"], point["panics_total"], served["panics_total"]],
        "descriptors": {name: end.descriptors() for name, end in ends.items()},
    }


def channels(stats: list[dict[str, Any]]) -> list[dict[str, int]]:
    """What each channel has in use, by ordinal."""
    ordered = sorted(stats, key=lambda channel: int(channel["ordinal"]))
    return [{counter: channel[counter] for counter in CHANNEL_COUNTERS} for channel in ordered]


def wait_settled(path: GatedPath, role: SampleRole) -> dict[str, Any]:
    """Wait until nothing is on its way on any channel, and give what is occupied."""
    seen: dict[str, Any] = {}

    def look() -> dict[str, Any] | None:
        seen.update(occupied(path, role))
        ends = [*seen["gateway channels"], *seen["point channels"]]
        idle = all(channel["ring_bytes"] == channel["queued_bytes"] == 0 for channel in ends)
        return seen if idle else None

    return wait_until("nothing on its way", look, details=lambda: json.dumps(seen, indent=1))


def wait_until_as(before: dict[str, Any], path: GatedPath, role: SampleRole) -> None:
    """Wait until nothing more is occupied anywhere than was `before`."""
    now: dict[str, Any] = {}

    def is_as_before() -> bool | None:
        now.clear()
        now.update(occupied(path, role))
        return now == before or None

    wait_until(
        "everything is as before",
        is_as_before,
        watched=[path.gateway, path.point, role],
        details=lambda: json.dumps({"before": before, "now": now}, indent=1),
    )


def test_a_thousand_held_polls_share_a_channel_a_shard_and_leave_nothing_behind(
    path: GatedPath, role: SampleRole, pki: Path
) -> None:
    baseline = wait_settled(path, role)
    clients = 1_000
    options = [f"--clients={clients}", "--connect-rate-per-s=1000", *certificate(pki)]
    swarm = path.swarm("/notifications", *options)
    swarm.wait_holding(clients)
    role.wait_for("all held", lambda status: status["held"] == clients)

    held = occupied(path, role)
    assert held["clients"] == held["gateway exchanges"] == clients
    assert held["point exchanges"] == held["upstream connections"] == clients
    for end in ("gateway channels", "point channels"):
        streams = [channel["streams"] for channel in held[end]]
        assert len(streams) == SHARDS, "one channel a shard"
        assert sum(streams) == clients + 1, "and the control stream"
        assert min(streams) > clients / SHARDS / 2, "spread over the shards"

    swarm.kill()
    wait_until_as(baseline, path, role)


def test_each_client_receives_its_own_notification(
    path: GatedPath, role: SampleRole, pki: Path
) -> None:
    clients = 200
    swarm = path.swarm("/notifications", f"--clients={clients}", *certificate(pki))
    swarm.wait_holding(clients)
    role.wait_for("all held", lambda status: status["held"] == clients)
    for client in range(clients):
        assert push(role, client) == http.client.ACCEPTED
    assert swarm.wait() == 0
    report = json.loads(swarm.output().splitlines()[-1])
    outcome = {key: report[key] for key in ("clients", "answered", "wrong", "failed", "stopped")}
    assert outcome == {
        "clients": clients,
        "answered": clients,
        "wrong": 0,
        "failed": 0,
        "stopped": 0,
    }


def test_five_thousand_are_notified_while_another_thousand_die(
    path: GatedPath, role: SampleRole, pki: Path
) -> None:
    clients, others = 5_000, 1_000
    swarm = path.swarm(
        "/notifications", f"--clients={clients}", "--connect-rate-per-s=1000", *certificate(pki)
    )
    swarm.wait_holding(clients)
    role.wait_for("all held", lambda status: status["held"] == clients)
    before = wait_settled(path, role)
    doomed = path.swarm(
        "/notifications",
        f"--clients={others}",
        f"--first-client={clients}",
        "--connect-rate-per-s=1000",
        *certificate(pki),
        name="doomed",
    )
    doomed.wait_holding(others)
    role.wait_for("all held", lambda status: status["held"] == clients + others)
    doomed.kill()
    wait_until_as(before, path, role)
    assert push_to_each(role.status()["address"], range(clients)) == clients
    assert swarm.wait() == 0
    report = json.loads(swarm.output().splitlines()[-1])
    assert (report["answered"], report["wrong"], report["failed"]) == (clients, 0, 0)


def push(role: Service, client: int) -> int:
    """Push to one client and give the role's status."""
    connection = http.client.HTTPConnection(role.status()["address"], timeout=DEADLINE_S)
    try:
        connection.request("POST", f"/push?client={client}", body=f"news for {client}")
        return connection.getresponse().status
    finally:
        connection.close()


def wait_for_polls(role: Service, *, held: int, polls: int) -> None:
    """Wait until a role holds some of the polls that it has had."""
    role.wait_for(
        f"{held} held of {polls}",
        lambda status: (status["held"], status["streams_total"]) == (held, polls),
    )


def test_clients_poll_again_on_the_same_connection(
    path: GatedPath, role: SampleRole, pki: Path
) -> None:
    swarm = path.swarm(
        "/notifications", "--clients=10", "--messages-per-client=3", *certificate(pki)
    )
    for polls in (10, 20, 30):
        wait_for_polls(role, held=10, polls=polls)
        for client in range(10):
            assert push(role, client) == http.client.ACCEPTED
    assert swarm.wait() == 0
    totals = [shard["clients_total"] for shard in path.gateway.status()["shards"]]
    assert sum(totals) == 10
