"""Hits as people read them, and as JSON lines."""

from __future__ import annotations

import os
import re
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

from ..shared import console
from ..shared.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

    from embedkit.data.records import Hit
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.options import SearchOptions

DOTS = 5  # of how strong a hit is
# Cosines of a good sentence encoder below the first mean nothing, above the second nearly the same.
WEAK_COSINE, STRONG_COSINE = 0.1, 0.7
STRONG_FUSED = 0.5  # a text as its own query reaches about .7
INDENT = 4
# Code, a table row, a quotation, a heading or an item of a list.
_LINE_OF_ITS_OWN = re.compile(r"(\s{4}|\t|\||>|#|\s*([-*+•]|\d+[.)])\s)")
_HEADING = re.compile(r"#{1,6} +(.*?)( +#+)?$")


def hit_row(hit: Hit, rank: int) -> dict[str, object]:
    return {
        "rank": rank,
        "id": hit.doc_id,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
        "passage": hit.passage,
        "start": hit.start,
        "stop": hit.stop,
        "source": hit.source,
        "metadata": dict(hit.metadata),
        "scores": dict(hit.scores),
    }


def wants_json_hits(as_json: bool) -> bool:
    """Hits are JSON lines where they are asked for; $EMBEDKIT_PIPE=json asks for them wherever no terminal reads them."""
    return as_json or (os.environ.get("EMBEDKIT_PIPE") == "json" and not sys.stdout.isatty())


def print_hits(query: str, hits: list[Hit], wanted: SearchOptions, *, as_json: bool) -> None:
    """Print the hits of a query, best first."""
    if wants_json_hits(as_json):
        for rank, hit in enumerate(hits, 1):
            console.print_json(hit_row(hit, rank))
        return
    from indexes import snippets

    shown = snippets(query, [hit.text for hit in hits])
    if (
        not sys.stdout.isatty()
    ):  # a pager or a file: no colours, no folding, and no rich, which takes long to load
        for rank, (hit, snippet) in enumerate(zip(hits, shown, strict=True), 1):
            console.say(_title_line(hit, rank, _strength(hit, hits[0], wanted)))
            console.say(_plain_body(_flowing(plain(snippet.text)), _cuts(hit, snippet.text)))
        return
    from rich.text import Text

    out = console.styled()
    for rank, (hit, snippet) in enumerate(zip(hits, shown, strict=True), 1):
        body = Text(_flowing(plain(snippet.text)))
        for start, stop in snippet.spans:
            body.stylize("bold yellow", start, stop)
        out.print(_head(hit, rank, _strength(hit, hits[0], wanted)))
        _print_body(out, body, cut=_cuts(hit, snippet.text))


def answer(opened: Search, query: str, wanted: SearchOptions, *, as_json: bool) -> list[Hit]:
    """Search, print the hits, and say why where there are none."""
    hits = opened.retriever.search([query], wanted)[0]
    print_hits(query, hits, wanted, as_json=as_json)
    if not hits:
        explain_nothing(wanted, len(opened.index))
    return hits


def print_whole(hit: Hit) -> None:
    """Print all of a hit's passage."""
    from rich.text import Text

    out = console.styled()
    out.print(_head(hit, 0, None))
    _print_body(out, Text(_flowing(plain(hit.text))), cut=(False, False))


def _head(hit: Hit, rank: int, strength: float | None) -> Text:
    from rich.text import Text

    place, title = _place(hit), plain(hit.title)
    head = Text(_score(hit, rank, strength), style="bold")
    head.append(title or place, style="bold cyan")
    if title and title != place:
        head.append(f"  {place}", style="dim")
    return head


def _title_line(hit: Hit, rank: int, strength: float) -> str:
    place, title = _place(hit), plain(hit.title)
    return _score(hit, rank, strength) + (f"{title}  {place}" if title and title != place else place)


def _place(hit: Hit) -> str:
    return plain(hit.doc_id) + (f" #{hit.passage}" if hit.passage else "")


def _score(hit: Hit, rank: int, strength: float | None) -> str:
    head = f"{rank:>2}  " if rank else ""
    if strength is None:
        return head
    full = round(strength * DOTS)
    return f"{head}{hit.score:.2f} {'●' * full}{'○' * (DOTS - full)}  "


def _strength(hit: Hit, best: Hit, wanted: SearchOptions) -> float:
    """Say how strong a hit is, from 0 to 1: what has a scale of its own on that, BM25 and ranks against the best hit."""
    if "rerank" in hit.scores:
        value = hit.score
    elif wanted.mode == "hybrid" and wanted.fusion == "scores":
        value = hit.score / STRONG_FUSED
    elif wanted.mode == "dense":
        value = (hit.score - WEAK_COSINE) / (STRONG_COSINE - WEAK_COSINE)
    else:
        value = hit.score / best.score if best.score > 0 else 0.0
    return min(1.0, max(0.0, value))


def _print_body(out: Console, body: Text, *, cut: tuple[bool, bool]) -> None:
    """Print a text line by line as it is; a line that is too long is folded, and prose that was cut has an ellipsis."""
    from rich.text import Text

    lines = [line for line in body.split("\n", allow_blank=True) if line.plain.strip()]
    if not lines:
        return
    if cut[0]:
        lines[0] = Text("… ") + lines[0]
    if cut[1]:
        lines[-1] = lines[-1] + Text(" …")
    for line in _folded(lines, max(20, out.width - INDENT)):
        out.print(Text(" " * INDENT).append_text(line))


def _flowing(text: str) -> str:
    """Put a space for each line end within a paragraph; code, tables, lists and headings keep their lines."""
    lines = text.split("\n")
    kept, fenced = lines[0], lines[0].startswith("```")
    for before, line in pairwise(lines):
        own = fenced or line.startswith("```") or _LINE_OF_ITS_OWN.match(line) or not line.strip()
        after = _HEADING.match(before) or before.startswith(("```", "|")) or not before.strip()
        kept += ("\n" if own or after else " ") + line
        fenced ^= line.startswith("```")
    return kept


def _folded(lines: list[Text], width: int) -> Iterator[Text]:
    from rich.console import Console

    for line in lines:
        heading = _HEADING.match(line.plain)
        if heading:
            start = heading.start(1)
            line = line[start : heading.end(1)]
            line.stylize("bold")
        yield from line.wrap(Console(width=width), width) if len(line) > width else [line]


def _cuts(hit: Hit, shown: str) -> tuple[bool, bool]:
    """Say whether the passage goes on before and after what is shown of it."""
    return not hit.text.lstrip().startswith(shown[:40]), not hit.text.rstrip().endswith(shown[-40:])


def _plain_body(text: str, cut: tuple[bool, bool]) -> str:
    text = ("… " if cut[0] else "") + text.strip("\n") + (" …" if cut[1] else "")
    return "\n".join(" " * INDENT + line for line in text.split("\n") if line.strip())


def explain_nothing(wanted: SearchOptions, size: int) -> None:
    if not size:
        console.note("no hits: the index is empty")
    elif wanted.where is not None:
        console.note("no hits: the filter lets none of the matching documents pass")
    elif wanted.min_score is not None:
        console.note(f"no hits: none scores {wanted.min_score} or more")
    elif wanted.mode == "dense":
        console.note("no hits: the query has no tokens for this model")
    else:
        console.note("no hits: no document has a word of the query")
