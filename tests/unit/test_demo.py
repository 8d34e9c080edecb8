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
from cmgmux.demo.readings import Summary, is_connected, read
from cmgmux.demo.view import LineView, view_on

if TYPE_CHECKING:
    from pathlib import Path


def plan_in(folder: Path, *, endless: bool = False) -> Plan:
    """A plan of five clients."""
    return Plan(folder, 5, endless=endless)


def test_settings_survive_as_toml() -> None:
    settings = {"a": 1, "b": 'x"\n', "list": ["p", "q"], "tables": [{"c": True}, {"d": 0.5}]}
    assert tomllib.loads(to_toml(settings)) == settings


def test_the_plans_files_are_valid_configurations(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    _, file, *_ = plan.gateway_command()
    assert GatewayConfig.load(file).max_clients >= 5
    _, file, *_ = plan.point_command(role="127.0.0.1:80", channels="127.0.0.1:4140")
    point = PointConfig.load(file)
    assert point.mappings[0].hold
    assert point.mappings[0].internal == "http://127.0.0.1:80"
    assert point.instances[0].address == "127.0.0.1:4140"


def test_every_process_of_the_plan_ends_with_its_supervisor(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    commands = [
        plan.role_command(),
        plan.gateway_command(),
        plan.point_command(role="r:1", channels="g:2"),
        plan.swarm_command(gateway="g:1"),
    ]
    assert all("--stop-at-eof" in command for command in commands)


def test_an_endless_plan_has_endless_clients(tmp_path: Path) -> None:
    assert "--messages-per-client=0" in plan_in(tmp_path, endless=True).swarm_command(gateway="g:1")


def test_clients_are_limited_by_descriptors() -> None:
    assert most_clients(1_024) == 768
    assert most_clients(10) == 0


def test_all_are_held_only_when_swarm_and_role_agree() -> None:
    assert not read({}, phase="", elapsed_s=0, clients=3, memory={}).all_held
    for swarm, role, held in [(3, 3, True), (3, 2, False), (2, 3, False)]:
        statuses = {"swarm": {"holding": swarm}, "role": {"held": role}, "gateway": None}
        assert read(statuses, phase="", elapsed_s=0, clients=3, memory={}).all_held is held


def test_a_point_is_connected_when_all_channels_are_up_and_its_publication_accepted() -> None:
    instance = {"channels_up": 2, "channels_wanted": 2, "publication": {"state": "accepted"}}
    assert is_connected({"instances": [instance]})
    assert not is_connected({"instances": [instance, instance | {"channels_up": 1}]})
    assert not is_connected({"instances": [instance | {"publication": {"state": "sent"}}]})
    assert not is_connected({"instances": []})
    assert not is_connected({})


def test_one_failed_client_is_hopeless() -> None:
    statuses = {"swarm": {"holding": 2, "wrong": 0, "failed": 1}}
    assert read(statuses, phase="", elapsed_s=0, clients=3, memory={}).hopeless


GOOD = Summary(
    clients=3,
    answered=3,
    unhappy=0,
    pushed=3,
    reasons={},
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
    assert "3 of 3 clients got their own notification" in text
    assert "gateway 3.0 MiB" in text
    assert "2 x connection refused" in text


def test_plain_lines_are_written_for_each_phase_and_not_for_each_look() -> None:
    stream = io.StringIO()
    view = view_on(stream)
    assert isinstance(view, LineView)
    reading = read({}, phase="starting", elapsed_s=0, clients=3, memory={})
    for phase in ("starting", "starting", "holding", "holding"):
        view.show(dataclasses.replace(reading, phase=phase))
    assert stream.getvalue().count("\n") == 2


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(1_000)))
    assert tail(log, 2) == "line 998\nline 999"
    log.write_text("")
    assert tail(log) == "(it wrote nothing)"


def test_memory_of_a_process_that_is_not_there_is_unknown() -> None:
    assert resident_bytes(2**22 + 1) is None
