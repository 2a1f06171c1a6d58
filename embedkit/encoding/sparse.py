"""`SparseEncoder`: text in, weights of the vocabulary's terms out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from embedkit.checkpoint.sparse import SparseFolder, SparseSide, fingerprint, read_sparse_folder
from embedkit.data.fields import FieldTexts
from embedkit.encoding.prompts import named_prompt, role_prompt
from embedkit.encoding.sparse_sides import Side, load_side
from embedkit.encoding.sparse_windows import SparseWindow, describe_terms, term_names
from embedkit.encoding.windows import TokenizedWindow, cut_windows, tokenize_window
from embedkit.errors import CheckpointError
from embedkit.inference.backend import Backend
from embedkit.inference.choice import Choice
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import one_ahead
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Computing, OnTruncate, Precision, TextRole

logger = logging.getLogger(__name__)


def sparse_fingerprint(
    folder: str | Path, like: Mapping[str, Any] | None = None
) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return the fingerprint of a folder's encoder, with as many terms a text as `like`, that of an index, says."""
    read = read_sparse_folder(folder)
    limit = (like or {}).get("max_active_dims", read.max_active_dims)
    return fingerprint(read) | {"max_active_dims": limit}


class SparseEncoder:
    """Turns texts into sparse vectors of one learned sparse model (SPLADE); a dimension is a term of its vocabulary.

    >>> encoder = SparseEncoder.load("path/to/splade")             # doctest: +SKIP
    >>> encoder.describe(encoder.encode_queries(["a red apple"]))   # doctest: +SKIP
    [{'apple': 2.1, 'red': 1.7, 'fruit': 0.8}]
    """

    def __init__(
        self, folder: SparseFolder, sides: Mapping[TextRole, Side], *, max_active_dims: int | None = None
    ) -> None:
        """`max_active_dims` keeps the strongest terms of each text; None: as many as the folder says."""
        if max_active_dims is not None and max_active_dims < 1:
            raise CheckpointError(f"max_active_dims is {max_active_dims}; it must be at least 1")
        self.folder, self.sides = folder, sides
        self.max_active_dims = max_active_dims or folder.max_active_dims

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        computing: Computing | None = None,
        max_seq_length: int | None = None,
        max_active_dims: int | None = None,
        interactive: bool = False,
        measure: bool = True,
    ) -> SparseEncoder:
        """Load a folder of sentence-transformers' `SparseEncoder`; see `embedkit.checkpoint.sparse`.

        `computing` says on which device, in which precision and by which backend; None: fp32, wherever is fastest. `interactive` says that
        somebody waits for a handful of short texts. Without `measure` no precision is measured.

        Raises:
            CheckpointError: the folder is no learned sparse model that we can compute.
            DeviceError: the device, or the precision with this model, is not available here.
        """
        computing = Computing(precision="fp32") if computing is None else computing
        read = read_sparse_folder(folder, max_seq_length=max_seq_length)
        load = partial(load_side, computing=computing, interactive=interactive, measure=measure)
        query, document = read.sides["query"], read.sides["document"]
        loaded = load(document)
        sides: dict[TextRole, Side] = {
            "query": loaded if query is document else load(query),
            "document": loaded,
        }
        return cls(read, sides, max_active_dims=max_active_dims)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def dimension(self) -> int:
        """V, the terms of the vocabulary."""
        return self.folder.dimension

    fields: tuple[str, ...] = ()  # of documents with fields: there are none
    merge_tokens = 0.0

    def width(self, role: TextRole | None) -> int:
        """Return the dimensions of the vectors of queries or documents: V for both."""
        return self.dimension

    def of_role(self, role: TextRole) -> SparseSide:
        """Return what the folder has for the texts of a role."""
        return self.folder.sides[role]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of documents."""
        return self.folder.sides["document"].tokenizer

    def max_length(self, role: TextRole) -> int:
        """The tokens that are read of a query or a document, special ones included."""
        return self.of_role(role).tokenizer.max_length

    @property
    def backend(self) -> Mapping[TextRole, Backend | None]:
        """What computes the texts of each role; None where a table does."""
        return {role: side.backend for role, side in self.sides.items()}

    @property
    def token_budget(self) -> int:
        """The tokens of a batch, padded to its longest sequence, at most."""
        return min(side.token_budget for side in self.sides.values())

    @property
    def choice(self) -> Choice | None:
        """What computes documents; None where a table does."""
        return self.sides["document"].choice

    @property
    def precision(self) -> Precision:
        """The number format that documents are computed in."""
        return "fp32" if self.choice is None else self.choice.precision

    @cached_property
    def fingerprint(self) -> dict[str, Any]:  # Any: whatever JSON holds
        """What decides the vectors of a text, as plain JSON values."""
        return fingerprint(self.folder) | {"max_active_dims": self.max_active_dims}

    def prompt(self, name: str | None) -> str:
        """Return the model's prompt of that name; None is its default prompt."""
        return named_prompt(self.folder.modules, self.folder.path, name)

    def role_prompt(self, role: TextRole) -> str:
        """Return the prompt for queries or for documents, "" where the model has none."""
        return role_prompt(self.folder.modules, role)

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Encode queries with the model's prompt for them: Q rows."""
        return self.encode(texts, "query")

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Encode documents with the model's prompt for them: N rows."""
        return self.encode(texts, "document")

    def encode(
        self, texts: Sequence[str], role: TextRole, *, on_truncate: OnTruncate = "warn"
    ) -> SparseVectors:
        """Encode the texts of a role: row i for text i. What was cut, or has no terms, is counted and logged as a warning.

        Raises:
            TextRefusedError: a text is too long and `on_truncate` is "error".
            TypeError: a text is no string, or `texts` is one.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts is the string {texts[:60]!r}; it must be a sequence of strings")
        windows = list(self.encode_windows(texts, role=role, on_truncate=on_truncate))
        if not windows:
            return SparseVectors.none(self.dimension)
        vectors = SparseVectors.concatenate([window.vectors for window in windows])
        cut = sum(int(window.truncated.sum()) for window in windows)
        limit = self.folder.sides[role].tokenizer.max_length
        if cut and on_truncate == "warn":
            logger.warning(
                "%d of %d texts were cut to the %d tokens that the model reads", cut, len(vectors), limit
            )
        bare = len(vectors) - int(vectors.directed.sum())
        if bare:
            logger.warning(
                "%d of %d texts have no terms for this model: their vectors are zeros", bare, len(vectors)
            )
        return vectors

    def encode_windows(
        self,
        texts: Iterable[str],
        *,
        role: TextRole,
        prompt: str | None = None,
        on_truncate: OnTruncate = "warn",
    ) -> Iterator[SparseWindow]:
        """Encode a stream of texts window by window, in order; `prompt` None is the model's for the role.

        Of a text that is cut into chunks a term has its largest weight, or with "sum" the sum of its weights.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
            TextRefusedError: a text is too long and `on_truncate` is "error".
        """
        prompt = self.role_prompt(role) if prompt is None else prompt
        self._prompt_tokens(prompt, role)  # else refused with the first window only
        tokenize = partial(self.tokenize, role=role, prompt=prompt, on_truncate=on_truncate)
        return self._windows(iter(texts), tokenize, role)

    def _prompt_tokens(self, prompt: str, role: TextRole) -> int:
        tokenizer = self.of_role(role).tokenizer
        num_tokens = len(tokenizer.ids([prompt])[0]) if prompt else 0
        if num_tokens >= tokenizer.max_length - tokenizer.single.num_special:
            raise CheckpointError(
                f"{self.folder.path}: the prompt {prompt[:60]!r} has {num_tokens} tokens, which leaves no room for a text. Shorten it"
            )
        return num_tokens

    def tokenize(
        self,
        texts: Sequence[str],
        role: TextRole,
        *,
        prompt: str | None = None,
        on_truncate: OnTruncate = "ok",
    ) -> TokenizedWindow:
        """Make tokens of texts; the first of three steps, for who computes the texts of several callers together.

        Raises:
            CheckpointError: the prompt leaves no room for a text.
            TextRefusedError: a text is too long and `on_truncate` is "error".
        """
        prompt = self.role_prompt(role) if prompt is None else prompt
        return tokenize_window(
            texts,
            self.of_role(role).tokenizer,
            prompt=prompt,
            prompt_tokens=self._prompt_tokens(prompt, role),
            on_truncate=on_truncate,
        )

    def sequence_vectors(self, batch: TokenBatch, role: TextRole) -> SparseVectors:
        """Compute the vectors of B sequences; the second step."""
        return self.sides[role].weigh(batch)

    def finish(self, computed: SparseVectors, window: TokenizedWindow, role: TextRole) -> SparseWindow:
        """Make of the vectors of a window's sequences those of its texts; the third step."""
        vectors = self.sides[role].of_texts(computed, window.owners)
        if self.max_active_dims is not None:
            vectors = vectors.strongest(self.max_active_dims)
        return SparseWindow(
            vectors.take(window.rows),
            window.truncated,
            window.empty,
            window.unknown,
            int(window.batch.lengths.sum()),
            self.tokenizer,
        )

    def encode_role_windows(
        self, texts: Iterable[str], *, role: TextRole | None, prompt: str | None, on_truncate: OnTruncate
    ) -> Iterator[SparseWindow]:
        """Encode a stream of texts as `encode_windows` does, for a job over files.

        Raises:
            CheckpointError: there is no role; else as `encode_windows`.
        """
        if role is None:
            raise CheckpointError(
                f"{self.folder.path}: a learned sparse model encodes queries and documents each in their way. Say which these are",
                ": --role query or --role document",
            )
        return self.encode_windows(texts, role=role, prompt=prompt, on_truncate=on_truncate)

    def encode_field_windows(
        self, documents: Iterable[FieldTexts], *, on_truncate: OnTruncate
    ) -> Iterator[SparseWindow]:
        raise TypeError(f"{self.folder.path}: a learned sparse model has no experts for fields")

    def _windows(
        self, texts: Iterator[str], tokenize: partial[TokenizedWindow], role: TextRole
    ) -> Iterator[SparseWindow]:
        for window in one_ahead(tokenize, cut_windows(texts)):
            yield self.finish(self.sequence_vectors(window.batch, role), window, role)

    def terms(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens that dimensions stand for, as the vocabulary spells them; of a number without a token "#number"."""
        return term_names(ids, self.tokenizer)

    def describe(self, vectors: SparseVectors) -> list[dict[str, float]]:
        """Return each row as {term: weight}, the largest weight first."""
        return describe_terms(vectors, self.tokenizer)
