"""The pure parts of the demo: its plan, its readings, its verdict."""

from __future__ import annotations

import dataclasses
import io
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from cmgmux._supervisor import resident_bytes, tail
from cmgmux.config import GatewayConfig, PointConfig
from cmgmux.demo.plan import Plan, most_clients, to_toml
from cmgmux.demo.readings import Reading, Summary, is_connected, read
from cmgmux.demo.topology import TOPOLOGIES, TopologyName
from cmgmux.demo.view import LineView, view_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def plan_in(folder: Path, topology: TopologyName = "example1", *, endless: bool = False) -> Plan:
    """A plan of five clients."""
    return Plan(folder, TOPOLOGIES[topology], 5, endless=endless)


def test_settings_survive_as_toml() -> None:
    settings = {"a": 1, "b": 'x"\n', "list": ["p", "q"], "tables": [{"c": True}, {"d": 0.5}]}
    assert tomllib.loads(to_toml(settings)) == settings


@pytest.mark.parametrize("topology", ["example1", "example2"])
def test_the_plans_files_are_valid_configurations(tmp_path: Path, topology: TopologyName) -> None:
    plan = plan_in(tmp_path, topology)
    _, file, *_ = plan.gateway_command(1)
    gateway = GatewayConfig.load(file)
    assert (gateway.index, gateway.max_clients) == (1, 1_005)
    codes = {site.code for site in plan.topology.sites}
    assert {code for trusted in gateway.trusted for code in trusted.sites} == codes
    for site in plan.topology.sites:
        _, file, *_ = plan.point_command(
            site, site.points[0], role="127.0.0.1:80", channels=["127.0.0.1:4140", "a:1"]
        )
        point = PointConfig.load(file)
        assert point.mappings[0].hold
        assert point.mappings[0].internal == "http://127.0.0.1:80"
        assert [instance.address for instance in point.instances] == ["127.0.0.1:4140", "a:1"]


@pytest.mark.parametrize("topology", ["example1", "example2"])
def test_every_client_belongs_to_one_swarm(tmp_path: Path, topology: TopologyName) -> None:
    plan = plan_in(tmp_path, topology)
    ids = [client for swarm in plan.swarms for client in swarm.clients]
    assert sorted(ids) == list(range(5))
    by_site = [client for site in plan.topology.sites for client in plan.clients_of(site)]
    assert sorted(by_site) == sorted(ids)
    few = dataclasses.replace(plan, clients=1)
    assert [list(swarm.clients) for swarm in few.swarms] == [[0]]


def test_every_process_of_the_plan_ends_with_its_supervisor(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    (site,) = plan.topology.sites
    commands = [
        plan.role_command(site),
        plan.gateway_command(0),
        plan.point_command(site, "nyc1", role="r:1", channels=["g:2"]),
        plan.swarm_command(plan.swarms[0], gateway="g:1"),
    ]
    assert all("--stop-at-eof" in command for command in commands)


def test_an_endless_plan_has_endless_clients(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, endless=True)
    assert "--messages-per-client=0" in plan.swarm_command(plan.swarms[0], gateway="g:1")


def test_clients_are_limited_by_descriptors() -> None:
    assert most_clients(1_024) == 768
    assert most_clients(10) == 0


def reading(plan: Plan, statuses: Mapping[str, dict[str, Any] | None]) -> Reading:
    """What these statuses amount to."""
    return read(plan, statuses, phase="starting", elapsed_s=0, memory={})


def swarm(**changes: Any) -> dict[str, Any]:
    """The status of a swarm to which nothing has happened."""
    counts = dict.fromkeys(("connecting", "holding", "messages", "wrong", "failed"), 0)
    return {**counts, "kinds": {}, "requests": None, **changes}


def test_all_are_held_only_when_swarms_and_roles_agree(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "example2")
    assert not reading(plan, {}).all_held
    first, *others = [each.name for each in plan.swarms]
    for held_by_swarms, held_by_roles, all_held in [(2, 3, True), (2, 2, False), (1, 3, False)]:
        statuses: dict[str, dict[str, Any] | None] = dict.fromkeys(others, swarm(holding=1))
        statuses[first] = swarm(holding=held_by_swarms, kinds={"sse": {"held": 1}})
        statuses |= {"role-SEA": {"held": held_by_roles}, "role-PAR": {"held": 2}}
        seen = reading(plan, statuses)
        assert seen.all_held is all_held
        assert seen.kinds == {"sse": 1}


def test_a_point_is_connected_when_all_channels_are_up_and_its_publication_accepted() -> None:
    instance = {"channels_up": 2, "channels_wanted": 2, "publication": {"state": "accepted"}}
    assert is_connected({"instances": [instance]})
    assert not is_connected({"instances": [instance, instance | {"channels_up": 1}]})
    assert not is_connected({"instances": [instance | {"publication": {"state": "sent"}}]})
    assert not is_connected({"instances": []})
    assert not is_connected({})


@pytest.mark.parametrize("wrong", [{"failed": 1}, {"wrong": 1}, {"requests": {"failed": 1}}])
def test_one_failure_is_hopeless(tmp_path: Path, wrong: dict[str, Any]) -> None:
    plan = plan_in(tmp_path)
    status = swarm(**wrong)
    if status["requests"]:
        status["requests"] |= {"answered": 0}
    assert reading(plan, {plan.swarms[0].name: status}).hopeless


def test_instances_channels_and_points_are_told_apart(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    channel = {
        "peer": "NYC/nyc1",
        "shard": 0,
        "streams": 2,
        "streams_total": 3,
        "rtt_us": None,
        "bytes_sent": 4,
        "bytes_received": 5,
    }
    gateway: dict[str, Any] = {
        "shards": [{"clients_open": 6, "requests_total": 7}] * 2,
        "channels": [channel] * 2,
    }
    point = {
        "instances": [{"channels_up": 2}] * 2,
        "exchanges": {"open": 8, "total": 9},
        "upstream": {"connections": 10},
    }
    gateways = {f"gateway-{index}": {**gateway, "index": index} for index in (0, 1)}
    seen = reading(plan, {**gateways, "nyc2": point})
    assert [(each.name, each.clients, each.requests) for each in seen.instances] == [
        ("gateway-0", 12, 14),
        ("gateway-1", 12, 14),
    ]
    assert [each.instance for each in seen.channels] == [0, 0, 1, 1]
    assert seen.streams == 8
    (only,) = seen.points
    assert (only.name, only.channels, only.exchanges, only.upstream) == ("NYC/nyc2", 4, 8, 10)


GOOD = Summary(
    topology="example1",
    clients=3,
    answered=3,
    unhappy=0,
    pushed=3,
    reasons={},
    kinds={"sse": 3},
    requests=7,
    request_p50_ms=0.5,
    request_p99_ms=2.0,
    invalid=[],
    held_s=1.0,
    notified_s=0.1,
    total_s=2.0,
    channels=2,
    peak_streams=3,
    memory={"gateway": 3 << 20},
)


@pytest.mark.parametrize("wrong", [{"answered": 2}, {"unhappy": 1}, {"pushed": 2}])
def test_the_verdict_is_good_only_if_every_client_was_notified(wrong: dict[str, Any]) -> None:
    assert GOOD.ok
    bad = dataclasses.replace(GOOD, **wrong)
    assert not bad.ok
    assert bad.to_json()["ok"] is False


def test_the_summary_counts_and_says_reasons() -> None:
    text = "\n".join(dataclasses.replace(GOOD, reasons={"connection refused": 2}).lines())
    assert "3 of 3 clients got their own notification (3 sse)" in text
    assert "7 requests answered beside them, p50 0.50 ms" in text
    assert "gateway 3.0 MiB" in text
    assert "2 x connection refused" in text


def test_plain_lines_are_written_for_each_phase_and_not_for_each_look(tmp_path: Path) -> None:
    stream = io.StringIO()
    view = view_on(stream)
    assert isinstance(view, LineView)
    nothing = reading(plan_in(tmp_path), {})
    for phase in ("starting", "starting", "holding", "holding"):
        view.show(dataclasses.replace(nothing, phase=phase))
    assert stream.getvalue().count("\n") == 2


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(1_000)))
    assert tail(log, 2) == "line 998\nline 999"
    log.write_text("")
    assert tail(log) == "(it wrote nothing)"


def test_memory_of_a_process_that_is_not_there_is_unknown() -> None:
    assert resident_bytes(2**22 + 1) is None
