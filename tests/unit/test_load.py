"""The pure parts of load runs: sharing out, adding up, percentiles, plots and the page."""

from __future__ import annotations

import math
import os
import random
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from cmgmux.cli.app import run
from cmgmux.cli.load import arguments, processes_for, progress_line, split, succeeded, summary_line
from cmgmux.report.histogram import Histogram
from cmgmux.report.memory import MemoryLog, private_bytes
from cmgmux.report.merge import merge
from cmgmux.report.page import render
from cmgmux.report.svg import Series, linear, nines, percentiles, plot

SETTINGS: dict[str, Any] = {
    "clients": 10,
    "first_client": 100,
    "kinds": ["sse", "websocket"],
    "connect_rate_per_s": 300.0,
    "requests_per_s": 30.0,
    "request_connections": 7,
    "request_path": None,
}


def histogram(*milliseconds: float) -> dict[str, Any]:
    """A native histogram of these durations."""
    counts: dict[int, int] = {}
    for value in milliseconds:
        counts[round(value * 1e3)] = counts.get(round(value * 1e3), 0) + 1
    return {"unit": "us", "counts": [list(pair) for pair in sorted(counts.items())]}


def point(t_s: int, **changes: Any) -> dict[str, Any]:
    """A second of a time line."""
    return {
        "t_s": t_s,
        "held": 3,
        "messages": 2,
        "requests": 1,
        "failed": 0,
        "request_latency": histogram(1.0),
        "notification_latency": histogram(2.0, 3.0),
    } | changes


def report(**changes: Any) -> dict[str, Any]:
    """What one process reports."""
    return {
        "clients": 3,
        "answered": 3,
        "wrong": 0,
        "failed": 0,
        "stopped": 0,
        "messages": 4,
        "empty_polls": 0,
        "reasons": {},
        "kinds": {"sse": {"clients": 3, "held": 0, "messages": 4}},
        "connect_s": 0.5,
        "elapsed_s": 2.0,
        "start_unix_s": 1_000.0,
        "answer_times": None,
        "notification_latency": histogram(2.0, 3.0),
        "requests": None,
        "timeline_step_s": 1,
        "timeline": [point(1), point(2, held=0)],
        "invalid": [],
    } | changes


def requests(**changes: Any) -> dict[str, Any]:
    """What one process reports of its requests."""
    return {
        "rate_per_s": 5.0,
        "due": 10,
        "sent": 10,
        "answered": 9,
        "failed": 1,
        "reasons": {"status 503": 1},
        "latency": histogram(1.0, 1.0, 9.0),
        "generator_lag": histogram(0.1),
    } | changes


def finished(**changes: Any) -> dict[str, Any]:
    """A merged report as the page gets it."""
    merged = merge([report(**changes)])
    run = {"target": "<gateway>:443", "processes": 1}
    memory = {"a<b": [(0.0, 1 << 20), (1.0, 2 << 20)], "gone": []}
    return {**merged, "ok": True, "memory": memory, "notes": [], "run": run}


def test_the_work_is_shared_out_without_loss() -> None:
    shares = split(SETTINGS, 3)
    assert [share["clients"] for share in shares] == [4, 3, 3]
    assert [share["first_client"] for share in shares] == [100, 104, 107]
    assert sum(share["requests_per_s"] for share in shares) == pytest.approx(30)
    assert all(share["request_connections"] == 2 for share in shares)
    assert len(split({**SETTINGS, "clients": 2, "requests_per_s": 0.0}, 5)) == 2
    assert len(split({**SETTINGS, "clients": 0}, 5)) == 5


def test_a_share_becomes_options_of_the_command() -> None:
    options = arguments(SETTINGS)
    assert options[:3] == ["load", "--kind=sse", "--kind=websocket"]
    assert "--connect-rate-per-s=300.0" in options
    assert not any(option.startswith("--request-path") for option in options)
    assert "--processes=1" in options


def test_processes_are_as_many_as_descriptors_demand() -> None:
    assert processes_for(1_000, 16, 20_000) == 1
    assert processes_for(19_744, 0, 20_000) == 1
    assert processes_for(19_745, 0, 20_000) == 2
    assert processes_for(10**9, 0, 10) == 64


def test_percentiles_are_those_of_the_sorted_list() -> None:
    dice = random.Random(7)  # noqa: S311 - a fixed list of numbers
    values = [round(dice.expovariate(0.01), 3) + 0.001 for _ in range(1_000)]
    seen = Histogram.from_json(histogram(*values))
    for percent in (0.1, 50, 90, 99, 99.9, 100):
        rank = max(1, math.ceil(len(values) * percent / 100 - 1e-9))
        assert seen.percentile_ms(percent) == pytest.approx(sorted(values)[rank - 1])
    assert seen.total == 1_000
    assert seen.max_ms == pytest.approx(max(values))
    assert Histogram().percentile_ms(50) is None
    assert Histogram().to_json()["percentiles_ms"]["max"] is None


def test_reports_are_added_up() -> None:
    first = report(requests=requests(), reasons={"refused": 1})
    second = report(
        start_unix_s=1_001.0,
        requests=requests(latency=histogram(5.0)),
        reasons={"refused": 2, "late": 1},
        kinds={"websocket": {"clients": 3, "held": 1, "messages": 4}},
        invalid=["lagged"],
    )
    merged = merge([first, second])
    assert (merged["clients"], merged["messages"]) == (6, 8)
    assert merged["reasons"] == {"refused": 3, "late": 1}
    assert set(merged["kinds"]) == {"sse", "websocket"}
    assert (merged["connect_s"], merged["elapsed_s"]) == (1.5, 3.0)
    assert merged["requests"]["due"] == 20
    assert merged["requests"]["latency"]["count"] == 4
    assert merged["requests"]["latency"]["percentiles_ms"]["max"] == 9.0
    assert merged["invalid"] == ["process 1: lagged"]
    # The second process began a second later.
    assert [(each["t_s"], each["messages"]) for each in merged["timeline"]] == [
        (1, 2),
        (2, 4),
        (3, 2),
    ]
    assert [each["held"] for each in merged["timeline"]] == [3, 3, 0]


def test_a_process_with_finer_steps_is_added_to_one_with_coarser() -> None:
    fine = report(timeline=[point(1), point(2), point(3, held=9), point(4, held=5)])
    coarse = report(timeline_step_s=2, timeline=[point(2, held=1), point(4, held=1)])
    timeline = merge([fine, coarse])["timeline"]
    assert [(each["t_s"], each["messages"], each["held"]) for each in timeline] == [
        (2, 6, 4),
        (4, 6, 6),
    ]


def test_success_is_that_nobody_was_disappointed() -> None:
    assert succeeded(merge([report()]), endless=False)
    assert not succeeded(merge([report(failed=1)]), endless=False)
    assert not succeeded(merge([report(answered=2, stopped=1)]), endless=False)
    assert succeeded(merge([report(answered=0, stopped=3)]), endless=True)
    assert not succeeded(merge([report(requests=requests())]), endless=False)
    assert succeeded(merge([report(requests=requests(failed=0))]), endless=False)


def test_the_summary_says_what_became_of_all() -> None:
    line = summary_line(merge([report(requests=requests())]))
    assert "3 clients: 3 answered" in line
    assert "9 of 10 requests answered, p50 1 ms, p99 9 ms" in line
    assert "1 x status 503" in line


def test_the_progress_is_that_of_all_processes() -> None:
    last = {
        "messages": 1,
        "requests": 20,
        "failed": 0,
        "request_p50_ms": 1.5,
        "request_p99_ms": None,
    }
    status = {
        "waiting": 1,
        "connecting": 2,
        "holding": 3,
        "wrong": 0,
        "failed": 1,
        "requests": {"failed": 2},
        "last_second": last,
    }
    slower = {**status, "last_second": {**last, "request_p50_ms": 2.5}}
    line = progress_line(7.2, [status, slower])
    wanted = "7 s, 6 to connect, 6 held, 2 messages/s, 40 requests/s, p50 2.50 ms, 6 failed"
    assert line.strip() == wanted


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0.0, ["0", "0.2"]),
        (7.0, ["0", "2", "4", "6", "8"]),
        (60.0, ["0", "10", "20", "30", "40", "50", "60"]),
        (4_800.0, ["0", "1 k", "2 k", "3 k", "4 k", "5 k"]),
    ],
)
def test_ticks_are_round_and_reach_the_highest_value(highest: float, ticks: list[str]) -> None:
    axis = linear("", [highest])
    assert [text for _, text in axis.ticks] == ticks
    assert axis.high >= highest


def test_each_nine_has_the_same_room() -> None:
    axis = percentiles("percent")
    assert [axis.part(nines(share)) for share in (0, 90, 99, 99.9, 99.99)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1]
    )


def test_a_plot_is_well_formed_and_escapes_what_it_is_given() -> None:
    series = [Series('a<b>&"c', [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)]), Series("one", [(1, 1)])]
    text = plot("<title>", linear("s", [2.0]), linear("ms", [3.0]), series)
    root = ElementTree.fromstring(text)  # noqa: S314 - our own text
    texts = [each.text for each in root.iter() if each.text]
    assert 'a<b>&"c' in texts
    assert "<title>" in texts
    lines = [each for each in root.iter() if each.get("class") == "line s0"]
    assert "nan" not in "".join(each.get("d", "") for each in lines)


def test_the_page_needs_nothing_else_and_says_whether_it_may_be_used() -> None:
    text = render(finished(requests=requests()))
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in text
    assert "&lt;gateway&gt;:443" in text
    assert "a&lt;b" in text
    assert text.count("<svg") == 6
    assert "Invalid" not in text
    invalid = render(finished(invalid=["the generator lagged"]))
    assert "Invalid: these figures must not be used. the generator lagged" in invalid


def test_memory_of_a_process_is_read_or_noted() -> None:
    assert (private_bytes(os.getpid()) or 0) > 1 << 20
    log = MemoryLog({"self": os.getpid(), "nobody": 2**22 + 1})
    log.read()
    assert len(log.readings["self"]) == 1
    assert log.notes() == [f"the memory of nobody (process {2**22 + 1}) could not be read"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--watch=gateway", "--watch: 'gateway' is not NAME=PID"),
        ("--watch==5", "--watch: '=5' is not NAME=PID"),
        ("--report=/nonexistent/report.html", "--report: no file can be made in /nonexistent"),
        ("--kind=pigeon", 'Invalid value "pigeon"'),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    option: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    required = ["--target=localhost:1", "--server-name=a", "--ca=ca.pem", "--path=/a"]
    assert run(["load", *required, option]) == 2
    assert words in capsys.readouterr().err


def test_an_admin_socket_is_for_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    required = ["--target=localhost:1", "--server-name=a", "--ca=ca.pem", "--path=/a"]
    assert run(["load", *required, "--processes=2", "--admin-socket=s"]) == 2
    assert "--admin-socket: is for a run with one process" in capsys.readouterr().err
