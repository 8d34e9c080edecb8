"""Runs of the multiplexer beside its rivals, with figures that are made up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bench import multiplexers, mux
from bench.multiplexers import Built, PeerError
from bench.scenarios import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path

SOUND = {figure.key: 2.0 for scenario in SCENARIOS.values() for figure in scenario.figures}
"""An answer that has the figures of every scenario."""


@dataclass
class Peers:
    """What the multiplexers answer, and what the run made of that."""

    folder: Path
    missing: dict[str, str] = field(default_factory=dict)
    answers: dict[tuple[str, int], dict[str, Any] | PeerError] = field(default_factory=dict)
    """By multiplexer and how often it has been asked before, where they are not sound."""
    asked: dict[str, int] = field(default_factory=dict)

    def build(self) -> Built:
        """Stand in for the builds."""
        return Built({}, self.missing)

    def measure(self, peer: str, job: object, *, counts_heap: bool) -> dict[str, Any]:
        """Stand in for a measurement."""
        assert peer not in self.missing
        number = self.asked[peer] = self.asked.get(peer, 0) + 1
        answer = self.answers.get((peer, number), {})
        if isinstance(answer, PeerError):
            raise answer
        return SOUND | answer

    def run(self, scenario: str, *, rounds: int = 3) -> int:
        """Run one scenario and give the exit status."""
        words = [f"--scenario={scenario}", f"--rounds={rounds}", f"--output={self.output}"]
        return mux.main(words)

    @property
    def output(self) -> Path:
        """Where the raw rounds are."""
        return self.folder / "build" / "mux.jsonl"

    def records(self, peer: str) -> list[dict[str, Any]]:
        """The raw rounds of one multiplexer."""
        lines = map(json.loads, self.output.read_text().splitlines())
        return [line for line in lines if line["peer"] == peer]

    def charts(self) -> dict[str, str]:
        """The charts of the page, by title."""
        page = self.output.with_suffix(".html").read_text()
        return dict(re.findall(r"<h2>([^<]*)</h2>(<svg.*?</svg>)", page))


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peers:
    """Multiplexers that answer at once."""
    peers = Peers(tmp_path)
    monkeypatch.setattr(multiplexers, "build", peers.build)
    monkeypatch.setattr(multiplexers, "measure", peers.measure)
    return peers


def table_row(text: str, name: str) -> list[str]:
    """The cells of the first line that begins with the cell `name`."""
    rows = (re.split(r" {2,}", line.strip()) for line in text.splitlines())
    return next(row for row in rows if row[0] == name)


def bar(svg: str, name: str) -> str:
    """What a chart draws behind a name."""
    return svg.split(f">{name}</text>")[1].split('text-anchor="end"')[0]


def test_a_missing_rival_has_a_row_a_record_and_an_empty_bar_with_the_reason(
    peers: Peers, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.missing = {"go-smux": "go not found"}
    assert peers.run("churn", rounds=2) == 0
    row = table_row(capsys.readouterr().out, "go-smux")
    assert row == ["go-smux", "-", "not measured: go not found"]
    records = peers.records("go-smux")
    assert [record["round"] for record in records] == [1, 2]
    assert all(record["failure"] == "go not found" for record in records)
    assert all(record["scenario"] == "churn" and record["facts"] for record in records)
    (chart,) = peers.charts().values()
    assert "not measured: go not found" in bar(chart, "go-smux")
    assert "<rect" not in bar(chart, "go-smux")
    assert "<rect" in bar(chart, "go-yamux")


def test_a_rival_that_fails_once_keeps_its_other_rounds(
    peers: Peers, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.answers = {
        ("quinn", 2): PeerError("connection lost\n  timed out"),
        ("quinn", 3): {"streams_per_s": 4.0},
    }
    assert peers.run("churn") == 0
    text = capsys.readouterr().out
    failed = "failed in 1 of 3 rounds: connection lost timed out"
    assert table_row(text, "quinn")[-1] == failed
    assert table_row(text, "cmgmux/quinn")[1] == "0.75 (0.50..1.00)"
    assert f"quinn {failed} (churn)" in text
    assert ["failure" in record for record in peers.records("quinn")] == [False, True, False]
    (chart,) = peers.charts().values()
    assert "<rect" in bar(chart, "quinn")
    assert "in 2 of 3 rounds" in bar(chart, "quinn")


@pytest.mark.parametrize("wrong", [0, 0.0, None, "much", float("nan"), float("inf"), -1])
def test_a_figure_that_nothing_can_be_compared_with_fails_the_round_alone(
    peers: Peers, capsys: pytest.CaptureFixture[str], wrong: object
) -> None:
    peers.answers = {("h2", 1): {"bulk_bytes_per_s": wrong}}
    assert peers.run("echo") == 0
    text = capsys.readouterr().out
    assert "failed in 1 of 3 rounds: bulk_bytes_per_s is" in table_row(text, "h2")[-1]
    assert "bulk_bytes_per_s is" in peers.records("h2")[0]["failure"]
    assert "p99 under bulk, of the best rival" in text
    assert peers.charts()


def test_figures_that_are_to_be_zero_may_be(
    peers: Peers, capsys: pytest.CaptureFixture[str]
) -> None:
    peers.answers = {("cmgmux", number): {"bytes_lost": 0} for number in (1, 2, 3)}
    assert peers.run("killed") == 0
    assert table_row(capsys.readouterr().out, "bytes lost by that")[-1] == "holds"


@pytest.mark.parametrize("peer", ["cmgmux", "rustls"])
def test_a_failure_of_whom_all_are_compared_with_is_the_exit_status_after_the_verdict(
    peers: Peers, capsys: pytest.CaptureFixture[str], peer: str
) -> None:
    peers.answers = {(peer, number): PeerError("broken") for number in (1, 2, 3)}
    assert peers.run("bulk-1") == 1
    text = capsys.readouterr().out
    assert table_row(text, peer)[1:] == ["-", "-", "not measured: broken"]
    assert table_row(text, "bulk, 1 stream, of rustls")[-1] == "not measured"
    assert "not measured: broken" in next(iter(peers.charts().values()))


def test_a_run_in_which_everybody_fails_ends_with_verdict_and_page(peers: Peers) -> None:
    peers.answers = {(peer, 1): PeerError("broken") for peer in SCENARIOS["idle"].peers}
    assert peers.run("idle", rounds=1) == 1
    (chart,) = peers.charts().values()
    assert "<rect" not in chart


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_page_plots_each_column_of_the_table(
    peers: Peers, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert peers.run(name, rounds=1) == 0
    table = capsys.readouterr().out.split(SCENARIOS[name].title + "\n")[1]
    columns = re.split(r" {2,}", table.splitlines()[0].strip())
    plotted = [title.removeprefix(SCENARIOS[name].title + ": ") for title in peers.charts()]
    assert [title.split(",")[0] for title in plotted] == columns


def test_what_a_link_carries_is_plotted_beside_the_times(peers: Peers) -> None:
    peers.answers = {("cmgmux", 1): {"bulk_bytes_per_s": 12.5e6}}
    assert peers.run("shaped-256k", rounds=1) == 0
    charts = {title.split(": ")[1]: svg for title, svg in peers.charts().items()}
    assert "12.50 (12.50..12.50)" in bar(charts["bulk MB/s, higher is better"], "cmgmux")
    assert "1.00 (1.00..1.00)" in bar(charts["share of the link, higher is better"], "cmgmux")
    assert "p99 ms, lower is better" in charts


def test_how_much_was_measured_is_not_called_better_or_worse(peers: Peers) -> None:
    assert peers.run("killed", rounds=1) == 0
    titles = [title.split(": ")[1] for title in peers.charts()]
    assert "kills" in titles
    assert "bytes lost, lower is better" in titles
