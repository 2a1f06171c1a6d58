"""`MultiVectorEncoder`: text in, a vector for each of its tokens out, for late interaction (ColBERT)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.folder import check_one_model, fingerprint
from embedkit.checkpoint.multi_vector import MultiVectorFolder, load_layers, read_multi_vector_folder
from embedkit.checkpoint.multi_vector_modules import MultiVectorModules, TokenPooling
from embedkit.data.fields import FieldTexts
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.token_pooling import pool_tokens
from embedkit.encoding.windows import TokenizedWindow, TokenWindow, cut_windows, tokenize_window
from embedkit.errors import CheckpointError, DeviceError
from embedkit.inference.backend import Backend
from embedkit.inference.choice import CPU_TOKEN_BUDGET, GRAPH_PRECISIONS, Choice, token_budget
from embedkit.inference.loading import choose, load_backend
from embedkit.inference.numpy_runtime.sentence_head import SentenceHead
from embedkit.model.config import SentenceConfig
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import one_ahead, padded_batches
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Computing, OnTruncate, Precision, TextRole

Bools = NDArray[np.bool_]


class MultiVectorEncoder:
    """Turns texts into the vectors of their tokens, all of unit length: what MaxSim compares.

    >>> encoder = MultiVectorEncoder.load("path/to/colbert")          # doctest: +SKIP
    >>> encoder.encode_documents(["A girl is styling her hair."]).vectors.shape  # doctest: +SKIP
    (9, 128)

    Source: Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832.
    """

    fields: tuple[str, ...] = ()  # of documents with fields: there are none

    def __init__(
        self,
        folder: MultiVectorFolder,
        backend: Backend,
        *,
        own_tokens: bool = False,
        token_budget: int = CPU_TOKEN_BUDGET,
        choice: Choice | None = None,
        pooling: TokenPooling | None = None,
    ) -> None:
        """With `own_tokens` special tokens and those of prompts get no vectors. `pooling` None pools as the folder says."""
        self.folder = folder
        self.backend = backend
        self.choice = choice
        self.token_budget = token_budget
        self.pooling = pooling or folder.modules.pooling
        self._own_tokens = own_tokens
        layers = [] if own_tokens else load_layers(folder)
        self._head = SentenceHead(SentenceConfig(dense=folder.modules.layers, normalize=True), layers)
        self._computing = Lock()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        computing: Computing | None = None,
        max_seq_length: int | None = None,
        interactive: bool = False,
        token_pooling: float | None = None,
        measure: bool = True,
    ) -> Self:
        """Load a multi-vector folder.

        `computing` says on which device, in which precision and by which backend; None: fp32, wherever is fastest. `interactive` says that
        somebody waits for a handful of short texts. Without `measure` no precision is measured. `token_pooling` is the factor by which documents get fewer vectors; None: as the folder says.

        Raises:
            CheckpointError: the folder is not a multi-vector model that we can compute.
            DeviceError: the device, or the precision with this model, is not available here.
            ValueError: `token_pooling` is below 1.
        """
        if token_pooling is not None and token_pooling < 1:
            raise ValueError(f"token_pooling is {token_pooling:g}; it must be at least 1")
        computing = Computing(precision="fp32") if computing is None else computing
        read = read_multi_vector_folder(folder, max_seq_length=max_seq_length)
        choice = choose(
            read.encoder,
            output="hidden_states",
            device=computing.device,
            precision=computing.precision,
            force=computing.force_precision,
            backend=computing.backend,
            interactive=interactive,
            measure=measure,
        )
        _check_expansion(read, choice)
        return cls(
            read,
            load_backend(read.encoder, choice),
            token_budget=token_budget(choice),
            choice=choice,
            pooling=None if token_pooling is None else TokenPooling(factor=token_pooling),
        )

    @classmethod
    def of_dense(cls, encoder: Encoder) -> Self:
        """Compare by the token vectors of a loaded dense model, as its encoder gives them: special tokens and prompts stand aside.

        Raises:
            CheckpointError: it is a static model, whose tokens have no vectors in context, or has two encoders.
        """
        folder = encoder.folder
        check_one_model(folder, "maxsim")
        if folder.static:
            raise CheckpointError(
                f"{folder.path}: a static model gives its tokens no vectors in context, which maxsim compares. "
                "Use a transformer model"
            )
        prompts = {role: encoder.role_prompt(role) for role in ("query", "document")}
        modules = MultiVectorModules(encoder_folder=folder.modules.encoder_folder, prompts=prompts)
        made = MultiVectorFolder(path=folder.path, encoder=folder, modules=modules)
        return cls(
            made,
            encoder.backend,
            own_tokens=True,
            token_budget=encoder.token_budget,
            choice=encoder.choice,
        )

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dimension(self) -> int:
        """E, the length of a token's vector."""
        return self.folder.dimension

    @property
    def precision(self) -> Precision:
        """The number format that the model is computed in."""
        return "fp32" if self.choice is None else self.choice.precision

    @property
    def document_pooling(self) -> float:
        """The factor by which documents get fewer vectors; 1 for none."""
        pooling = self.pooling
        return 1.0 if pooling is None or "document" not in pooling.roles else pooling.factor

    @cached_property
    def fingerprint(self) -> dict[str, Any]:  # Any: JSON values
        """What decides the token vectors of a text, as plain JSON values."""
        if self._own_tokens:
            return fingerprint(self.folder.encoder) | {"kind": "multi-vector", "dimension": self.dimension}
        own = self.folder.fingerprint
        if self.pooling is not None:
            roles = list(self.pooling.roles)
            own["token_pooling"] = {
                "factor": self.pooling.factor,
                "protected": self.pooling.protected,
                "roles": roles,
            }
        return own

    def max_length(self, role: TextRole) -> int:
        """The tokens that are read of a query or a document, special ones and markers included."""
        return self.tokenizer(role).max_length

    def tokenizer(self, role: TextRole) -> Tokenizer:
        return self.folder.encoder.tokenizer if self._own_tokens else self.folder.tokenizer(role)

    def encode_queries(self, texts: Sequence[str]) -> TokenVectors:
        """Encode queries with their marker, filled up where the model does so."""
        return self._joined(texts, "query")

    def encode_documents(self, texts: Sequence[str]) -> TokenVectors:
        """Encode documents with their marker, without the tokens of the model's skiplist."""
        return self._joined(texts, "document")

    def _joined(self, texts: Sequence[str], role: TextRole) -> TokenVectors:
        parts = [window.vectors for window in self.encode_windows(texts, role=role, on_truncate="ok")]
        nothing = TokenVectors(np.empty((0, self.dimension), np.float32), np.empty(0, np.int64))
        return TokenVectors.concatenate(parts or [nothing])

    def encode_role_windows(
        self, texts: Iterable[str], *, role: TextRole | None, prompt: str | None, on_truncate: OnTruncate
    ) -> Iterator[TokenWindow]:
        """Encode a stream of texts as `encode_windows` does, for a job over files.

        Raises:
            CheckpointError: there is no role, or a prompt besides the model's own; else as `encode_windows`.
        """
        if role is None or prompt is not None:
            raise CheckpointError(
                f"{self.folder.path}: a multi-vector model encodes queries and documents in ways of their own, with its own prompts. "
                "Say which these are",
                ": --role query or --role document",
            )
        return self.encode_windows(texts, role=role, on_truncate=on_truncate)

    def encode_field_windows(
        self, documents: Iterable[FieldTexts], *, on_truncate: OnTruncate
    ) -> Iterator[TokenWindow]:
        raise TypeError(f"{self.folder.path}: a multi-vector model has no experts for fields")

    def width(self, role: TextRole | None) -> int:
        """Return E."""
        return self.dimension

    def encode_windows(
        self, texts: Iterable[str], *, role: TextRole, on_truncate: OnTruncate = "warn"
    ) -> Iterator[TokenWindow]:
        """Encode a stream of texts window by window, in order; a window is tokenized while the one before is computed.

        With "chunk" a text that is too long has the vectors of all its pieces.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
            TextRefusedError (while iterating): a text is too long and `on_truncate` is "error".
            TypeError (while iterating): a text is no string.
            ValueError: pieces of queries, which are filled up.
        """
        if on_truncate == "chunk" and role == "query" and self.folder.modules.expansion is not None:
            raise ValueError(
                "queries that are filled up are not cut into pieces; on_truncate must be another"
            )
        self._prompt_tokens(role)  # else refused with the first window only
        return self._windows(iter(texts), role, on_truncate)

    def _windows(
        self, texts: Iterator[str], role: TextRole, on_truncate: OnTruncate
    ) -> Iterator[TokenWindow]:
        tokenize = partial(self.tokenize, role=role, on_truncate=on_truncate)
        for window in one_ahead(tokenize, cut_windows(texts)):
            yield self.finish(self.sequence_vectors(window.batch, role), window, role)

    def _prompt_tokens(self, role: TextRole) -> int:
        tokenizer, prompt = self.tokenizer(role), self.folder.modules.prompt(role)
        num_tokens = len(tokenizer.ids([prompt])[0]) if prompt else 0
        room = tokenizer.max_length - tokenizer.single.num_special
        if num_tokens >= room:
            raise CheckpointError(
                f"{self.folder.path}: the prompt {prompt[:60]!r} has {num_tokens} tokens; the model reads {room} of a {role} "
                "besides the special ones. Shorten it"
            )
        return num_tokens

    def tokenize(
        self, texts: Sequence[str], role: TextRole, *, on_truncate: OnTruncate = "ok"
    ) -> TokenizedWindow:
        """Make tokens of texts, queries filled up; the first of three steps, for who computes the texts of several callers together.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
            TextRefusedError: a text is too long and `on_truncate` is "error".
        """
        window = tokenize_window(
            texts,
            self.tokenizer(role),
            prompt=self.folder.modules.prompt(role),
            prompt_tokens=self._prompt_tokens(role),
            on_truncate=on_truncate,
        )
        return replace(window, batch=self.folder.filled_up(window.batch)) if role == "query" else window

    def sequence_vectors(self, batch: TokenBatch, role: TextRole) -> TokenVectors:
        """Compute the vectors of B sequences, of those tokens that have any; the second step."""
        keep = self.scored(batch, role)
        with self._computing:
            return self._token_vectors(batch, keep)

    def finish(self, computed: TokenVectors, window: TokenizedWindow, role: TextRole) -> TokenWindow:
        """Make of the vectors of a window's sequences those of its texts; the third step."""
        starts = window.starts
        counts = np.add.reduceat(computed.counts, starts) if len(starts) else computed.counts
        whole = TokenVectors(computed.vectors, counts.astype(np.int64))
        pooling = self.pooling
        if pooling is not None and role in pooling.roles:
            whole = pool_tokens(whole, factor=pooling.factor, protected=pooling.protected)
        tokens = int(window.batch.lengths.sum())
        return TokenWindow(whole.take(window.rows), window.truncated, window.empty, window.unknown, tokens)

    def scored(self, batch: TokenBatch, role: TextRole) -> Bools:
        """Say which tokens of a batch get a vector: (N,)."""
        if self._own_tokens:
            template = self.folder.encoder.tokenizer.single
            lengths = batch.lengths
            position = np.arange(len(batch.input_ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            before = len(template.prefix) + self._prompt_tokens(role)
            return (position >= before) & (position < np.repeat(lengths - len(template.suffix), lengths))
        return self.folder.counted(batch, role)

    def _token_vectors(self, batch: TokenBatch, keep: Bools) -> TokenVectors:
        """Compute the vectors of those tokens of B sequences that are kept, longest sequences first."""
        ends = np.cumsum(batch.lengths)
        before = np.concatenate(([0], np.cumsum(keep)))
        starts = before[ends - batch.lengths]
        counts = before[ends] - starts
        out = np.empty((int(counts.sum()), self.dimension), dtype=np.float32)
        whole = TokenBatch(
            np.flatnonzero(keep), counts
        )  # the numbers of the tokens that are kept, by sequences
        places = TokenBatch(np.arange(len(out)), counts)
        there = np.flatnonzero(batch.lengths)
        for some in padded_batches(batch.lengths[there], self.token_budget):
            rows = there[some]
            part = batch.take(rows)
            offsets = np.cumsum(part.lengths) - part.lengths
            tokens = whole.take(rows)
            shift = np.repeat(offsets - (ends - batch.lengths)[rows], tokens.lengths)
            hidden = self.backend.hidden_states(part)[tokens.input_ids + shift]
            out[places.take(rows).input_ids] = self._head.project(hidden)
        return TokenVectors(out, counts)


def _check_expansion(folder: MultiVectorFolder, choice: Choice) -> None:
    """Refuse what cannot leave the tokens that fill up unattended, where the model wants that."""
    expansion = folder.modules.expansion
    if expansion is None or expansion.attend:
        return
    if reason := folder.encoder.config.why_no_keys:
        raise CheckpointError(
            f"{folder.path}: queries are filled up with tokens that no other attends to, which is not computed with {reason}. "
            "Choose a model whose query_expansion has attend true, or none"
        )
    if choice.runtime in GRAPH_PRECISIONS:
        raise DeviceError(
            f"the {choice.runtime} backend attends to all tokens, and this model fills queries up with tokens that no other attends to. "
            "Leave the choice to --backend auto"
        )
