"""`embedkit explain` with a learned sparse model: which terms make the score, and what the texts were expanded by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.types import Computing, Device

from .shared import console, models

if TYPE_CHECKING:
    from collections.abc import Set

SHOWN_SHARED, SHOWN_TERMS = 15, 12


def explain_by_terms(folder: str | Path, query: str, text: str, *, device: Device, as_json: bool) -> None:
    """Print the score of a document for a query as a sum over terms."""
    from embedkit.encoding.sparse import SparseEncoder
    from embedkit.explaining.terms import explain_terms

    encoder = SparseEncoder.load(
        folder, computing=Computing(device=device, precision="fp32"), interactive=True
    )
    models.say_names(encoder.name)
    found = explain_terms(encoder, query, text)
    if console.wants_json(as_json):
        console.print_json(found.as_dict())
        return
    console.say(
        f"score {found.score:.4f}, the sum over {console.counted(len(found.shared), 'shared term')}\n"
    )
    rows = [
        (each.term, f"{each.query:.3f}", f"{each.document:.3f}", f"{each.product:.3f}")
        for each in found.shared[:SHOWN_SHARED]
    ]
    console.print_table(("term", "query", "document", "adds"), rows)
    if len(found.shared) > SHOWN_SHARED:
        console.say(f"… {len(found.shared) - SHOWN_SHARED} more")
    console.say("")
    for name, weights, own in (
        ("query", found.query, found.own_query),
        ("document", found.document, found.own_document),
    ):
        console.say(f"{name}: {_listed(weights, own)}")


def _listed(weights: dict[str, float], own: Set[str]) -> str:
    """Name the strongest terms of a text, those that it was expanded by with a plus sign."""
    shown = [
        f"{'' if term in own else '+'}{term} {weight:.2f}"
        for term, weight in list(weights.items())[:SHOWN_TERMS]
    ]
    more = f", … {len(weights) - SHOWN_TERMS} more" if len(weights) > SHOWN_TERMS else ""
    return ", ".join(shown) + more if shown else "no terms"
