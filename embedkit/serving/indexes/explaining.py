"""Why a text matches a query: what each word weighs, and which of the other text's is nearest to it; or what each term or token adds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from embedkit.data.records import titled_text
from embedkit.errors import CheckpointError
from embedkit.pipelines.embedders import describe_kind
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.serving.indexes.live import LiveIndex
from embedkit.serving.indexes.looking import NotHereError, missing
from embedkit.serving.model_names import served_name

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.sparse import SparseEncoder
    from embedkit.explaining.explain import ExplainedText, Explanation
    from embedkit.explaining.tokens import ReadText
    from embedkit.pipelines.embedders import AnyEncoder
    from embedkit.serving.engine.text_tasks import EncodedTexts

MOST_CHARS = 20_000  # of a text: each of its words costs one encoding of it


class Explainer:
    """Explains by copies of encoders that torch runs, one text at a time; a copy goes with its encoder."""

    def __init__(self) -> None:
        self._copies: WeakKeyDictionary[Encoder, Encoder] = WeakKeyDictionary()
        self._turn = Lock()

    def explain(self, encoder: AnyEncoder, query: str, text: str) -> dict[str, Any]:  # Any: JSON
        """Explain the cosine of a query and a text.

        Raises:
            RecordError: one of them has no word.
            CheckpointError: the model's scores cannot be explained.
        """
        from embedkit.encoding.encoder import Encoder
        from embedkit.explaining.explain import explain

        if not isinstance(encoder, Encoder):
            raise CheckpointError(
                f"{served_name(encoder.folder.name)} is {describe_kind(encoder)}, whose scores are not explained"
            )
        with self._turn:
            if encoder not in self._copies:
                self._copies[encoder] = Encoder.load(
                    encoder.folder.path, device="cpu", precision="fp32", backend="torch"
                )
            copy = self._copies[encoder]
            found = explain(copy, query, text)
            return {
                "kind": "dense",
                "score": found.score,
                "query": _words(found.query),
                "document": _words(found.document),
                "matches": _matches(copy, found),
                "truncated": found.query.truncated or found.document.truncated,
            }


def explain_by_terms(
    encoder: SparseEncoder, query: str, text: str, encoded: tuple[EncodedTexts, EncodedTexts]
) -> dict[str, Any]:  # Any: JSON
    """Explain a learned sparse model's score, the sum of what the terms of both texts add; `encoded` are query and text."""
    from embedkit.explaining.terms import explain_vectors

    vectors = encoded[0].vectors, encoded[1].vectors
    assert isinstance(vectors[0], SparseVectors)
    assert isinstance(vectors[1], SparseVectors)
    found = explain_vectors(encoder, query, text, (vectors[0], vectors[1])).as_dict()
    return {
        "kind": "sparse",
        "score": found["score"],
        "shared": found["shared"],
        "query": {"text": query, "terms": found["query"]},
        "document": {"text": text, "terms": found["document"]},
        "truncated": bool(encoded[0].truncated[0] or encoded[1].truncated[0]),
    }


def explain_by_tokens(encoder: MultiVectorEncoder, query: str, text: str) -> dict[str, Any]:  # Any: JSON
    """Explain a multi-vector model's score, the sum over the query's tokens: as words of both texts, of one token each.

    A word of the query weighs what it adds, and one of the document what the query's words add that are nearest to it.

    Raises:
        RecordError: one of the texts has no token.
    """
    from embedkit.explaining.tokens import explain_tokens

    found = explain_tokens(encoder, query, text)
    weights = [0.0] * len(found.document.tokens)
    for number in found.of_text:
        weights[found.nearest[number]] += found.cosines[number]
    of_query = {number: word for word, number in enumerate(found.of_text)}
    held = [number for number, place in enumerate(found.document.places) if place is not None]
    of_document = {number: word for word, number in enumerate(held)}
    return {
        "kind": "multi-vector",
        "score": found.score,
        "query": _tokens(found.query, of_query, found.cosines),
        "document": _tokens(found.document, of_document, weights),
        "matches": [
            {
                "query_word": word,
                "document_word": of_document[found.nearest[number]],
                "cosine": found.cosines[number],
            }
            for number, word in of_query.items()
            if found.nearest[number] in of_document
        ],
        "others": found.others,
        "truncated": found.query.truncated or found.document.truncated,
    }


def _tokens(read: ReadText, numbers: Iterable[int], weights: Sequence[float]) -> dict[str, Any]:  # Any: JSON
    words = []
    for number in numbers:
        place = read.places[number]
        assert place is not None  # those that have none are no words
        words.append({"start": place[0], "stop": place[1], "weight": weights[number]})
    return {"text": read.text, "words": words}


def passage_text(index: LiveIndex, doc_id: str, passage: int) -> tuple[str, int, AnyEncoder | None]:
    """Return a passage as it was embedded, its title before it; how many characters stand before the passage; the index's encoder.

    Raises:
        NotHereError: the document, or a passage of this number, is not here.
    """
    with index.opened() as opened:
        hits, _ = opened.index.passages(doc_id)
        if not hits:
            raise missing(index, doc_id)
        hit = next((hit for hit in hits if hit.passage == passage), None)
        if hit is None:
            raise NotHereError(f"{doc_id!r} has no passage {passage}; it has 0 to {hits[-1].passage}")
        text = titled_text(hit.title, hit.text)
        return text, max(0, text.find(hit.text.strip(), len(hit.title))), opened.encoder


def _words(explained: ExplainedText) -> dict[str, Any]:  # Any: JSON
    return {
        "text": explained.text,
        "words": [
            {"start": part.start, "stop": part.stop, "weight": part.effect} for part in explained.parts
        ],
    }


def _matches(encoder: Encoder, found: Explanation) -> list[dict[str, Any]]:  # Any: JSON
    """Return for each word of the query its nearest word of the document, by the cosine of their nearest tokens."""
    of_query = _word_of_token(encoder, found.query, encoder.role_prompt("query"))
    of_document = _word_of_token(encoder, found.document, encoder.role_prompt("document"))
    best: dict[int, tuple[float, int]] = {}
    for token, nearest, cosine in found.best_matches():
        word, other = of_query[token], of_document[nearest]
        if word is not None and other is not None and cosine > best.get(word, (-2.0, 0))[0]:
            best[word] = (cosine, other)
    return [
        {"query_word": word, "document_word": other, "cosine": cosine}
        for word, (cosine, other) in sorted(best.items())
    ]


def _word_of_token(encoder: Encoder, explained: ExplainedText, prompt: str) -> Sequence[int | None]:
    """Return for each token the number of the word that it stands in; None for special ones and those of the prompt."""
    from embedkit.explaining.tokens import token_places

    places = token_places(encoder.tokenizer, prompt, explained.text, len(explained.tokens))
    return [
        next(
            (
                number
                for number, part in enumerate(explained.parts)
                if place is not None and part.start < place[1] and place[0] < part.stop
            ),
            None,
        )
        for place in places
    ]
