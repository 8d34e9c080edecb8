"""Bars on the page of HTML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from bench.bars import Bar, Chart, page
from bench.report import Spread


def drawn(*bars: Bar) -> ElementTree.Element:
    """The chart of these bars, as the page has it."""
    (svg,) = re.findall(r"<svg.*</svg>", page("title", [], [Chart("chart", bars)], []))
    return ElementTree.fromstring(svg)  # noqa: S314 - we made it ourselves


def texts(svg: ElementTree.Element) -> list[str]:
    """What is written beside the bars."""
    return [text.text or "" for text in svg.iter("text")]


def test_the_longest_spread_fills_the_width_and_the_others_are_its_share() -> None:
    svg = drawn(Bar("a", Spread(2.0, 1.0, 4.0), "2"), Bar("b", Spread(1.0, 1.0, 1.0), "1"))
    assert [rect.get("width") for rect in svg.iter("rect")] == ["190.0", "95.0"]


def test_a_bar_without_figures_is_its_text_alone_and_sets_no_scale() -> None:
    svg = drawn(Bar("a", None, "go not found"), Bar("b", Spread(1.0, 1.0, 1.0), "1"))
    assert texts(svg) == ["a", "go not found", "b", "1"]
    assert [rect.get("width") for rect in svg.iter("rect")] == ["380.0"]


def test_a_chart_of_nothing_but_zeros_has_bars_without_length() -> None:
    svg = drawn(Bar("a", Spread(0, 0, 0), "0"))
    assert [rect.get("width") for rect in svg.iter("rect")] == ["0.0"]


def test_a_reason_that_looks_like_markup_is_text() -> None:
    assert texts(drawn(Bar("a", None, "<nil> & gone"))) == ["a", "<nil> & gone"]
