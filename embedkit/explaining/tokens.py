"""Why a document has its score for a query by a multi-vector model: which of its tokens each token of the query is nearest to.

Late interaction explains itself: the score is the sum, over the query's tokens, of the largest cosine with any token of the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.errors import RecordError
from embedkit.tokenization.blocks import Span
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Float32, TextRole


@dataclass(frozen=True)
class ReadText:
    """One of the two texts: of each token that has a vector, what it is called, and where it stands in the text.

    A place is None for tokens that stand for nothing in the text: special ones, markers, those of a prompt, and those that fill a query up.
    """

    text: str
    tokens: tuple[str, ...]
    places: tuple[Span | None, ...]
    truncated: bool


@dataclass(frozen=True)
class TokenExplanation:
    """Which token of the document each one of the query is nearest to, and the cosine of the two, which it adds to the score.

    Shapes:
        nearest: (Tq,), numbers of the document's tokens
        cosines: (Tq,) float32
    """

    query: ReadText
    document: ReadText
    nearest: tuple[int, ...]
    cosines: tuple[float, ...]

    @property
    def score(self) -> float:
        """MaxSim, the sum of the cosines."""
        return float(np.sum(self.cosines, dtype=np.float64))

    @property
    def of_text(self) -> list[int]:
        """The query's tokens that stand in its text, by number."""
        return [number for number, place in enumerate(self.query.places) if place is not None]

    @property
    def others(self) -> float:
        """What the query's other tokens add to the score."""
        return self.score - float(np.sum([self.cosines[number] for number in self.of_text], dtype=np.float64))

    def as_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return plain values: the tokens of both texts, and of each of the query the number of the nearest."""
        return {
            "score": self.score,
            "query": _plain(self.query),
            "document": _plain(self.document),
            "matches": [
                {"query_token": number, "document_token": nearest, "cosine": cosine}
                for number, (nearest, cosine) in enumerate(zip(self.nearest, self.cosines, strict=True))
            ],
        }


def explain_tokens(encoder: MultiVectorEncoder, query: str, document: str) -> TokenExplanation:
    """Encode both texts, and compare their tokens; a document's tokens are not pooled for this.

    Raises:
        RecordError: one of the texts has no token.
    """
    asked, query_vectors = _read(encoder, query, "query")
    held, document_vectors = _read(encoder, document, "document")
    cosines = query_vectors @ document_vectors.T  # (Tq, Td)
    nearest = cosines.argmax(axis=1)
    best = np.take_along_axis(cosines, nearest[:, None], axis=1)[:, 0]
    return TokenExplanation(asked, held, tuple(nearest.tolist()), tuple(best.tolist()))


def _read(encoder: MultiVectorEncoder, text: str, role: TextRole) -> tuple[ReadText, Float32]:
    """Return a text's tokens that have a vector, and these: (T, E)."""
    window = encoder.tokenize([text], role)
    kept = encoder.scored(window.batch, role)
    if not kept.any() or not text.strip():
        raise RecordError(f"the {role} {text[:60]!r} has no word in it; there is nothing to explain")
    vectors = encoder.sequence_vectors(window.batch, role).vectors
    tokenizer = encoder.tokenizer(role)
    ids = window.batch.input_ids.tolist()
    places = token_places(tokenizer, encoder.folder.modules.prompt(role), text, len(ids))
    numbers = np.flatnonzero(kept).tolist()
    read = ReadText(
        text,
        tuple(token_text(tokenizer, ids[number]) for number in numbers),
        tuple(places[number] for number in numbers),
        bool(window.truncated[0]),
    )
    return read, vectors


def token_text(tokenizer: Tokenizer, number: int) -> str:
    """Return a token as people know it: without the marks of byte pairs and of pieces for a space."""
    token = str(tokenizer.backend.id_to_token(number))
    return token.replace("Ġ", "").replace("▁", "") or token


def token_places(tokenizer: Tokenizer, prompt: str, text: str, count: int) -> Sequence[Span | None]:
    """Say where in a text each of the `count` tokens stands that it and its prompt are read as; None for special ones and the prompt's."""
    places: list[Span | None] = [None] * count
    first = len(tokenizer.single.prefix)
    spans = tokenizer.offsets(prompt + text)
    read = min(len(spans), count - first - len(tokenizer.single.suffix))
    spans = spans[:read] if tokenizer.truncation_side == "right" else spans[len(spans) - read :]
    for number, (start, stop) in enumerate(spans, first):
        if stop > len(prompt):
            places[number] = max(0, start - len(prompt)), stop - len(prompt)
    return places


def _plain(read: ReadText) -> dict[str, Any]:  # Any: JSON values
    return {
        "text": read.text,
        "truncated": read.truncated,
        "tokens": [
            {"token": token, "start": place and place[0], "stop": place and place[1]}
            for token, place in zip(read.tokens, read.places, strict=True)
        ],
    }
