"""A load run as one page of HTML that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from cmgmux.report.histogram import Histogram
from cmgmux.report.svg import Series, linear, nines, percentiles, plot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Rows = Sequence[tuple[str, object]]

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667; --grid: #d8dbe2; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --soft: #9aa1b1; --grid: #343a48; --paper: #14171e; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 760px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid var(--grid);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--soft); width: 40%; }
.verdict { padding: .6em .9em; border-left: 5px solid #2a9d55; background: #2a9d5518; }
.verdict.bad { border-color: #d0393e; background: #d0393e18; }
svg { width: 100%; height: auto; margin: 1em 0; break-inside: avoid; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .title { font-size: 14px; fill: var(--ink); }
svg .x { text-anchor: middle; } svg .y { text-anchor: end; }
.grid { stroke: var(--grid); fill: none; } .line { fill: none; stroke-width: 1.8; }
.s0 { stroke: #2f6fde; } .s1 { stroke: #e07b1f; } .s2 { stroke: #2a9d55; } .s3 { stroke: #c23b8f; }
.s4 { stroke: #7d5bd0; } .s5 { stroke: #14a3a8; } .s6 { stroke: #b08d12; } .s7 { stroke: #8a8f9c; }
"""

_SHARES: Final = tuple(100.0 * (1 - 10 ** (-step / 20)) for step in range(81))
"""Percentages at even distances on an axis of nines, up to 99.99."""


def render(report: Mapping[str, Any]) -> str:
    """Write the page of a merged report; see ``cmgmux.cli.load`` for what it holds."""
    body = "".join(
        [
            "<h1>cmgmux load</h1>",
            _verdict(report),
            "<h2>Results</h2>",
            _table(list(_results(report))),
            *_plots(report),
            _reasons(report),
            "<h2>Settings</h2>",
            _table(list(report["run"].items())),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>cmgmux load</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _verdict(report: Mapping[str, Any]) -> str:
    if report["invalid"]:
        reasons = "; ".join(report["invalid"])
        text, is_bad = f"Invalid: these figures must not be used. {reasons}", True
    elif report["ok"]:
        text, is_bad = "Every client and every request got what it waited for.", False
    else:
        text, is_bad = "Not every client or request got what it waited for.", True
    return f'<p class="verdict{" bad" if is_bad else ""}">{escape(text)}</p>'


def _results(report: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "clients", report["clients"]
    for outcome in ("answered", "wrong", "failed", "stopped"):
        yield f"clients {outcome}", report[outcome]
    for kind, counts in report["kinds"].items():
        yield f"{kind}: clients, messages", f"{counts['clients']}, {counts['messages']}"
    yield "all connected after", seconds(report["connect_s"])
    yield "run", seconds(report["elapsed_s"])
    yield "notification latency", latency(report["notification_latency"])
    if requests := report["requests"]:
        for outcome in ("due", "sent", "answered", "failed"):
            yield f"requests {outcome}", requests[outcome]
        yield "request latency, from the time due", latency(requests["latency"])
        yield "generator lag", latency(requests["generator_lag"])
    for name, readings in report["memory"].items():
        if readings:
            highest = max(size for _, size in readings)
            yield f"memory of {name}, highest", f"{highest / (1 << 20):.1f} MiB"


def _reasons(report: Mapping[str, Any]) -> str:
    reasons = dict(report["reasons"])
    for reason, count in ((report["requests"] or {}).get("reasons") or {}).items():
        reasons[f"request: {reason}"] = count
    if not reasons:
        return ""
    return "<h2>Failures by reason</h2>" + _table(list(reasons.items()))


def _plots(report: Mapping[str, Any]) -> Iterator[str]:
    timeline = report["timeline"]
    measured = {"notifications": report["notification_latency"]}
    if report["requests"]:
        measured["requests"] = report["requests"]["latency"]
    by_share = [_by_share(name, histogram) for name, histogram in measured.items()]
    yield _plot("Latency by percentile", ("percent", "ms"), by_share, by_nines=True)
    for key, title in (
        ("request_latency", "Request latency"),
        ("notification_latency", "Notification latency"),
    ):
        lines = _over_time([(point["t_s"], point[key]) for point in timeline])
        if any(line.points for line in lines):
            yield _plot(f"{title} over time", ("s", "ms"), lines)
    held = Series("held streams", [(point["t_s"], point["held"]) for point in timeline])
    yield _plot("Held streams over time", ("s", "streams"), [held])
    step_s = report["timeline_step_s"]
    rates = [
        Series(key, [(point["t_s"], point[key] / step_s) for point in timeline])
        for key in ("requests", "messages", "failed")
    ]
    yield _plot("Events over time", ("s", "a second"), rates)
    memory = [
        Series(name, [(t_s, size / (1 << 20)) for t_s, size in readings])
        for name, readings in report["memory"].items()
    ]
    yield _plot("Private memory over time", ("s", "MiB"), memory)


def _by_share(name: str, histogram: Mapping[str, Any]) -> Series:
    latencies = Histogram.from_json(histogram)
    read = ((nines(share), latencies.percentile_ms(share)) for share in _SHARES)
    return Series(name, [(at, value) for at, value in read if value is not None])


def _over_time(points: Sequence[tuple[int, Mapping[str, Any]]]) -> list[Series]:
    lines: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": [], "max": []}
    for t_s, histogram in points:
        latencies = Histogram.from_json(histogram)
        p50, p99 = latencies.percentile_ms(50), latencies.percentile_ms(99)
        for name, value in (("p50", p50), ("p99", p99), ("max", latencies.max_ms)):
            if value is not None:
                lines[name].append((t_s, value))
    return [Series(name, line) for name, line in lines.items()]


def _plot(
    title: str, units: tuple[str, str], series: Sequence[Series], *, by_nines: bool = False
) -> str:
    ends = [at for each in series for at, _ in each.points]
    heights = [value for each in series for _, value in each.points]
    x = percentiles(units[0]) if by_nines else linear(units[0], ends)
    return plot(title, x, linear(units[1], heights), series)


def _table(rows: Rows) -> str:
    lines = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<table>{lines}</table>"


def seconds(value: float | None) -> str:
    """Write a time, or that there is none."""
    return "-" if value is None else f"{value:.2f} s"


def latency(histogram: Mapping[str, Any]) -> str:
    """Write the percentiles of a merged histogram in one line."""
    if not histogram["count"]:
        return "-"
    return ", ".join(f"{name} {value:g} ms" for name, value in histogram["percentiles_ms"].items())
