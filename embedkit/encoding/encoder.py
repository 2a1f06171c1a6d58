"""`Encoder`: text in, sentence vectors out, whatever the model and the backend."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from embedkit.checkpoint.folder import ModelFolder, fingerprint, read_model_folder
from embedkit.checkpoint.st_router import default_role
from embedkit.data.fields import FieldTexts
from embedkit.encoding.field_documents import encode_fields, fields_of_mappings
from embedkit.encoding.learned_comparison import LearnedComparison
from embedkit.encoding.prompts import named_prompt, role_prompt
from embedkit.encoding.similarity import similarity
from embedkit.encoding.windows import (
    EncodedWindow,
    Prompt,
    TokenizedWindow,
    average_chunks,
    cut_windows,
    tokenize_window,
)
from embedkit.errors import CheckpointError
from embedkit.inference.backend import Backend
from embedkit.inference.choice import CPU_TOKEN_BUDGET, Choice, token_budget
from embedkit.inference.loading import choose, load_backend
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.inference.token_merging import merging_part
from embedkit.native.merging import check_share
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import one_ahead, padded_batches
from embedkit.types import Device, Float32, OnTruncate, Precision, TextRole, WantedPrecision, WantedRuntime

logger = logging.getLogger(__name__)


class Encoder:
    """Turns texts into sentence vectors of one model: always (N, E) float32.

    >>> encoder = Encoder.load("path/to/all-MiniLM-L6-v2")          # doctest: +SKIP
    >>> encoder.encode(["A girl is styling her hair."]).shape        # doctest: +SKIP
    (1, 384)
    """

    def __init__(
        self,
        folder: ModelFolder,
        backend: Backend,
        *,
        truncate_dim: int | None = None,
        token_budget: int = CPU_TOKEN_BUDGET,
        choice: Choice | None = None,
        merge_tokens: float = 0.0,
    ) -> None:
        if truncate_dim is not None and not 1 <= truncate_dim <= folder.embedding_size:
            raise CheckpointError(
                f"{folder.path}: truncate_dim {truncate_dim} was asked for; its vectors have {folder.embedding_size} "
                "dimensions. Choose between 1 and that"
            )
        learned, kept = folder.modules.sentence.similarity, truncate_dim or folder.dimension
        if learned is not None and kept < folder.embedding_size:
            raise CheckpointError(
                f"{folder.path}: vectors are to be cut to {kept} dimensions; its {learned.kind} similarity compares all "
                f"{folder.embedding_size}. Leave out truncate_dim"
            )
        self.folder = folder
        self.tokenizer = folder.tokenizer
        self.backend = backend
        self.truncate_dim = truncate_dim
        # What the folder itself cuts off is cut as sentence-transformers does it: what is left keeps its length.
        self._renormalize = truncate_dim is not None and folder.modules.sentence.normalize
        self.token_budget = token_budget
        self.choice = choice
        self.merge_tokens = merge_tokens
        self.sides: Mapping[TextRole, Encoder] = {}  # where queries and documents have modules of their own
        self._computing = Lock()  # calls from several threads share the processor's cores one after another

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: Device = "auto",
        precision: WantedPrecision = "fp32",
        force_precision: bool = False,
        max_seq_length: int | None = None,
        truncate_dim: int | None = None,
        backend: WantedRuntime = "auto",
        interactive: bool = False,
        merge_tokens: float = 0.0,
        recursions: int | None = None,
        measure: bool = True,
    ) -> Encoder:
        """Load a model folder.

        `precision` "auto" takes the fastest that is as good as fp32 (see `embedkit.inference.precision`). `truncate_dim` keeps
        the first dimensions only (Kusupati et al. 2022, Matryoshka representation learning) and normalizes again where the
        model does; None keeps as many as the folder says. `interactive` says that somebody waits for a handful of short texts: what starts fastest computes them,
        in fp32 where the precision is open. `merge_tokens` is the share of a long text's tokens that each layer merges, a
        little quality for speed; see `embedkit.inference.token_merging`. `recursions` runs the layers of a model that recur fewer times
        than it was trained with. Without `measure` no precision is measured here. What was chosen is in `choice`.

        Raises:
            CheckpointError: the folder is not a sentence encoder that we can compute.
            DeviceError: the device, or the precision with this model, or merging, is not available here.
            ValueError: `merge_tokens` is out of range.
        """
        check_share(merge_tokens)
        read = read_model_folder(folder, max_seq_length=max_seq_length, recursions=recursions)

        def load_one(part: ModelFolder) -> Encoder:
            choice = choose(
                part,
                device=device,
                precision=precision,
                force=force_precision,
                backend=backend,
                interactive=interactive,
                merge=merge_tokens > 0,
                measure=measure,
            )
            return cls(
                part,
                load_backend(part, choice, merge_tokens=merge_tokens),
                truncate_dim=truncate_dim,
                token_budget=token_budget(choice),
                choice=choice,
                merge_tokens=merge_tokens,
            )

        if not read.routes:
            return load_one(read)
        sides = {role: load_one(part) for role, part in read.routes.items()}
        encoder = sides[default_role(read.path)]
        encoder.folder, encoder.sides = read, sides
        return encoder

    def of_role(self, role: TextRole | None) -> Encoder:
        """Return what encodes the texts of a role: the encoder itself, unless queries and documents have modules of their own."""
        return self if role is None else self.sides.get(role, self)

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""
        return self.truncate_dim or self.folder.dimension

    @property
    def max_length(self) -> int:
        """The tokens that are read of a text, special ones included."""
        return self.tokenizer.max_length

    @property
    def precision(self) -> Precision:
        """The number format that the model is computed in."""
        return "fp32" if self.choice is None else self.choice.precision

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the vectors of a text, as plain JSON values; see `embedkit.checkpoint.folder.fingerprint`."""
        return fingerprint(self.folder) | {"dimension": self.dimension} | merging_part(self.merge_tokens)

    def prompt(self, name: str | None) -> str:
        """Return the model's prompt of that name; None is the model's default prompt.

        Raises:
            CheckpointError: the model has no such prompt.
        """
        return named_prompt(self.folder.modules, self.folder.path, name)

    def role_prompt(self, role: TextRole) -> str:
        """Return the prompt for queries or for documents, "" where the model has none: never the default one."""
        return role_prompt(self.folder.modules, role)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_truncate: OnTruncate = "warn",
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Float32:
        """Encode texts: -> (N, E) float32, row i for text i; a single string -> (E,), as SentenceTransformer does.

        `prompt`, or the model's prompt called `prompt_name`, is put before each text; without either, the model's default.
        `batch_size` and `show_progress_bar` are taken from code written for SentenceTransformer and change nothing: batches
        are cut by tokens, and nothing is printed. `on_truncate` says what becomes of texts longer
        than the model reads: cut with a logged warning, an error, the mean of the vectors of all pieces, or cut silently.
        A text that has no tokens at all becomes the zero vector, which is logged as a warning.

        Raises:
            TextRefusedError: a text is too long and `on_truncate` is "error".
            TypeError: a text is no string.
        """
        if prompt is not None and prompt_name is not None:
            raise ValueError("prompt and prompt_name are both given; one of them is put before the texts")
        prompt = self.prompt(prompt_name) if prompt_name is not None else prompt
        if isinstance(texts, str):
            one: Float32 = self.encode([texts], prompt=prompt, on_truncate=on_truncate)[0]
            return one
        windows = self.encode_windows(texts, prompt=prompt, on_truncate=on_truncate)
        return self._joined(list(windows), self.dimension, warn=on_truncate == "warn")

    def _joined(self, windows: Sequence[EncodedWindow], width: int, *, warn: bool) -> Float32:
        """Return the vectors of all windows, (N, `width`), and log what was cut or has no tokens."""
        count = sum(len(window.embeddings) for window in windows)
        cut = sum(int(window.truncated.sum()) for window in windows)
        if cut and warn:
            logger.warning(
                "%d of %d texts were cut to the %d tokens that the model reads",
                cut,
                count,
                self.tokenizer.max_length,
            )
        if not windows:
            return np.empty((0, width), dtype=np.float32)
        embeddings = np.concatenate([window.embeddings for window in windows])
        empty = np.concatenate([window.empty for window in windows])
        zeros = int((empty & ~embeddings.any(axis=1)).sum())
        if zeros:
            logger.warning(
                "%d of %d texts have no tokens for this model: their vectors are zeros", zeros, count
            )
        return embeddings

    def encode_queries(self, queries: Sequence[str]) -> Float32:
        """Encode queries with the model's prompt for them: -> (Q, E) float32."""
        return self.as_queries(self.of_role("query").encode(queries, prompt=self.role_prompt("query")))

    def encode_documents(self, documents: Sequence[str] | Sequence[Mapping[str, str | None]]) -> Float32:
        """Encode documents with the model's prompt for them: -> (N, E) float32.

        Those of a model with `fields` are mappings from some of these to texts: -> (N, F·E), compared by `similarity` alone.

        Raises:
            RecordError: a document has none of the fields, or one that the model does not know.
            TypeError: a document is no text; or, with `fields`, no mapping.
        """
        if not self.fields:
            encoder = self.of_role("document")
            return encoder.encode(documents, prompt=self.role_prompt("document"))  # type: ignore[arg-type] # or a TypeError
        windows = self.encode_field_windows(fields_of_mappings(documents, self.fields))
        return self._joined(list(windows), self.width("document"), warn=True)

    def encode_query(self, query: str | Sequence[str]) -> Float32:
        """Encode a query, (E,), or several, (Q, E), with the model's prompt for queries."""
        return self.as_queries(self.of_role("query").encode(query, prompt=self.role_prompt("query")))

    def encode_document(self, document: str | Sequence[str]) -> Float32:
        """Encode a document, (E,), or several, (N, E), with the model's prompt for documents."""
        return self.of_role("document").encode(document, prompt=self.role_prompt("document"))

    def similarity(self, first: Float32, second: Float32) -> Float32:
        """Compare vectors as the model's folder says: (N, E), (M, E) -> (N, M).

        A learned similarity is not symmetric: `first` are queries, as `encode_queries` gives them.
        """
        if self._learned is not None:
            return self._learned.compare(first, second)
        return similarity(first, second, measure=self.folder.modules.similarity)

    def as_queries(self, vectors: Float32) -> Float32:
        """Return the vectors of queries as they are compared with documents', by a product: only a bilinear similarity turns them."""
        return vectors if self._learned is None else self._learned.as_queries(vectors)

    def check_searchable(self, *, by_field: bool = False) -> None:
        """Refuse a model whose similarity no index searches by, or with `by_field` none of documents with fields.

        Raises:
            CheckpointError: it is additive, or that of fields.
        """
        if self._learned is not None:
            self._learned.check_searchable(by_field=by_field)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of documents that the model has experts for; empty where documents are plain texts."""
        return () if self._learned is None else self._learned.fields

    def width(self, role: TextRole | None) -> int:
        """Return the length of the vectors of queries or documents: E, or F·E with `fields`; of plain texts (None) E."""
        return self.dimension * (len(self.fields) if self.fields and role is not None else 1)

    @cached_property
    def _learned(self) -> LearnedComparison | None:
        if self.folder.modules.sentence.similarity is None:
            return None
        return LearnedComparison.load(self.folder)

    def get_sentence_embedding_dimension(self) -> int:
        """Return E, under the name that SentenceTransformer gives it."""
        return self.dimension

    def encode_windows(
        self, texts: Iterable[str], *, prompt: str | None = None, on_truncate: OnTruncate = "warn"
    ) -> Iterator[EncodedWindow]:
        """Encode a stream of texts window by window, in order; a window is tokenized while the one before is computed.

        The vectors depend on the window that a text falls into (by rounding only), and windows are cut by the texts
        alone: the same stream gives the same bits.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
        """
        return self._windows(iter(texts), self.read_prompt(prompt), on_truncate)

    def read_prompt(self, prompt: str | None) -> Prompt:
        """Make tokens of a prompt, which is the first of the steps that `encode_windows` takes; None is the model's default.

        For each window follow `tokenize`, `pooled`, whose sequences may be computed in any company and order, and `finish`.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
        """
        prompt = self.prompt(None) if prompt is None else prompt
        num_tokens = len(self.tokenizer.ids([prompt])[0]) if prompt else 0
        room = self.tokenizer.max_length - self.tokenizer.single.num_special
        if num_tokens >= room:
            raise CheckpointError(
                f"{self.folder.path}: the prompt {prompt[:60]!r} has {num_tokens} tokens; the model reads {room} "
                "besides the special ones. Shorten it"
            )
        skip = 0
        if num_tokens and not self.folder.modules.sentence.pool_prompt:
            skip = len(self.tokenizer.single.prefix) + num_tokens
        return Prompt(prompt, num_tokens, skip)

    def tokenize(
        self, texts: Sequence[str], prompt: Prompt, *, on_truncate: OnTruncate = "warn"
    ) -> TokenizedWindow:
        """Make tokens of one window of texts; several threads may do so at a time.

        Raises:
            TextRefusedError: a text is too long and `on_truncate` is "error".
        """
        return tokenize_window(
            texts,
            self.tokenizer,
            prompt=prompt.text,
            prompt_tokens=prompt.num_tokens,
            on_truncate=on_truncate,
        )

    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        """Compute sequences, in batches of at most `token_budget` tokens: -> (C, E) as the network gives them; see `finish`."""
        with self._computing:
            return self._forward(batch, skip)

    def token_vectors(self, batch: TokenBatch) -> Float32:
        """Compute the vectors of all tokens before pooling, in one pass: -> (N, D)."""
        with self._computing:
            return self.backend.hidden_states(batch)

    def finish(self, embeddings: Float32, window: TokenizedWindow) -> EncodedWindow:
        """Make the vectors of a window's texts from those of its sequences, (C, E): chunks averaged, cut to `dimension`."""
        if len(window.owners) and len(window.owners) > window.owners[-1] + 1:  # more sequences than texts
            embeddings = self._normalized(average_chunks(embeddings, window))
        if self.dimension < self.folder.embedding_size:
            embeddings = np.ascontiguousarray(embeddings[:, : self.dimension])
            embeddings = normalize(embeddings) if self._renormalize else embeddings
        tokens = int(window.batch.lengths.sum())
        return EncodedWindow(embeddings[window.rows], window.truncated, window.empty, window.unknown, tokens)

    def encode_role_windows(
        self, texts: Iterable[str], *, role: TextRole | None, prompt: str | None, on_truncate: OnTruncate
    ) -> Iterator[EncodedWindow]:
        """Encode a stream of texts as queries or documents, with the model's prompt for these and in the form that is compared; without a role
        as `encode_windows`.
        """
        prompt = prompt if role is None else self.role_prompt(role)
        encoder = self.of_role(role)
        for window in encoder.encode_windows(texts, prompt=prompt, on_truncate=on_truncate):
            if role == "query":
                window = replace(window, embeddings=self.as_queries(window.embeddings))
            yield window

    def encode_field_windows(
        self, documents: Iterable[FieldTexts], *, on_truncate: OnTruncate = "warn"
    ) -> Iterator[EncodedWindow]:
        """Encode a stream of documents with `fields`, as `encode_windows` does texts, with the model's prompt for documents."""
        assert self._learned is not None
        encode = partial(self.encode_windows, prompt=self.role_prompt("document"), on_truncate=on_truncate)
        return encode_fields(documents, encode, self._learned.as_documents, size=self.dimension)

    def _windows(
        self, texts: Iterator[str], prompt: Prompt, on_truncate: OnTruncate
    ) -> Iterator[EncodedWindow]:
        tokenize = partial(self.tokenize, prompt=prompt, on_truncate=on_truncate)
        for window in one_ahead(tokenize, cut_windows(texts)):
            yield self.finish(self.pooled(window.batch, skip=prompt.skip), window)

    def _forward(self, batch: TokenBatch, skip: int) -> Float32:
        """Run all sequences, longest first, in batches of at most `token_budget` tokens: -> (C, E); one without tokens is zeros."""
        out = np.zeros((len(batch), self.folder.embedding_size), dtype=np.float32)
        there = np.flatnonzero(batch.lengths)
        for some in padded_batches(batch.lengths[there], self.token_budget):
            rows = there[some]
            out[rows] = self.backend.pooled(batch.take(rows), skip=skip)
        return out

    def _normalized(self, embeddings: Float32) -> Float32:
        """Normalize vectors again where the model does."""
        return normalize(embeddings) if self.folder.modules.sentence.normalize else embeddings
