"""What may be asked of the engine, what it answers, and how it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import EmbedkitError
from embedkit.types import Float32, OnTruncate, TextRole

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.reranking.cross_encoder import CrossEncoder

Priority = Literal["interactive", "bulk"]
Kind = Literal["embed", "score", "token_vectors"]
KINDS: tuple[Kind, ...] = ("embed", "score", "token_vectors")


class QueueFullError(EmbedkitError):
    """As many tokens wait as may; `retry_seconds` is how long those will take."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class EngineClosedError(EmbedkitError):
    """The engine stops: it takes no more work, or had no time to finish what it had."""


@dataclass(frozen=True, kw_only=True)
class EmbedWork:
    """Texts to be embedded as (N, E), queries as they are compared. `prompt` None is the model's for the role, or without one its default."""

    encoder: Encoder
    texts: Sequence[str]
    role: TextRole | None = None
    prompt: str | None = None
    on_truncate: OnTruncate = "ok"
    priority: Priority = "bulk"


@dataclass(frozen=True, kw_only=True)
class ScoreWork:
    """Pairs to be scored: query i with text i. `raw` asks for log-odds, before any activation or calibration."""

    model: CrossEncoder
    queries: Sequence[str]
    texts: Sequence[str]
    raw: bool = False
    priority: Priority = "bulk"


@dataclass(frozen=True, kw_only=True)
class TokenVectorsWork:
    """Texts whose tokens' vectors are wanted, as the last layer gives them; prompts as in `EmbedWork`.

    The vectors of a text in chunks stand one chunk after another.
    """

    encoder: Encoder
    texts: Sequence[str]
    role: TextRole | None = None
    prompt: str | None = None
    on_truncate: OnTruncate = "ok"
    priority: Priority = "bulk"


@dataclass(frozen=True)
class Embedded:
    """Vectors, (N, E) float32, with the tokens that were read of each text, and which were cut or hold nothing.

    With the role "query" empty and unknown texts have zeros.

    Shapes:
        tokens: (N,) int64, special ones and prompts included; truncated, empty, unknown: (N,) bool
    """

    vectors: Float32
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """Scores, (N,) float32, higher is better; (N,) tokens read and which pairs were cut."""

    scores: Float32
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class TokensOfTexts:
    """For each text (T, D) float32, a row a token, special ones and prompts included; `tokens` (N,) are the T.

    Equal texts may share one array: it cannot be written to.
    """

    vectors: Sequence[Float32]
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
