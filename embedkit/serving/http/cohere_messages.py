"""What Cohere's and Jina's rerankers, and Cohere's embeddings, take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from embedkit.serving.http.vector_forms import VectorForm

Vectors = list[list[float]]
InputType = Literal["search_document", "search_query", "classification", "clustering", "image"]
Truncate = Literal["NONE", "START", "END"]


@dataclass(frozen=True, kw_only=True)
class CohereRerankRequest:
    """Documents to be ordered by how relevant they are to the query: Cohere's v1 and v2, and Jina's dialect.

    A document is a text, or an object with a `text`; of objects `rank_fields` names other fields to be read. Documents are cut to
    `max_tokens_per_doc`, where the model reads more. `truncation` false refuses pairs that are longer than the model reads.
    `max_chunks_per_doc` and `priority` change nothing: a document is read once, and small requests come first anyway.
    """

    query: str
    documents: list[str | dict[str, Any]]  # Any: fields of a document that nobody reads
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    rank_fields: list[str] | None = None
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int | None = None
    truncation: bool | None = None
    priority: int | None = None


@dataclass(frozen=True, kw_only=True)
class RankedDocument:
    """A document's text, as it was read."""

    text: str


@dataclass(frozen=True, kw_only=True)
class RerankResult:
    """A document by its number in the request, with the probability that it is relevant, 0 to 1."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


@dataclass(frozen=True, kw_only=True)
class ApiVersion:
    """The version of Cohere's API that this answer is of."""

    version: str


@dataclass(frozen=True, kw_only=True)
class BilledUnits:
    """What Cohere bills; here it costs nothing."""

    input_tokens: int | None = None
    search_units: int | None = None


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What an answer says beside the results; `warnings` name what was cut."""

    api_version: ApiVersion
    billed_units: BilledUnits
    warnings: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class RerankUsage:
    """Tokens that were read, those of the query once for each document; `truncated` pairs were cut."""

    prompt_tokens: int
    total_tokens: int
    truncated: int


@dataclass(frozen=True, kw_only=True)
class CohereRerankResponse:
    """The documents, the most relevant first."""

    id: str
    model: str
    results: list[RerankResult]
    meta: Meta
    usage: RerankUsage


@dataclass(frozen=True, kw_only=True)
class Content:
    """A part of an input; only texts are taken."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: dict[str, Any] | None = None  # Any: refused


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input of several parts; their texts are joined by line breaks."""

    content: list[Content]


@dataclass(frozen=True, kw_only=True)
class CohereEmbedRequest:
    """Texts to embed: `texts`, or `inputs`.

    `input_type` search_query and search_document take the model's prompts for these. `truncate` NONE refuses texts that are longer than
    the model reads, START cuts them at the start, END at the end. `priority` changes nothing.
    """

    texts: list[str] | None = None
    model: str | None = None
    input_type: InputType | None = None
    inputs: list[Input] | None = None
    images: list[str] | None = None
    embedding_types: list[VectorForm] | None = None
    output_dimension: int | None = None
    max_tokens: int | None = None
    truncate: Truncate = "END"
    priority: int | None = None


@dataclass(frozen=True, kw_only=True)
class EmbeddingsByType:
    """The vectors of all texts, in each form that was asked for."""

    float: Vectors | None = None
    base64: list[str] | None = None
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None


@dataclass(frozen=True, kw_only=True)
class CohereEmbedResponse:
    """The vectors of all texts: by type in v2, and in v1 where types were asked for; else a list of them."""

    id: str
    embeddings: EmbeddingsByType | Vectors
    texts: list[str]
    meta: Meta
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
