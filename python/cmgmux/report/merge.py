"""The reports of several swarm processes as one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from cmgmux.report.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Report = dict[str, Any]

_SUMS: Final = ("clients", "answered", "wrong", "failed", "stopped", "messages", "empty_polls")
_REQUEST_SUMS: Final = ("rate_per_s", "due", "sent", "answered", "failed")
_POINT_SUMS: Final = ("held", "messages", "requests", "failed")
_POINT_HISTOGRAMS: Final = ("request_latency", "notification_latency")


def merge(reports: Sequence[Mapping[str, Any]]) -> Report:
    """Add up what swarm processes report; times count from the start of the first of them.

    Histograms gain ``count`` and ``percentiles_ms``. What makes one process's figures invalid
    makes all of them so.
    """
    start = min(report["start_unix_s"] for report in reports)
    late = [report["start_unix_s"] - start for report in reports]
    connects = [
        report["connect_s"] + delay
        for report, delay in zip(reports, late, strict=True)
        if report["connect_s"] is not None
    ]
    return {
        **{key: sum(report[key] for report in reports) for key in _SUMS},
        "reasons": _counted(report["reasons"] for report in reports),
        "kinds": _kinds(report["kinds"] for report in reports),
        "connect_s": max(connects, default=None),
        "elapsed_s": max(
            report["elapsed_s"] + delay for report, delay in zip(reports, late, strict=True)
        ),
        "start_unix_s": start,
        "notification_latency": _added(report["notification_latency"] for report in reports),
        "requests": _requests([report["requests"] for report in reports if report["requests"]]),
        "timeline_step_s": max(report["timeline_step_s"] for report in reports),
        "timeline": _timeline(reports, late),
        "invalid": [
            why if len(reports) == 1 else f"process {number}: {why}"
            for number, report in enumerate(reports)
            for why in report["invalid"]
        ],
    }


def _added(histograms: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total = Histogram()
    for histogram in histograms:
        total.add(Histogram.from_json(histogram))
    return total.to_json()


def _counted(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _kinds(kinds: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    total: dict[str, Counter[str]] = {}
    for each in kinds:
        for kind, counts in each.items():
            total.setdefault(kind, Counter()).update(counts)
    return {kind: dict(counts) for kind, counts in sorted(total.items())}


def _requests(requests: Sequence[Mapping[str, Any]]) -> Report | None:
    if not requests:
        return None
    return {
        **{key: sum(each[key] for each in requests) for key in _REQUEST_SUMS},
        "reasons": _counted(each["reasons"] for each in requests),
        "latency": _added(each["latency"] for each in requests),
        "generator_lag": _added(each["generator_lag"] for each in requests),
    }


def _timeline(reports: Sequence[Mapping[str, Any]], late: Sequence[float]) -> list[Report]:
    """Add the points of each step; a process that has ended holds nothing any more."""
    step_s = max(report["timeline_step_s"] for report in reports)
    steps: dict[int, list[Mapping[str, Any]]] = {}
    for report, delay in zip(reports, late, strict=True):
        within: dict[int, list[Mapping[str, Any]]] = {}
        for point in report["timeline"]:
            number = -(-(point["t_s"] + round(delay)) // step_s)
            within.setdefault(number, []).append(point)
        for number, points in within.items():
            # Of a finer process several points make one step; what it held at its end counts.
            only_last = [{**point, "held": 0} for point in points[:-1]]
            steps.setdefault(number, []).extend([*only_last, points[-1]])
    return [
        {
            "t_s": number * step_s,
            **{key: sum(point[key] for point in points) for key in _POINT_SUMS},
            **{key: _added(point[key] for point in points) for key in _POINT_HISTOGRAMS},
        }
        for number, points in sorted(steps.items())
    ]
