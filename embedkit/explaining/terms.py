"""Why a document has its score for a query by a learned sparse model: the terms of both, and what each adds to the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedkit.encoding.sparse import SparseEncoder
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.types import TextRole


@dataclass(frozen=True)
class SharedTerm:
    """A term that query and document have, with its weight in each; it adds `product` to the score."""

    term: str
    query: float
    document: float

    @property
    def product(self) -> float:
        return self.query * self.document


@dataclass(frozen=True)
class TermExplanation:
    """The score, which is the sum of what the shared terms add, largest first; and all terms, those the texts do not hold, too.

    `own_…` are the terms that stand in the text itself; the others are its expansion.
    """

    score: float
    shared: tuple[SharedTerm, ...]
    query: dict[str, float]
    document: dict[str, float]
    own_query: frozenset[str]
    own_document: frozenset[str]

    def as_dict(self) -> dict[str, Any]:  # Any: JSON values
        """Return plain values: of each term, whether the text holds it."""
        return {
            "score": self.score,
            "shared": [
                {"term": each.term, "query": each.query, "document": each.document, "product": each.product}
                for each in self.shared
            ],
            "query": _terms(self.query, self.own_query),
            "document": _terms(self.document, self.own_document),
        }


def explain_terms(encoder: SparseEncoder, query: str, document: str) -> TermExplanation:
    """Encode both texts and compare them by dot product."""
    vectors = encoder.encode_queries([query]), encoder.encode_documents([document])
    return explain_vectors(encoder, query, document, vectors)


def explain_vectors(
    encoder: SparseEncoder, query: str, document: str, vectors: tuple[SparseVectors, SparseVectors]
) -> TermExplanation:
    """Compare the vectors of both texts, one row each, which were computed before."""
    query_terms, document_terms = (encoder.describe(each)[0] for each in vectors)
    own_query, own_document = _own(encoder, query, "query"), _own(encoder, document, "document")
    shared = [
        SharedTerm(term, weight, document_terms[term])
        for term, weight in query_terms.items()
        if term in document_terms
    ]
    shared.sort(key=lambda each: (-each.product, each.term))
    return TermExplanation(
        sum(each.product for each in shared),
        tuple(shared),
        query_terms,
        document_terms,
        own_query,
        own_document,
    )


def _own(encoder: SparseEncoder, text: str, role: TextRole) -> frozenset[str]:
    """Return the terms that stand in a text itself."""
    (ids,) = encoder.of_role(role).tokenizer.ids([text])
    return frozenset(encoder.terms(ids))


def _terms(weights: dict[str, float], own: frozenset[str]) -> list[dict[str, Any]]:  # Any: JSON values
    return [{"term": term, "weight": weight, "in_text": term in own} for term, weight in weights.items()]
