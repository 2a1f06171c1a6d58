"""An explanation as one HTML page that needs nothing else: no scripts, no fonts, no network.

The page is built as a tree and serialised once, so every text and attribute is escaped and none can become markup.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from embedkit.explaining.explain import ExplainedText, Explanation
from embedkit.explaining.heat_map import data_uri, png_of
from embedkit.explaining.views import stretches

# A table of cosines with more columns is an image: a page must stay small enough to open.
MOST_COLUMNS = 80
# Constant: nothing from outside ever gets into the style sheet.
STYLE = """
:root { color-scheme: light; --line: #ccc; }
body { font: 15px/1.6 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; background: #fff; color: #111; }
h2 { margin-top: 2em; } .quiet { color: #666; font-size: 13px; } .wide { overflow-x: auto; }
.text { border: 1px solid var(--line); border-radius: 6px; padding: .6em .8em; margin: .4em 0 1em; white-space: pre-wrap; }
table { border-collapse: collapse; } th { font-weight: 500; font-size: 12px; text-align: right; padding: 1px 5px; }
table.cosines th.top { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
table.cosines td { width: 16px; min-width: 16px; height: 16px; border: 1px solid #fff; }
table.maps td { padding: 3px; } table.maps img { width: 72px; height: 72px; image-rendering: pixelated; border: 1px solid var(--line); }
table.maps img:hover { transform: scale(4); transform-origin: center; position: relative; z-index: 2; }
img.cosines { width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line); }
"""


def render_html(explanation: Explanation) -> str:
    """Render the score, the words by what they do to it, the cosines of tokens, and all attention maps."""
    page = Element("html", lang="en")
    head = SubElement(page, "head")
    SubElement(head, "meta", charset="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _add(head, "title", f"Score {explanation.score:.4f}: {explanation.query.text[:80]}")
    _add(head, "style", STYLE)
    body = SubElement(page, "body")
    _add(body, "h1", f"Score {explanation.score:.4f}")
    _add(body, "p", "The cosine of the two vectors.", "quiet")
    _add(body, "h2", "Words that make the score")
    _add(
        body,
        "p",
        "Green: without it the score falls. Red: without it the score rises. The strongest of each text has full colour.",
        "quiet",
    )
    for name, text in (("Query", explanation.query), ("Document", explanation.document)):
        _add(body, "b", name)
        _add_words(body, text)
    _add(body, "h2", "Cosines of tokens")
    _add_cosines(body, explanation)
    for name, text in (("query", explanation.query), ("document", explanation.document)):
        _add(body, "h2", f"Attention within the {name}")
        _add_attention(body, text)
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _add(parent: Element, tag: str, text: str = "", class_: str = "") -> Element:
    element = SubElement(parent, tag, {"class": class_} if class_ else {})
    element.text = text
    return element


def _add_words(body: Element, text: ExplainedText) -> None:
    box = _add(body, "div", class_="text")
    for stretch in stretches(text):
        piece = _add(box, "span", stretch.text)
        if stretch.effect is not None:
            piece.set("style", f"background: {_green_or_red(stretch.weight)}")
            piece.set("title", f"{stretch.effect:+.4f}")
    if text.truncated:
        _add(body, "p", "The model reads the beginning of this text only; the rest has no effect.", "quiet")


def _green_or_red(weight: float) -> str:
    strength = min(abs(weight), 1.0)
    return f"rgba(26, 160, 75, {strength:.2f})" if weight >= 0 else f"rgba(215, 60, 50, {strength:.2f})"


def _add_cosines(body: Element, explanation: Explanation) -> None:
    query, document, cosines = explanation.query, explanation.document, explanation.similarities
    _add(
        body, "p", "A row a token of the query, a column a token of the document; darker is nearer.", "quiet"
    )
    box = _add(body, "div", class_="wide")
    if cosines.shape[1] > MOST_COLUMNS:
        image = {
            "src": data_uri(png_of(cosines, highest=1.0)),
            "class": "cosines",
            "alt": "cosines of tokens",
        }
        SubElement(box, "img", image)
        _add_matches(body, explanation)
        return
    table = _add(box, "table", class_="cosines")
    header = SubElement(table, "tr")
    _add(header, "th")
    for token in document.tokens:
        _add(header, "th", token, "top")
    for token, row in zip(query.tokens, cosines.tolist(), strict=True):
        line = SubElement(table, "tr")
        _add(line, "th", token)
        for other, value in zip(document.tokens, row, strict=True):
            cell = {
                "style": f"background: rgba(40, 80, 180, {max(value, 0.0):.2f})",
                "title": f"{token} · {other}: {value:.3f}",
            }
            SubElement(line, "td", cell)
    _add_matches(body, explanation)


def _add_matches(body: Element, explanation: Explanation) -> None:
    _add(body, "p", "The nearest token of the document to each token of the query:", "quiet")
    table = SubElement(body, "table")
    for row, column, value in explanation.best_matches():
        line = SubElement(table, "tr")
        cells = (explanation.query.tokens[row], explanation.document.tokens[column], f"{value:.3f}")
        for cell in cells:
            _add(line, "th", cell)


def _add_attention(body: Element, text: ExplainedText) -> None:
    """Add a row of maps a layer, a map a head; hovering enlarges one and says where most of it goes."""
    layers, heads, size, _ = text.attention.shape
    _add(
        body,
        "p",
        f"{layers} layers down, {heads} heads across; in each map {size} tokens look (rows) at {size} tokens (columns). "
        "Every map has its own scale.",
        "quiet",
    )
    table = _add(body, "table", class_="maps")
    header = SubElement(table, "tr")
    _add(header, "th")
    for head in range(heads):
        _add(header, "th", f"{head + 1}")
    for layer in range(layers):
        line = SubElement(table, "tr")
        _add(line, "th", f"{layer + 1}")
        for head in range(heads):
            matrix = text.attention[layer, head]
            received = matrix.mean(axis=0)
            most = int(np.argmax(received))
            title = f"layer {layer + 1}, head {head + 1}: {received[most]:.0%} to {text.tokens[most]}"
            source = data_uri(png_of(matrix, highest=float(matrix.max())))
            SubElement(SubElement(line, "td"), "img", {"src": source, "title": title, "alt": title})
