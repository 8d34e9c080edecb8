"""The two reference topologies: a site with two connection points, and two sites on one gateway."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import threading
from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from tests.e2e.estate import SHARDS, Estate, Site
from tests.e2e.path import SERVER_NAME, links_up, mapping, read_past
from tests.e2e.processes import DEADLINE_S, split
from tests.e2e.refusals import check_refusal
from tests.e2e.roles import NobodyThere, OddRole, Visit, show_the_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.roles import SampleRole


@pytest.fixture(scope="module")
def one_site(
    tmp_path_factory: pytest.TempPathFactory, curl: str, role: SampleRole
) -> Iterator[Estate]:
    """Two instances, and one site with two connection points, that tests leave as it was."""
    folder = tmp_path_factory.mktemp("one-site")
    site = Site("NYC", ("cp1", "cp2"), [mapping("/role", role.address)])
    with Estate(folder, curl, [site], instances=2) as estate:
        yield estate


def test_two_connection_points_share_the_requests_of_each_shard(one_site: Estate) -> None:
    for instance in range(2):
        before = {name: one_site.exchanges(name) for name in one_site.points}
        for _ in range(21):
            assert one_site.curl("/role/hello", instance=instance).status == 200
        shares = [one_site.exchanges(name) - before[name] for name in one_site.points]
        assert sum(shares) == 21
        assert abs(shares[0] - shares[1]) <= SHARDS, shares


def test_each_instance_has_a_channel_a_shard_to_each_connection_point(one_site: Estate) -> None:
    for gateway in one_site.gateways:
        peers = Counter(channel["peer"] for channel in gateway.status()["channels"])
        assert sorted(peers.values()) == [SHARDS, SHARDS], peers


@pytest.fixture
def role_of_sea() -> Iterator[OddRole]:
    """A role of the site SEA that shows what it gets."""
    with OddRole(show_the_head) as role:
        yield role


@pytest.fixture
def role_of_par() -> Iterator[OddRole]:
    """A role of the site PAR that shows what it gets."""
    with OddRole(show_the_head) as role:
        yield role


def test_two_sites_never_see_each_others_requests(
    tmp_path: Path, curl: str, role_of_sea: OddRole, role_of_par: OddRole
) -> None:
    def site(code: str, role: OddRole, nobody: str) -> Site:
        name = code.lower()
        mappings = [
            mapping(f"/{name}", role.address, authentication="certificate"),
            mapping(f"/{name}/open", role.address),
            mapping(f"/{name}/down", nobody),
        ]
        return Site(code, (f"{name}1",), mappings)

    with NobodyThere() as nobody, ExitStack() as stack:
        sites = [
            site("SEA", role_of_sea, nobody.address),
            site("PAR", role_of_par, nobody.address),
        ]
        estate = stack.enter_context(Estate(tmp_path, curl, sites, instances=1))
        # Each site's clients reach their own site, and nothing of the other.
        for number, (own, other) in enumerate([("SEA", "PAR"), ("PAR", "SEA")]):
            answer = estate.curl(f"/{own.lower()}/{number}", site=own)
            assert (answer.status, f"/{number} HTTP/1.1" in answer.text) == (200, True)
            refused = estate.curl(f"/{other.lower()}/{number}", site=own)
            check_refusal(
                refused, 403, "certificate-untrusted", f"site {other}", error="http_request_denied"
            )
        # A mapping whose role is down touches no other.
        assert estate.curl("/sea/down").status == 502
        assert estate.curl("/sea/open/2").status == 200
        # The accepted requests are what the roles have seen, and nothing else.
        assert targets_of(role_of_sea) == ["/0", "/2"]
        assert targets_of(role_of_par) == ["/1"]
        # A site whose only connection point is gone touches no other.
        estate.points["par1"].kill()
        estate.gateways[0].wait_for("one site's links", lambda status: links_up(status) == SHARDS)
        gone = estate.curl("/par/open/3")
        check_refusal(gone, 503, "no-connection-point", "PAR", error="destination_unavailable")
        assert estate.curl("/sea/open/4").status == 200
        assert targets_of(role_of_par) == []


def test_requests_of_a_killed_connection_point_move_or_fail_and_none_is_sent_twice(
    tmp_path: Path, curl: str
) -> None:
    gate = threading.Event()

    def answer_when_told(visit: Visit) -> None:
        gate.wait(DEADLINE_S)
        visit.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with OddRole(answer_when_told) as role, ExitStack() as stack:
        site = Site("NYC", ("cp1", "cp2"), [mapping("/held", role.address)])
        estate = stack.enter_context(Estate(tmp_path, curl, [site], instances=1))
        requests = [f"{method} /held/{n}" for n in range(10) for method in ("GET", "POST")]
        clients = {}
        for request in requests:
            clients[request] = stack.enter_context(connected(estate))
            head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            clients[request].sendall(head.encode())
        heads = [role.heads.get(timeout=DEADLINE_S) for _ in requests]
        estate.points["cp1"].wait_for("its share", lambda status: status["exchanges"]["open"])
        lost = estate.points["cp1"].status()["exchanges"]["open"]
        estate.points["cp1"].kill()
        # What moves arrives again, once, before anything has been answered.
        gateway = estate.gateways[0]
        gateway.wait_for("the lost links", lambda status: links_up(status) == SHARDS)
        estate.start_point("cp1")
        moved = gateway.wait_for(
            "the move", lambda status: moves(status) == lost_gets(status, lost)
        )
        heads += [role.heads.get(timeout=DEADLINE_S) for _ in range(moves(moved))]
        gate.set()
        statuses = {request: status_of(client) for request, client in clients.items()}
        assert {statuses[request] for request in requests if request.startswith("GET")} == {200}
        posts = Counter(statuses[request] for request in requests if request.startswith("POST"))
        assert posts == {200: 10 - (lost - moves(moved)), 502: lost - moves(moved)}
        assert role.heads.empty()
        seen = Counter(head.split(b" HTTP")[0] for head in heads)
        assert all(seen[f"POST /{n}".encode()] == 1 for n in range(10)), seen
        assert sum(seen.values()) == len(requests) + moves(moved)


def moves(status: dict[str, object]) -> int:
    """Tell how many requests have moved to another connection point."""
    shards = status["shards"]
    assert isinstance(shards, list)
    return sum(shard["requests_moved_total"] for shard in shards)


def lost_gets(status: dict[str, object], lost: int) -> int:
    """Tell how many of `lost` requests are to move: those that were not refused."""
    refusals = status["refusals"]
    assert isinstance(refusals, dict)
    return lost - int(refusals.get("connection-point-lost", 0))


def connected(estate: Estate) -> ssl.SSLSocket:
    """Give a client's TLS connection to the first instance."""
    tls = ssl.create_default_context(cafile=estate.gateway_ca)
    plain = socket.create_connection(split(estate.instances[0].clients), timeout=DEADLINE_S)
    return tls.wrap_socket(plain, server_hostname=SERVER_NAME)


def status_of(client: ssl.SSLSocket) -> int:
    """Read an answer's head and give its status."""
    return int(read_past(client, b"\r\n\r\n").split()[1])


def targets_of(role: OddRole) -> list[str]:
    """Take the targets of the requests that a role has seen."""
    seen = []
    while not role.heads.empty():
        seen.append(role.heads.get().split()[1].decode())
    return seen


def test_a_connection_point_that_stops_costs_no_request(
    tmp_path: Path, curl: str, role: SampleRole
) -> None:
    site = Site("NYC", ("cp1", "cp2"), [mapping("/role", role.address)])
    with Estate(tmp_path, curl, [site], instances=1) as estate:
        stopping = estate.points["cp1"]
        tls = ssl.create_default_context(cafile=estate.gateway_ca)
        host, port = split(estate.instances[0].clients)
        client = http.client.HTTPSConnection(host, port, timeout=DEADLINE_S, context=tls)
        statuses: Counter[int] = Counter()
        before = estate.exchanges("cp1")
        with closing(client):
            # Every request may have an effect, so none may be sent twice: the connection point
            # that stops serves those that it has accepted and refuses the others unseen.
            while stopping.is_running():
                client.request("POST", "/role/echo", body=b"once", headers={"Host": SERVER_NAME})
                answer = client.getresponse()
                answer.read()
                statuses[answer.status] += 1
                if sum(statuses.values()) == 50:
                    assert estate.exchanges("cp1") > before, "it has its share until then"
                    stopping.signal(signal.SIGTERM)
        assert stopping.wait() == 0
        assert set(statuses) == {200}, statuses
