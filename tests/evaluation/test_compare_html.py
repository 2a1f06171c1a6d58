from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from embedkit.evaluation.compare import Comparison, QueryChange, add_texts, compare_runs, compare_values
from embedkit.evaluation.compare_html import render_html
from embedkit.evaluation.metrics import Metric

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


class _Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    VOID = ("meta",)

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def _compare(name: str = "B") -> Comparison:
    qrels = {"q1": {"d1": 1}, name: {"d2": 1}, "q3": {"d2": 1}}
    a = {"q1": {"d1": 2.0, "d2": 1.0}, name: {"d1": 2.0, "d2": 1.0}, "q3": {"d2": 1.0}}
    b = {"q1": {"d2": 2.0, "d1": 1.0}, name: {"d2": 2.0, "d1": 1.0}, "q3": {"d2": 1.0}}
    return compare_runs(qrels, a, b, Metric("mrr", 10), names=("A", name))


def test_the_page_shows_the_figures_and_the_queries() -> None:
    page = _Page(render_html(_compare()))
    for shown in (
        "0.8333",
        "+0.0000",
        "all 4 sign patterns",
        "1 / 1 / 1",
        "d1 · 2.0000 · level 1",
        "not judged",
    ):
        assert shown in page.text, shown
    assert page.tags.count("svg") == 3
    assert page.tags.count("ol") == 4


def test_nothing_that_comes_from_outside_becomes_markup() -> None:
    hostile = add_texts(
        _compare(HOSTILE), queries={HOSTILE: HOSTILE, "q1": HOSTILE}, documents={"d1": HOSTILE, "d2": HOSTILE}
    )
    plain, page = _Page(render_html(_compare())), _Page(render_html(hostile))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert sorted(set(page.tags)) == sorted(set(plain.tags))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 8
    assert any(HOSTILE in (value or "") for _, value in page.attributes)  # as a label, and as nothing more


def test_the_page_needs_nothing_else() -> None:
    page = render_html(_compare())
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.5, 0.5), (0.0, 1.0)])
def test_extreme_comparisons_can_be_drawn(a: float, b: float) -> None:
    page = _Page(render_html(compare_values({"q": a}, {"q": b}, metric="map")))
    assert ("None." in page.text) is (a == b or b > a)
    assert "nan" not in " ".join(value or "" for _, value in page.attributes)


def test_ten_thousand_queries_stay_a_small_page() -> None:
    """Their p-value, which takes seconds, is that of others."""
    changes = [QueryChange(f"q{n}", (n % 101) / 100, (n % 97) / 96) for n in range(10_000)]
    comparison = replace(_compare(), changes=tuple(sorted(changes, key=lambda change: change.difference)))
    assert (comparison.wins, comparison.losses) > (4_000, 4_000)
    assert 1_000_000 < len(render_html(comparison)) < 2_500_000


def test_long_texts_are_cut() -> None:
    page = render_html(add_texts(_compare(), queries={}, documents={"d1": "x" * 5_000}))
    assert "x" * 300 + "…" in page
    assert "x" * 301 not in page
