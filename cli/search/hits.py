"""Hits as people read them, and as JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared import console

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.retrieval.options import SearchOptions


def hit_row(hit: Hit, rank: int) -> dict[str, object]:
    return {
        "rank": rank,
        "id": hit.doc_id,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
        "passage": hit.passage,
        "metadata": dict(hit.metadata),
        "scores": dict(hit.scores),
    }


def print_hits(query: str, hits: list[Hit], *, as_json: bool) -> None:
    if console.wants_json(as_json):
        for rank, hit in enumerate(hits, 1):
            console.print_json(hit_row(hit, rank))
        return
    from rich.console import Console
    from rich.text import Text

    from indexes import snippets

    out = Console(highlight=False)
    for rank, (hit, snippet) in enumerate(
        zip(hits, snippets(query, [hit.text for hit in hits]), strict=True), 1
    ):
        place = hit.doc_id + (f" #{hit.passage}" if hit.passage else "")
        head = Text(f"{rank:>2}  {hit.score:.4f}  ", style="bold")
        head.append(hit.title or place, style="bold cyan")
        if hit.title and hit.title != place:
            head.append(f"  {place}", style="dim")
        body = Text(snippet.text.replace("\n", " "))
        for start, stop in snippet.spans:
            body.stylize("bold yellow", start, stop)
        out.print(head)
        for line in body.wrap(out, max(20, out.width - 4)):
            out.print(Text("    ").append_text(line))


def explain_nothing(wanted: SearchOptions, size: int) -> None:
    if not size:
        console.note("no hits: the index is empty")
    elif wanted.where is not None:
        console.note("no hits: the filter lets none of the matching documents pass")
    elif wanted.min_score is not None:
        console.note(f"no hits: none scores {wanted.min_score} or more")
    else:
        console.note("no hits: no document has a word of the query")
