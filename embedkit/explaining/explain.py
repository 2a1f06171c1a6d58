"""Why a document has its score for a query, in three views.

1. Token similarities: the cosine of every token vector of the query with every one of the document.
2. Leave-one-out: how much the score falls when a word is taken out of the text and the text is encoded again.
3. Attention: what each token of each text looks at, in every layer and head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from embedkit.checkpoint.folder import check_one_model
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, RecordError
from embedkit.explaining.tokens import token_text
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.inference.torch_runtime.backend import TorchBackend
from embedkit.model.layers import runs_of
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32

_WORD = re.compile(r"\w+|[^\w\s]", re.UNICODE)
# Each part of a text costs one encoding of the whole text: longer texts are taken out several words at a time.
MOST_PARTS = 128


@dataclass(frozen=True)
class Part:
    """A stretch of a text in characters, and by how much the score falls without it."""

    start: int
    stop: int
    effect: float


@dataclass(frozen=True)
class ExplainedText:
    """One of the two texts.

    Shapes:
        tokens: T of them, the special ones included
        attention: (L, H, T, T) float32, rows look at columns and sum to 1
    """

    text: str
    tokens: tuple[str, ...]
    special: tuple[bool, ...]
    parts: tuple[Part, ...]
    attention: Float32
    truncated: bool

    def received(self) -> Float32:
        """Return the share of attention that each token gets in each layer, over all heads and tokens: (L, T)."""
        share: Float32 = self.attention.mean(axis=(1, 2))
        return share


@dataclass(frozen=True)
class Explanation:
    """A query, a document, the cosine of their vectors, and the cosines of their tokens.

    Shapes:
        similarities: (Tq, Td) float32, from -1 to 1
    """

    query: ExplainedText
    document: ExplainedText
    score: float
    similarities: Float32

    def best_matches(self) -> list[tuple[int, int, float]]:
        """Return for each token of the query that is not special: it, its nearest such token of the document, the cosine."""
        own = [row for row, special in enumerate(self.query.special) if not special]
        theirs = np.flatnonzero(~np.asarray(self.document.special, np.bool_))
        if not len(theirs):
            return []
        return [
            (row, int(best), float(self.similarities[row, best]))
            for row in own
            for best in [theirs[self.similarities[row, theirs].argmax()]]
        ]


def explain(encoder: Encoder, query: str, document: str) -> Explanation:
    """Explain the cosine of a query and a document.

    Raises:
        RecordError: one of the texts has no word.
        CheckpointError: the encoder is no transformer, another backend than torch runs it, it has no cosines or weights to show, or its
            attention is not among all tokens.
    """
    check_one_model(encoder.folder, "explaining")
    learned = encoder.folder.modules.sentence.similarity
    if learned is not None:
        raise CheckpointError(
            f"{encoder.folder.path}: its similarity is {learned.kind}; what is explained is a cosine. "
            "Explain with a model that is compared by cosine"
        )
    for what, text in (("query", query), ("document", document)):
        if not _WORD.search(text):
            raise RecordError(f"the {what} {text[:60]!r} has no word in it; there is nothing to explain")
    query_prompt, document_prompt = encoder.role_prompt("query"), encoder.role_prompt("document")
    query_vector = normalize(encoder.encode([query], prompt=query_prompt, on_truncate="ok"))[0]
    document_vector = normalize(encoder.encode([document], prompt=document_prompt, on_truncate="ok"))[0]
    score = float(query_vector @ document_vector)
    first, first_tokens = _look(encoder, query, "query", document_vector, score)
    second, second_tokens = _look(encoder, document, "document", query_vector, score)
    return Explanation(first, second, score, first_tokens @ second_tokens.T)


def _look(
    encoder: Encoder, text: str, role: Literal["query", "document"], other: Float32, score: float
) -> tuple[ExplainedText, Float32]:
    """Explain one text against the other's vector; return it with its unit token vectors, (T, D)."""
    prompt = encoder.role_prompt(role)
    batch = encoder.tokenizer.encode([prompt + text])
    template = encoder.tokenizer.single
    tokens = tuple(token_text(encoder.tokenizer, int(number)) for number in batch.input_ids)
    ends = len(tokens) - len(template.suffix)
    special = tuple(not len(template.prefix) <= place < ends for place in range(len(tokens)))
    hidden, attention = _run(encoder, batch)
    explained = ExplainedText(
        text,
        tokens,
        special,
        leave_one_out(encoder, text, prompt, other, score),
        attention,
        bool(batch.truncated[0]),
    )
    return explained, hidden


@torch.inference_mode()
def _run(encoder: Encoder, batch: TokenBatch) -> tuple[Float32, Float32]:
    """Run one sequence layer by layer: unit token vectors (T, D), and attention (L, H, T, T)."""
    backend = encoder.backend
    if not isinstance(backend, TorchBackend) or backend.encoder is None:
        raise CheckpointError(
            f"{encoder.folder.path}: this is not a transformer run by torch ({backend!r}), so that there is no "
            "attention to show. Explain with a transformer"
        )
    model = backend.encoder
    if model.config.attention == "low_rank":
        raise CheckpointError(
            f"{encoder.folder.path}: its attention is low-rank and weighs mixtures of tokens, so that no token has a weight to show. "
            "Explain with a model of another attention"
        )
    if model.recursion is not None:
        raise CheckpointError(
            f"{encoder.folder.path}: it has {model.config.routed}: tokens that stopped attend to nothing, so that there are no whole "
            "maps of attention to show. Explain with another model"
        )
    runs = runs_of(batch.lengths.tolist())
    hidden, biases = model.embed(torch.from_numpy(batch.input_ids).to(backend.device), runs, None)
    maps = []
    for number in range(model.config.num_hidden_layers):
        layer, bias = model.layer(number), biases[model.config.layer_is_local(number)]
        read = layer.attention_norm(hidden) if layer.norm_first else hidden
        maps.append(layer.attention.weights(read, runs[0], bias[0])[0].float())  # (H, T, T)
        hidden = layer(hidden, runs, bias)
    if model.final_norm is not None:
        hidden = model.final_norm(hidden)
    vectors: Float32 = F.normalize(hidden.float(), dim=-1).cpu().numpy()
    attention: Float32 = torch.stack(maps).cpu().numpy()
    return vectors, attention


def leave_one_out(
    encoder: Encoder, text: str, prompt: str, other: NDArray[np.float32], score: float
) -> tuple[Part, ...]:
    """Take each word out of the text in turn, and see what becomes of the cosine with `other`, a unit vector (E,).

    Of more than 128 words several neighbours are taken out together. Words beyond what the model reads have effect 0.
    """
    spans = split_parts(text)
    without = [(text[:start] + text[stop:]).strip() for start, stop in spans]
    vectors = normalize(encoder.encode(without, prompt=prompt, on_truncate="ok"))
    effects = score - vectors @ other
    return tuple(
        Part(start, stop, float(effect)) for (start, stop), effect in zip(spans, effects, strict=True)
    )


def split_parts(text: str, most: int = MOST_PARTS) -> Sequence[tuple[int, int]]:
    """Cut a text into at most `most` stretches of equally many words and signs, as (start, stop) in characters.

    >>> split_parts("A girl sings.", 2)
    [(0, 6), (7, 13)]
    """
    words = [match.span() for match in _WORD.finditer(text)]
    size = -(-len(words) // most)
    groups = [words[start : start + size] for start in range(0, len(words), size)]
    return [(group[0][0], group[-1][1]) for group in groups]
