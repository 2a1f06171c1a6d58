"""An explanation as coloured words, and as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from embedkit.explaining.explain import ExplainedText, Explanation


@dataclass(frozen=True)
class Stretch:
    """A piece of a text. `weight` from -1 to 1 is its effect by the strongest of the text; no effect between parts."""

    text: str
    weight: float = 0.0
    effect: float | None = None


def stretches(text: ExplainedText) -> Iterator[Stretch]:
    """Cut a text into its parts and what lies between them."""
    strongest = max((abs(part.effect) for part in text.parts), default=0.0) or 1.0
    at = 0
    for part in text.parts:
        if part.start > at:
            yield Stretch(text.text[at : part.start])
        yield Stretch(text.text[part.start : part.stop], part.effect / strongest, part.effect)
        at = part.stop
    if at < len(text.text):
        yield Stretch(text.text[at:])


def as_dict(explanation: Explanation, *, attention: bool = False) -> dict[str, Any]:  # Any: what JSON holds
    """Return an explanation as JSON holds it; the attention maps, L × H × T × T numbers a text, on demand."""
    return {
        "score": explanation.score,
        "query": _text(explanation.query, attention=attention),
        "document": _text(explanation.document, attention=attention),
        "similarities": [[round(value, 4) for value in row] for row in explanation.similarities.tolist()],
    }


def _text(text: ExplainedText, *, attention: bool) -> dict[str, Any]:  # Any: what JSON holds
    content: dict[str, Any] = {
        "text": text.text,
        "tokens": list(text.tokens),
        "truncated": text.truncated,
        "leave_one_out": [
            {"text": text.text[part.start : part.stop], "start": part.start, "effect": round(part.effect, 6)}
            for part in text.parts
        ],
        "attention_received": [[round(value, 4) for value in row] for row in text.received().tolist()],
    }
    if attention:
        content["attention"] = text.attention.round(4).tolist()
    return content
