"""`Encoder`: text in, sentence vectors out, whatever the model and the backend."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.folder import ModelFolder, fingerprint, read_model_folder
from embedkit.errors import CheckpointError, RecordError
from embedkit.inference.backend import Backend
from embedkit.inference.choice import CPU_TOKEN_BUDGET, Choice, token_budget
from embedkit.inference.loading import choose, load_backend
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.inference.token_merging import merging_part
from embedkit.native.merging import check_share
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Device, Float32, OnTruncate, Precision, WantedPrecision, WantedRuntime

logger = logging.getLogger(__name__)


# Texts sorted by length together. Larger windows have more neighbours of equal length; 4,096 gets nearly all of the
# gain (benchmarks/encode.py) in a few megabytes.
WINDOW_TEXTS = 4096
# A window of long documents ends earlier: at most this many characters (and one text more) wait in memory.
WINDOW_CHARS = 2**23


class TextRefusedError(RecordError):
    """A text cannot be encoded as it was asked for; `row` is its number within its window."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class EncodedWindow:
    """The vectors of some consecutive texts, and what there is to say about them.

    Shapes:
        embeddings: (N, E) float32; truncated, empty: (N,) bool; num_tokens counts what the model has read
    """

    embeddings: Float32
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    num_tokens: int


@dataclass(frozen=True)
class _Tokenized:
    """A window's distinct texts as tokens; `rows` (N,) leads from each text to its distinct one."""

    batch: TokenBatch
    owners: NDArray[
        np.int64
    ]  # (C,) the distinct text of each sequence: several where one was cut into chunks
    rows: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]


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
        self.folder = folder
        self.tokenizer = folder.tokenizer
        self.backend = backend
        self.truncate_dim = truncate_dim
        self.token_budget = token_budget
        self.choice = choice
        self.merge_tokens = merge_tokens
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
        few: bool = False,
        merge_tokens: float = 0.0,
    ) -> Encoder:
        """Load a model folder.

        `precision` "auto" takes the fastest that is as good as fp32 (see `embedkit.inference.precision`). `truncate_dim` keeps
        the first dimensions only (Kusupati et al. 2022, Matryoshka representation learning) and normalizes again where the
        model does. `few` says that a handful of short texts will come: what starts fastest computes them, in fp32 where the
        precision is open. What was chosen stands in `choice`. `merge_tokens` is the share of a long text's tokens that each
        layer merges, a little quality for speed; see `embedkit.inference.token_merging`.

        Raises:
            CheckpointError: the folder is not a sentence encoder that we can compute.
            DeviceError: the device, or the precision with this model, or merging, is not to be had here.
            ValueError: `merge_tokens` is out of range.
        """
        check_share(merge_tokens)
        read = read_model_folder(folder, max_seq_length=max_seq_length)
        choice = choose(
            read,
            device=device,
            precision=precision,
            force=force_precision,
            backend=backend,
            few=few,
            merge=merge_tokens > 0,
        )
        return cls(
            read,
            load_backend(read, choice, merge_tokens=merge_tokens),
            truncate_dim=truncate_dim,
            token_budget=token_budget(choice),
            choice=choice,
            merge_tokens=merge_tokens,
        )

    @property
    def dimension(self) -> int:
        """E, the length of a vector."""
        return self.truncate_dim or self.folder.embedding_size

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
        prompts = self.folder.modules.prompts
        name = name if name is not None else self.folder.modules.default_prompt_name
        if name is None:
            return ""
        if name not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise CheckpointError(
                f"{self.folder.path}: no prompt named {name!r}; it has: {known}. Give the text itself"
            )
        return prompts[name]

    def role_prompt(self, role: Literal["query", "document"]) -> str:
        """Return the prompt for queries or for documents, "" where the model has none: never the default one.

        Names are tried as sentence-transformers says it does. (In its release 6.2 an empty "document" of its own hides
        "passage" and "corpus"; we take them, as their models mean it.)
        """
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        found = next((name for name in names if name in self.folder.modules.prompts), None)
        return "" if found is None else self.prompt(found)

    def encode(
        self, texts: Sequence[str], *, prompt: str | None = None, on_truncate: OnTruncate = "warn"
    ) -> Float32:
        """Encode texts: -> (N, E) float32, row i for text i.

        `prompt` is put before each text; None takes the model's default. `on_truncate` says what becomes of texts longer
        than the model reads: cut with a logged warning, an error, the mean of the vectors of all pieces, or cut silently.

        Raises:
            TextRefusedError: a text has no tokens at all, or is too long and `on_truncate` is "error".
        """
        if isinstance(texts, str):
            raise TypeError("texts is one string; it must be a sequence of strings")
        windows = list(self.encode_windows(texts, prompt=prompt, on_truncate=on_truncate))
        cut = sum(int(window.truncated.sum()) for window in windows)
        if cut and on_truncate == "warn":
            logger.warning(
                "%d of %d texts were cut to the %d tokens that the model reads",
                cut,
                len(texts),
                self.tokenizer.max_length,
            )
        if not windows:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.concatenate([window.embeddings for window in windows])

    def encode_queries(self, queries: Sequence[str]) -> Float32:
        """Encode queries with the model's prompt for them: -> (Q, E) float32."""
        return self.encode(queries, prompt=self.role_prompt("query"))

    def encode_documents(self, documents: Sequence[str]) -> Float32:
        """Encode documents with the model's prompt for them: -> (N, E) float32."""
        return self.encode(documents, prompt=self.role_prompt("document"))

    def encode_windows(
        self, texts: Iterable[str], *, prompt: str | None = None, on_truncate: OnTruncate = "warn"
    ) -> Iterator[EncodedWindow]:
        """Encode a stream of texts window by window, in order; a window is tokenized while the one before is computed.

        The vectors depend on the window that a text falls into (by rounding only), and windows are cut by the texts
        alone: the same stream gives the same bits.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
        """
        prompt = self.prompt(None) if prompt is None else prompt
        prompt_tokens = len(self.tokenizer.ids([prompt])[0]) if prompt else 0
        room = self.tokenizer.max_length - self.tokenizer.single.num_special
        if prompt_tokens >= room:
            raise CheckpointError(
                f"{self.folder.path}: the prompt {prompt[:60]!r} has {prompt_tokens} tokens; the model reads {room} "
                "besides the special ones. Shorten it"
            )
        return self._windows(iter(texts), prompt, prompt_tokens, on_truncate)

    def _windows(
        self, texts: Iterator[str], prompt: str, prompt_tokens: int, on_truncate: OnTruncate
    ) -> Iterator[EncodedWindow]:
        skip = 0
        if prompt_tokens and not self.folder.modules.sentence.pool_prompt:
            skip = len(self.tokenizer.single.prefix) + prompt_tokens
        repeat = prompt_tokens if on_truncate == "chunk" else 0
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize") as thread:
            waiting: Future[_Tokenized] | None = None
            while True:
                window = _next_window(texts)
                following = (
                    thread.submit(self._tokenize, window, prompt, repeat, on_truncate) if window else None
                )
                if waiting is not None:
                    yield self._compute(waiting.result(), skip)
                if following is None:
                    return
                waiting = following

    def _tokenize(self, texts: list[str], prompt: str, repeat: int, on_truncate: OnTruncate) -> _Tokenized:
        number: dict[str, int] = {}  # equal texts are encoded once
        rows = np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)
        distinct = [prompt + text for text in number] if prompt else list(number)
        if on_truncate == "chunk":
            batch, owners = self.tokenizer.encode_chunks(distinct, repeat=repeat)
            truncated = np.zeros(len(distinct), dtype=np.bool_)
        else:
            batch = self.tokenizer.encode(distinct)
            owners = np.arange(len(distinct))
            truncated = batch.truncated
        if on_truncate == "error" and truncated.any():
            first = int(np.flatnonzero(truncated[rows])[0])
            assert batch.untruncated_lengths is not None
            raise TextRefusedError(
                f"the text {texts[first][:60]!r} has {batch.untruncated_lengths[rows[first]]:,} tokens; the model "
                f"reads {self.tokenizer.max_length:,}. Cut it, or pass --on-truncate chunk|warn|ok",
                first,
            )
        if int(batch.lengths.min()) == 0:
            first = int(np.flatnonzero(rows == owners[int(batch.lengths.argmin())])[0])
            raise TextRefusedError(
                f"the text {texts[first][:60]!r} has no tokens, and this model adds none of its own; "
                "there must be one at least. Remove it",
                first,
            )
        empty = np.array([not text or text.isspace() for text in number], dtype=np.bool_)
        return _Tokenized(batch, owners, rows, truncated[rows], empty[rows])

    def _compute(self, window: _Tokenized, skip: int) -> EncodedWindow:
        with self._computing:
            embeddings = self._forward(window.batch, skip)
        if len(window.owners) > window.owners[-1] + 1:  # more sequences than texts
            embeddings = self._merge_chunks(embeddings, window)
        embeddings = self._cut_dimensions(embeddings)
        tokens = int(window.batch.lengths.sum())
        return EncodedWindow(embeddings[window.rows], window.truncated, window.empty, tokens)

    def _forward(self, batch: TokenBatch, skip: int) -> Float32:
        """Run all sequences, longest first, in batches of at most `token_budget` tokens: -> (C, E)."""
        order = np.argsort(-batch.lengths, kind="stable")
        lengths = batch.lengths[order]
        out = np.empty((len(order), self.folder.embedding_size), dtype=np.float32)
        start = 0
        while start < len(order):
            # No sequence that follows is longer than the first: this many fit for certain.
            stop = start + max(1, self.token_budget // int(lengths[start]))
            rows = order[start:stop]
            out[rows] = self.backend.forward(batch.take(rows), skip=skip)
            start = stop
        return out

    def _merge_chunks(self, embeddings: Float32, window: _Tokenized) -> Float32:
        """Average the vectors of each text's pieces, weighted by their tokens: (C, E) -> (B, E)."""
        weights = window.batch.lengths.astype(np.float32)[:, None]
        starts = np.flatnonzero(np.diff(window.owners, prepend=-1))
        summed = np.add.reduceat(embeddings * weights, starts, axis=0)
        merged: Float32 = (summed / np.add.reduceat(weights, starts, axis=0)).astype(np.float32)
        return normalize(merged) if self.folder.modules.sentence.normalize else merged

    def _cut_dimensions(self, embeddings: Float32) -> Float32:
        if self.truncate_dim is None:
            return embeddings
        cut = np.ascontiguousarray(embeddings[:, : self.truncate_dim])
        return normalize(cut) if self.folder.modules.sentence.normalize else cut


def _next_window(texts: Iterator[str]) -> list[str]:
    """Take the next texts: as many as a window holds, by count and by characters."""
    window: list[str] = []
    chars = 0
    for text in texts:
        window.append(text)
        chars += len(text)
        if len(window) == WINDOW_TEXTS or chars >= WINDOW_CHARS:
            break
    return window
