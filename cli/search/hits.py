"""Hits as people read them, and as JSON lines."""

from __future__ import annotations

import math
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..shared import console
from ..shared.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.text import Text

    from embedkit.data.records import Hit
    from embedkit.pipelines.judging import JudgedHit
    from embedkit.retrieval.options import SearchOptions

    from .sources import Searched

DOTS = 5  # of how strong a hit is
INDENT = 4
# Code, a table row, a quotation, a heading or an item of a list.
_LINE_OF_ITS_OWN = re.compile(r"(\s{4}|\t|\||>|#|\s*([-*+•]|\d+[.)])\s)")
_HEADING = re.compile(r"#{1,6} +(.*?)( +#+)?$")
_FENCE = re.compile(r"(… )?\s*(```|~~~)")


def hit_row(hit: Hit, rank: int, coverage: str | None = None) -> dict[str, object]:
    """Return a hit as JSON has it; `coverage` says how many shards of an index the answer is of."""
    return {
        "rank": rank,
        **({"index": name} if (name := _index_of(hit)) else {}),
        **hit.as_dict(),
        **({} if coverage is None else {"coverage": coverage}),
    }


def _index_of(hit: Hit) -> str:
    """Return the index that a hit is of where several of a server were searched, else ""."""
    return str(getattr(hit, "index", ""))


def wants_json_hits(as_json: bool) -> bool:
    """Hits are JSON lines where they are asked for; $EMBEDKIT_PIPE=json asks for them wherever no terminal reads them."""
    return as_json or (os.environ.get("EMBEDKIT_PIPE") == "json" and not sys.stdout.isatty())


def print_hits(query: str, hits: Sequence[JudgedHit]) -> None:
    """Print the hits of a query as people read them, best first."""
    from indexes import snippets

    shown = snippets(query, [judged.hit.text for judged in hits])
    if (
        not sys.stdout.isatty()
    ):  # a pager or a file: no colours, no folding, and no rich, which takes long to load
        for rank, (judged, snippet) in enumerate(zip(hits, shown, strict=True), 1):
            hit = judged.hit
            console.say(_title_line(hit, rank, judged.strength))
            console.say(_plain_body(_flowing(plain(snippet.text)), _cuts(hit, snippet.text)))
        return
    from rich.text import Text

    out = console.styled()
    for rank, (judged, snippet) in enumerate(zip(hits, shown, strict=True), 1):
        hit = judged.hit
        body = Text(_flowing(plain(snippet.text)))
        for start, stop in snippet.spans:
            body.stylize("bold yellow", start, stop)
        out.print(_head(hit, rank, judged.strength))
        _print_body(out, body, cut=_cuts(hit, snippet.text), markdown=_is_markdown(hit))


def answer(
    searched: Searched,
    query: str,
    wanted: SearchOptions,
    *,
    show_all: bool,
    as_json: bool,
    how: str = "--all",
) -> list[Hit]:
    """Search and print the hits, for people without the weak ones; say what was left out, and why where there is nothing.

    Returns the hits that were printed; `how` is what shows the others.
    """
    if not query.strip():
        console.note("no hits: the query is empty")
        return []
    hits = searched.search([query], wanted)[0]
    if not hits:
        explain_nothing(wanted, searched.count())
    if wants_json_hits(as_json):
        coverage = searched.coverage()
        for rank, hit in enumerate(hits, 1):
            console.print_json(hit_row(hit, rank, coverage))
        return hits
    judged = searched.judge(query, hits, wanted)
    shown = [each for each in judged if show_all or not each.weak]
    print_hits(query, shown)
    searched.coverage()
    if len(shown) < len(judged):
        say_left_out(len(shown), len(judged), how)
    return [each.hit for each in shown]


def say_left_out(shown: int, found: int, how: str) -> None:
    """Say how many of the hits that were found are not shown, being weak, and what shows them."""
    if not shown:
        nearest = "the nearest" if found == 1 else f"the {found} nearest"
        console.note(f"nothing here seems to answer this query; {how} shows {nearest}")
    else:
        left = found - shown
        hits, them = ("hit", "it") if left == 1 else ("hits", "them")
        console.note(
            f"{left} {hits} left out: no nearer to the query than unrelated texts; {how} shows {them}"
        )


def print_whole(hit: Hit) -> None:
    """Print all of a hit's passage."""
    from rich.text import Text

    out = console.styled()
    out.print(_head(hit, 0, None))
    _print_body(out, Text(_flowing(plain(hit.text))), cut=(False, False), markdown=_is_markdown(hit))


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
    index = _index_of(hit)
    return f"{plain(index)}: {_place_within(hit)}" if index else _place_within(hit)


def _place_within(hit: Hit) -> str:
    if hit.place is None:
        return plain(hit.doc_id) + (f" #{hit.passage}" if hit.passage else "")
    where = hit.where
    if hit.source and where.startswith(
        hit.source
    ):  # a document with an id of its own, in a file that holds many
        return plain(f"{hit.doc_id}  {_near(hit.source)}{where.removeprefix(hit.source)}")
    return plain(where)


def _near(path: str) -> str:
    """Return a path as seen from this folder, where it lies below."""
    return path.removeprefix(f"{Path.cwd().as_posix()}/")


def _score(hit: Hit, rank: int, strength: float | None) -> str:
    head = f"{rank:>2}  " if rank else ""
    if strength is None:
        return head
    full = math.ceil(strength * DOTS)
    return f"{head}{hit.score:.2f} {'●' * full}{'○' * (DOTS - full)}  "


def _print_body(out: Console, body: Text, *, cut: tuple[bool, bool], markdown: bool) -> None:
    """Print a text line by line as it is; a line that is too long is folded, and prose that was cut has an ellipsis."""
    from rich.text import Text

    lines = [line for line in body.split("\n", allow_blank=True) if line.plain.strip()]
    if not lines:
        return
    if cut[0]:
        lines[0] = Text("… ") + lines[0]
    if cut[1]:
        lines[-1] = lines[-1] + Text(" …")
    for line in _folded(lines, max(20, out.width - INDENT), markdown=markdown):
        out.print(Text(" " * INDENT).append_text(line))


def _flowing(text: str) -> str:
    """Put a space for each line end within a paragraph; code, tables, lists and headings keep their lines."""
    lines = text.split("\n")
    kept, fenced = lines[0], _FENCE.match(lines[0]) is not None
    for before, line in pairwise(lines):
        own = fenced or _FENCE.match(line) or _LINE_OF_ITS_OWN.match(line) or not line.strip()
        after = _HEADING.match(before) or _FENCE.match(before) or before.startswith("|") or not before.strip()
        kept += ("\n" if own or after else " ") + line
        fenced ^= _FENCE.match(line) is not None
    return kept


def _is_markdown(hit: Hit) -> bool:
    """Say whether `#` begins a heading in a hit's text: elsewhere it may begin a comment of code."""
    from embedkit.data.formats import plain_suffix

    return plain_suffix(hit.source) in (".md", ".markdown")


def _folded(lines: list[Text], width: int, *, markdown: bool) -> Iterator[Text]:
    from rich.console import Console

    fenced = False
    for line in lines:
        fenced ^= _FENCE.match(line.plain) is not None
        heading = _HEADING.match(line.plain) if markdown and not fenced else None
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
