"""What Hugging Face's text-embeddings-inference (TEI) takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["Left", "Right", "left", "right"]
# A text or several; numbers are token ids, which are refused with the reason.
Inputs = str | list[str | int | list[int]]


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """Texts to embed.

    `truncate` false refuses texts that are longer than the model reads; without it they are cut, and counted in the header
    x-embedkit-truncated. `normalize` false leaves vectors as the model gives them, and many models normalize themselves.
    """

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class EmbedAllRequest:
    """Texts whose tokens' vectors are wanted, before pooling."""

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class SimilarityInputs:
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


@dataclass(frozen=True, kw_only=True)
class SimilarityParameters:
    """How long texts are cut, and the model's prompt for all of them."""

    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class SimilarityRequest:
    """A text, and those that it is compared with."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class AnyRequest:
    """What `huggingface_hub.InferenceClient` sends to an address: texts to embed, or a text and those to compare it with."""

    inputs: str | list[str | int | list[int]] | SimilarityInputs
    parameters: SimilarityParameters | None = None
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None
    encoding_format: Literal["float"] | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class RerankRequest:
    """Texts to be ordered by how relevant they are to the query. `raw_scores` asks for log-odds."""

    query: str
    texts: list[str]
    truncate: bool | None = None
    truncation_direction: Direction = "Right"
    raw_scores: bool = False
    return_text: bool = False
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rank:
    """A text by its number in the request, with the probability that it is relevant."""

    index: int
    score: float
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    """Texts to make tokens of."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token, and its place in the text in characters; a special one has none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, kw_only=True)
class Health:
    """The server answers."""

    status: Literal["ok"]


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How the vectors of tokens become that of a text."""

    pooling: str


@dataclass(frozen=True, kw_only=True)
class RerankLabels:
    """The labels of a reranker, by number and by name."""

    id2label: dict[str, str]
    label2id: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """What the first model is: one of these."""

    embedding: Pooling | None = None
    reranker: RerankLabels | None = None


@dataclass(frozen=True, kw_only=True)
class Info:
    """The first model of this server, and its limits."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: ModelType
    max_input_length: int
    max_client_batch_size: int
    max_batch_tokens: int
    auto_truncate: bool
    prompts: list[str]
    dimension: int | None
    version: str
