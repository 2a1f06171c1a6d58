"""`embedkit explain` with a multi-vector model: which of the document's tokens each of the query is nearest to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.types import Computing, Device

from .shared import console, models
from .shared.plain import plain

if TYPE_CHECKING:
    from embedkit.explaining.tokens import ReadText, TokenExplanation

AROUND = 24  # characters of a text that are shown on each side of a token


def explain_by_tokens(folder: str | Path, query: str, text: str, *, device: Device, as_json: bool) -> None:
    """Print the score of a document for a query as a sum over the query's tokens."""
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.explaining.tokens import explain_tokens

    encoder = MultiVectorEncoder.load(
        folder, computing=Computing(device=device, precision="fp32"), interactive=True
    )
    models.say_names(encoder.name)
    found = explain_tokens(encoder, query, text)
    if console.wants_json(as_json):
        console.print_json(found.as_dict())
    else:
        show(found)


def show(found: TokenExplanation) -> None:
    """Print a table of the query's tokens, and what those add that are not in its text."""
    count = console.counted(len(found.cosines), "token")
    console.say(f"score {found.score:.4f}, the sum over the query's {count}\n")
    rows = [
        (
            plain(found.query.tokens[number]),
            plain(found.document.tokens[found.nearest[number]]),
            _around(found.document, found.nearest[number]),
            f"{found.cosines[number]:.3f}",
        )
        for number in found.of_text
    ]
    console.print_table(("query token", "nearest in the document", "where", "adds"), rows)
    if others := len(found.cosines) - len(rows):
        what = console.counted(others, "token")
        console.say(
            f"\n{what} that the text does not hold (special ones, and those that fill the query up) "
            f"{'add' if others > 1 else 'adds'} {found.others:.3f}"
        )
    for name, read in (("query", found.query), ("document", found.document)):
        if read.truncated:
            console.say(f"the model reads the beginning of the {name} only")


def _around(read: ReadText, number: int) -> str:
    """Return a token with what stands around it in the text."""
    place = read.places[number]
    if place is None:
        return ""
    start, stop = max(0, place[0] - AROUND), min(len(read.text), place[1] + AROUND)
    shown = " ".join(plain(read.text[start:stop]).split())
    return f"{'…' if start else ''}{shown}{'…' if stop < len(read.text) else ''}"
