"""A comparison as one HTML page that needs nothing else: no scripts, no fonts, no network.

The page is built as a tree and serialised once, so every text and attribute is escaped and none can become markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from embedkit.evaluation.compare import Comparison, QueryChange, TopHit

WIDTH, HEIGHT, MARGIN = 640, 240, 46
SNIPPET = 300  # characters of a text that are shown
# Constant: nothing from outside ever gets into the style sheet.
STYLE = """
:root { color-scheme: light dark; --better: #1a7f4b; --worse: #c2413a; --line: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; margin: .6em 0 1.6em; }
th, td { text-align: left; vertical-align: top; padding: .3em .6em; border-bottom: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.better { color: var(--better); fill: var(--better); } .worse { color: var(--worse); fill: var(--worse); }
.relevant { font-weight: 600; } .quiet { opacity: .65; } ol { margin: 0; padding-left: 1.3em; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
.axis { stroke: var(--line); fill: none; } .dot { fill: #4c6fbf; fill-opacity: .6; }
.range { stroke: #4c6fbf; stroke-width: 5; } h2 { margin-top: 1.8em; }
"""


def render_html(comparison: Comparison, *, examples: int = 10) -> str:
    """Render the figures, three plots and the `examples` queries that got worse and better most."""
    title = f"{comparison.name_b} against {comparison.name_a}: {comparison.metric}"
    page = Element("html", lang="en")
    head = SubElement(page, "head")
    SubElement(head, "meta", charset="utf-8")
    policy = {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    }
    SubElement(head, "meta", policy)
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _add(head, "title", title)
    _add(head, "style", STYLE)
    body = SubElement(page, "body")
    _add(body, "h1", title)
    _add_figures(body, comparison)
    _add(body, "h2", "Mean difference and its interval")
    _add_interval(body, comparison)
    _add(body, "h2", "Difference of each query, sorted")
    _add_bars(body, [change.difference for change in comparison.changes])
    _add(body, "h2", "Each query under both")
    _add_scatter(body, comparison)
    for heading, changes in (
        ("Queries that got worse", comparison.worse(examples)),
        ("Queries that got better", comparison.better(examples)),
    ):
        _add(body, "h2", heading)
        _add_queries(body, comparison, changes)
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _add(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    """Append an element; `class_` is the attribute class."""
    element = SubElement(parent, tag, {name.rstrip("_"): value for name, value in attributes.items()})
    element.text = text
    return element


def _add_figures(body: Element, comparison: Comparison) -> None:
    test, interval = comparison.test, comparison.interval
    how = f"all {test.rounds:,} sign patterns" if test.exact else f"{test.rounds:,} random sign patterns"
    table = SubElement(body, "table")
    for name, figure in (
        (f"{comparison.name_a}, mean {comparison.metric}", f"{comparison.mean_a:.4f}"),
        (f"{comparison.name_b}, mean {comparison.metric}", f"{comparison.mean_b:.4f}"),
        ("Difference", f"{comparison.difference:+.4f}"),
        (f"{interval.confidence:.0%} interval (bootstrap)", f"{interval.low:+.4f} to {interval.high:+.4f}"),
        ("p-value, two-sided", f"{test.p_value:.4g} (paired randomisation test, {how})"),
        ("Queries", f"{len(comparison.changes):,}"),
        ("Better / same / worse", f"{comparison.wins:,} / {comparison.ties:,} / {comparison.losses:,}"),
    ):
        row = SubElement(table, "tr")
        _add(row, "th", name)
        _add(row, "td", figure, class_="number")


def _svg(body: Element, height: int, label: str) -> Element:
    return SubElement(body, "svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": label})


def _add_text(svg: Element, x: float, y: float, text: str, anchor: str = "middle") -> None:
    SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text


def _add_line(svg: Element, x1: float, y1: float, x2: float, y2: float, class_: str = "axis") -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}", "class": class_}
    SubElement(svg, "line", ends)


def _add_interval(body: Element, comparison: Comparison) -> None:
    interval = comparison.interval
    reach = max(abs(interval.low), abs(interval.high), abs(comparison.difference), 1e-9) * 1.15
    svg = _svg(
        body, 70, f"from {interval.low:+.4f} to {interval.high:+.4f}, mean {comparison.difference:+.4f}"
    )

    def place(value: float) -> float:
        return WIDTH / 2 + value / reach * (WIDTH / 2 - MARGIN)

    _add_line(svg, MARGIN, 34, WIDTH - MARGIN, 34)
    _add_line(svg, place(0), 20, place(0), 48)
    _add_line(svg, place(interval.low), 34, place(interval.high), 34, "range")
    mean = {"cx": f"{place(comparison.difference):.1f}", "cy": "34", "r": "6", "class": "dot"}
    SubElement(svg, "circle", mean)
    _add_text(svg, place(0), 62, "0")
    _add_text(svg, MARGIN, 62, f"{-reach:+.4f}", "start")
    _add_text(svg, WIDTH - MARGIN, 62, f"{reach:+.4f}", "end")
    _add_text(svg, place(comparison.difference), 14, f"{comparison.difference:+.4f}")


def _add_bars(body: Element, differences: Sequence[float]) -> None:
    """Draw one bar a query, all of one colour as a single path: thousands of queries stay a small page."""
    reach = max(max(map(abs, differences)), 1e-9)
    svg = _svg(
        body, HEIGHT, f"{len(differences)} differences from {differences[0]:+.4f} to {differences[-1]:+.4f}"
    )
    middle, inner = HEIGHT / 2, WIDTH - 2 * MARGIN
    step = inner / len(differences)
    for class_, sign in (("worse", -1), ("better", 1)):
        path = "".join(
            f"M{MARGIN + row * step:.2f} {middle:.0f}h{step * 0.9:.2f}v{-value / reach * (middle - 12):.2f}h{-step * 0.9:.2f}z"
            for row, value in enumerate(differences)
            if value * sign > 0
        )
        SubElement(svg, "path", {"d": path, "class": class_})
    _add_line(svg, MARGIN, middle, WIDTH - MARGIN, middle)
    for value in (-reach, 0.0, reach):
        _add_text(svg, MARGIN - 6, middle - value / reach * (middle - 12) + 4, f"{value:+.2f}", "end")


def _add_scatter(body: Element, comparison: Comparison) -> None:
    """Draw A across and B up; queries that fall together (to 2 digits) are one larger dot."""
    side = WIDTH - 2 * MARGIN
    highest = max(max(change.a, change.b) for change in comparison.changes) or 1.0
    svg = _svg(body, WIDTH, f"{comparison.name_b} up, {comparison.name_a} across")
    _add_line(svg, MARGIN, WIDTH - MARGIN, WIDTH - MARGIN, WIDTH - MARGIN)
    _add_line(svg, MARGIN, MARGIN, MARGIN, WIDTH - MARGIN)
    _add_line(svg, MARGIN, WIDTH - MARGIN, WIDTH - MARGIN, MARGIN)
    for (a, b), count in Counter((round(each.a, 2), round(each.b, 2)) for each in comparison.changes).items():
        place = {
            "cx": f"{MARGIN + a / highest * side:.1f}",
            "cy": f"{WIDTH - MARGIN - b / highest * side:.1f}",
            "r": f"{min(14.0, 2.5 + count**0.5):.1f}",
            "class": "dot",
        }
        dot = SubElement(svg, "circle", place)
        _add(dot, "title", f"{count} × {a:.2f} → {b:.2f}")
    _add_text(svg, WIDTH / 2, WIDTH - 14, f"{comparison.name_a} (0 to {highest:.2f})")
    _add_text(svg, MARGIN, MARGIN - 14, f"{comparison.name_b} (0 to {highest:.2f})", "start")


def _add_queries(body: Element, comparison: Comparison, changes: Sequence[QueryChange]) -> None:
    if not changes:
        _add(body, "p", "None.", class_="quiet")
        return
    table = SubElement(body, "table")
    header = SubElement(table, "tr")
    for name in ("Query", comparison.name_a, comparison.name_b, "Difference"):
        _add(header, "th", name)
    for change in changes:
        row = SubElement(table, "tr")
        cell = _add(row, "td", _snippet(change.text))
        _add(cell, "div", change.query_id, class_="quiet")
        for value, hits in ((change.a, change.hits_a), (change.b, change.hits_b)):
            cell = _add(row, "td", f"{value:.4f}")
            _add_hits(cell, hits)
        class_ = "number better" if change.difference > 0 else "number worse"
        _add(row, "td", f"{change.difference:+.4f}", class_=class_)


def _add_hits(cell: Element, hits: Sequence[TopHit]) -> None:
    if not hits:
        return
    entries = SubElement(cell, "ol")
    for hit in hits:
        relevant = hit.level is not None and hit.level > 0
        entry = _add(entries, "li", _snippet(hit.text or hit.doc_id), class_="relevant" if relevant else "")
        level = "not judged" if hit.level is None else f"level {hit.level}"
        _add(entry, "div", f"{hit.doc_id} · {hit.score:.4f} · {level}", class_="quiet")


def _snippet(text: str) -> str:
    return text if len(text) <= SNIPPET else text[:SNIPPET].rstrip() + "…"
