"""What all APIs do alike: check the texts of a request, have the engine compute them, tell what was cut."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeVar, cast, get_args

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.windows import TextRefusedError
from embedkit.errors import RecordError
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine.engine import (
    Embedded,
    EmbedWork,
    Priority,
    TokensOfTexts,
    TokenVectorsWork,
)
from embedkit.serving.engine.scoring import AnyReranker, RerankWork, score_soon, text_tokenizer
from embedkit.serving.http.messages import HttpRequest, RefusedError
from embedkit.serving.services import Services
from embedkit.types import Float32, OnTruncate, TextRole

Done = TypeVar("Done")
ON_TRUNCATE = "x-embedkit-on-truncate"
TRUNCATED = "x-embedkit-truncated"
# What somebody waits for: a query, or the hits of one search. More is bulk, and gives way to it.
INTERACTIVE_TEXTS = 16
INTERACTIVE_CHARS = 2**15
# Of one answer: about 100 megabytes of JSON.
MOST_NUMBERS = 2**23


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How an API refuses: the status for each kind of fault, and what its clients send to have long texts cut."""

    too_many: int = 400
    empty: int = 400
    too_long: int = 400
    wrong: int = 400
    cut_by: str


@dataclass(frozen=True, kw_only=True)
class TextsToEmbed:
    """Texts to be embedded: `field` is what the API calls them.

    `dimensions` keeps the first so many. `cut_left` takes the end of a text that is too long.
    """

    texts: Sequence[str]
    field: str
    model: str | None = None
    role: TextRole | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    on_truncate: OnTruncate = "ok"
    cut_left: bool = False


@dataclass(frozen=True, kw_only=True)
class TextsToScore:
    """Texts to be scored against one query."""

    query: str
    texts: Sequence[str]
    field: str
    model: str | None = None
    on_truncate: OnTruncate = "ok"
    cut_left: bool = False


@dataclass(frozen=True)
class Told:
    """What an answer says beside vectors or scores: the model's name, the tokens read, how many texts were cut."""

    model: str
    tokens: int
    truncated: int

    @property
    def headers(self) -> Mapping[str, str]:
        return {TRUNCATED: str(self.truncated)}


class ApiEngine:
    """The engine as one API asks it."""

    def __init__(self, services: Services, manners: Manners) -> None:
        self.services, self.manners = services, manners
        self._left: dict[str, Encoder] = {}
        self._left_pairs: dict[str, CrossEncoder] = {}

    async def embed(self, request: HttpRequest, wanted: TextsToEmbed) -> tuple[Float32, Told]:
        """Embed texts: (N, E), or as many dimensions as are wanted.

        Raises:
            RefusedError: the model, the prompt or the dimensions are not there, a text is empty or too long, or there are too many.
        """
        name, encoder = self.services.encoder(wanted.model)
        self.check(wanted.texts, wanted.field)
        self._check_dimensions(wanted.dimensions, encoder, name)
        on_truncate = self.on_truncate(request, wanted.on_truncate)
        work = EmbedWork(
            encoder=self._cutting_left(name, encoder) if wanted.cut_left else encoder,
            texts=wanted.texts,
            role=wanted.role,
            prompt=self.prompt(encoder, wanted.prompt_name),
            on_truncate=on_truncate,
            priority=priority(wanted.texts),
        )
        done: Embedded = await self._finished(self.services.engine.embed(work), wanted)
        told = Told(name, int(done.tokens.sum()), int(done.truncated.sum()))
        return shortened(done.vectors, wanted.dimensions, encoder), told

    async def token_vectors(
        self, request: HttpRequest, wanted: TextsToEmbed
    ) -> tuple[Sequence[Float32], Told]:
        """Compute the vectors of all tokens of texts, (T, D) each, before pooling.

        Raises:
            RefusedError: as `embed`; also where the model is static, or the answer would be too large.
        """
        name, encoder = self.services.encoder(wanted.model)
        self.check(wanted.texts, wanted.field)
        if encoder.folder.static:
            raise RefusedError(
                self.manners.wrong,
                f"{name} is a static model, whose tokens have no vectors of their own. Name a transformer model",
            )
        work = TokenVectorsWork(
            encoder=self._cutting_left(name, encoder) if wanted.cut_left else encoder,
            texts=wanted.texts,
            prompt=self.prompt(encoder, wanted.prompt_name),
            on_truncate=self.on_truncate(request, wanted.on_truncate),
            priority=priority(wanted.texts),
        )
        done: TokensOfTexts = await self._finished(self.services.engine.token_vectors(work), wanted)
        count = int(done.tokens.sum())
        numbers = count * encoder.folder.config.hidden_size
        if numbers > MOST_NUMBERS:
            raise RefusedError(
                self.manners.too_many,
                f"{wanted.field} has {count:,} tokens, whose vectors are {numbers:,} numbers; one answer has "
                f"{MOST_NUMBERS:,}. Send fewer texts at a time",
            )
        return done.vectors, Told(name, count, int(done.truncated.sum()))

    async def _finished(self, future: Future[Done], wanted: TextsToEmbed) -> Done:
        """Wait for what was asked of the engine; cancelling reaches it.

        Raises:
            RefusedError: a text is too long, or there is too much of it.
        """
        try:
            return await asyncio.wrap_future(future)
        except TextRefusedError as exc:
            raise RefusedError(
                self.manners.too_long,
                f"{wanted.field}: {exc.message}, or have it cut: {self.manners.cut_by}",
            ) from exc
        except RecordError as exc:
            raise RefusedError(self.manners.too_many, f"{wanted.field}: {exc.message}") from exc

    async def score(
        self, request: HttpRequest, pairs: TextsToScore
    ) -> tuple[Float32, np.ndarray[tuple[int], np.dtype[np.float64]], Told]:
        """Score texts against a query: log-odds, (N,), and the probabilities that they mean, (N,).

        Of a multi-vector model both are its scores, the mean over the query's tokens of the best cosine.

        Raises:
            RefusedError: the model is not there, the query is empty, a text is too long, or there are too many.
        """
        name, model = self.services.reranker(pairs.model)
        self.check([pairs.query], "query")
        self.check(pairs.texts, pairs.field, may_be_empty=True)
        on_truncate = self.on_truncate(request, pairs.on_truncate)
        if on_truncate == "chunk":
            raise RefusedError(
                self.manners.wrong, f"{ON_TRUNCATE} is chunk; a pair is cut (ok) or refused (error)"
            )
        work = RerankWork(
            model=self._cutting_pairs_left(name, model) if pairs.cut_left else model,
            query=pairs.query,
            texts=pairs.texts,
            raw=True,
            priority=priority([pairs.query, *pairs.texts], most=INTERACTIVE_TEXTS + 1),
        )
        done = await score_soon(self.services.engine, work)
        if on_truncate == "error" and done.truncated.any():
            first = int(np.flatnonzero(done.truncated)[0])
            raise RefusedError(
                self.manners.too_long,
                f"{pairs.field}[{first}] and the query have more tokens than the {text_tokenizer(model).max_length:,} that "
                f"{name} reads{'' if isinstance(model, CrossEncoder) else ' of a document'}. "
                f"Cut it, or have it cut: {self.manners.cut_by}",
            )
        told = Told(name, int(done.tokens.sum()), int(done.truncated.sum()))
        if isinstance(model, CrossEncoder):
            return done.scores, model.probabilities(done.scores), told
        return done.scores, done.scores.astype(np.float64), told

    def check(self, texts: Sequence[str], field: str, *, may_be_empty: bool = False) -> None:
        """Refuse no texts, too many of them, and empty ones.

        Raises:
            RefusedError: it is so.
        """
        limit = self.services.limits.inputs
        if len(texts) > limit:
            raise RefusedError(
                self.manners.too_many,
                f"{field} has {len(texts):,} texts; this server takes {limit:,} in one request. Send them in parts",
            )
        if not texts:
            raise RefusedError(self.manners.empty, f"{field} is empty; it must hold one text at least")
        if may_be_empty or "" not in texts:
            return
        where = field if len(texts) == 1 else f"{field}[{list(texts).index('')}]"
        raise RefusedError(
            self.manners.empty, f"{where} is an empty string; a text must have a character at least"
        )

    def on_truncate(self, request: HttpRequest, asked: OnTruncate) -> OnTruncate:
        """Return what becomes of long texts: as the header says, else as the API's own field does.

        Raises:
            RefusedError: the header says something else.
        """
        given = request.headers.get(ON_TRUNCATE)
        if given is None:
            return asked
        if given not in get_args(OnTruncate) or given == "warn":
            raise RefusedError(
                self.manners.wrong,
                f"the header {ON_TRUNCATE} is {given[:40]!r}; it must be error, chunk or ok",
            )
        return cast("OnTruncate", given)

    def prompt(self, encoder: Encoder, name: str | None) -> str | None:
        """Return the model's prompt of that name; None where none is named.

        Raises:
            RefusedError: the model has no such prompt.
        """
        if name is None:
            return None
        known = encoder.folder.modules.prompts
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise RefusedError(
                self.manners.wrong, f"the model has no prompt named {name[:80]!r}; it has: {there}"
            )
        return encoder.prompt(name)

    def _check_dimensions(self, wanted: int | None, encoder: Encoder, name: str) -> None:
        if wanted is None or wanted == encoder.dimension:
            return
        if not 1 <= wanted <= encoder.dimension:
            raise RefusedError(
                self.manners.wrong,
                f"{wanted} dimensions were asked for; the vectors of {name} have {encoder.dimension}. Ask for 1 to "
                f"{encoder.dimension}",
            )
        if encoder.folder.modules.sentence.similarity is not None:
            raise RefusedError(
                self.manners.wrong,
                f"{wanted} dimensions were asked for; the similarity of {name} compares all {encoder.dimension}. Leave it out",
            )

    def _cutting_left(self, name: str, encoder: Encoder) -> Encoder:
        if encoder.tokenizer.truncation_side == "left":
            return encoder
        if name not in self._left:
            tokenizer = replace(encoder.tokenizer, truncation_side="left")
            self._left[name] = Encoder(
                replace(encoder.folder, tokenizer=tokenizer),
                encoder.backend,
                truncate_dim=encoder.truncate_dim,
                token_budget=encoder.token_budget,
                choice=encoder.choice,
                merge_tokens=encoder.merge_tokens,
            )
        return self._left[name]

    def _cutting_pairs_left(self, name: str, model: AnyReranker) -> CrossEncoder:
        if not isinstance(model, CrossEncoder):
            raise RefusedError(
                self.manners.wrong,
                f"{name} is a multi-vector model, which reads the beginning of a text that is too long. Have it cut there",
            )
        if model.folder.tokenizer.truncation_side == "left":
            return model
        if name not in self._left_pairs:
            tokenizer = replace(model.folder.tokenizer, truncation_side="left")
            self._left_pairs[name] = CrossEncoder(
                replace(model.folder, tokenizer=tokenizer),
                model.backend,
                choice=model.choice,
                truncation=model.truncation,
                layers=model.layers,
                label=model.label,
                calibration=model.calibration,
            )
        return self._left_pairs[name]


def priority(texts: Sequence[str], *, most: int = INTERACTIVE_TEXTS) -> Priority:
    """Few short texts are interactive."""
    few = len(texts) <= most and sum(map(len, texts)) <= INTERACTIVE_CHARS
    return "interactive" if few else "bulk"


def shortened(vectors: Float32, dimensions: int | None, encoder: Encoder) -> Float32:
    """Keep the first dimensions of vectors, (N, E), and normalize again where the model does."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    kept = np.ascontiguousarray(vectors[:, :dimensions])
    return normalize(kept) if encoder.folder.modules.sentence.normalize else kept


def best_first(scores: Float32, count: int | None = None) -> list[int]:
    """Return the places of the best scores, the best first; of equal ones the first."""
    order = np.argsort(-scores, kind="stable")
    return [int(place) for place in (order if count is None else order[:count])]
