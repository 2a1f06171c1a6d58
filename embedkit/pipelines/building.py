"""Making an index of documents or of ready vectors, and bringing one up to date."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from embedkit.data.left_out import LeftOut
from embedkit.data.reading import DocumentReader
from embedkit.data.scope import scope_of
from embedkit.errors import IndexMismatchError, RecordError
from embedkit.pipelines.default_index import make_home, remove_home
from embedkit.pipelines.embedders import USUAL_STORAGE, check_kind, load_embedder, storage_of
from embedkit.pipelines.filling import fill_index
from embedkit.pipelines.models import metric_of, of_index, or_default
from embedkit.pipelines.options import BuildOptions
from embedkit.pipelines.token_models import token_settings
from embedkit.types import Computing
from indexes import (
    BuildReport,
    FileNames,
    Index,
    Settings,
    build_vectors,
    find_vanished,
    is_index,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedkit.pipelines.embedders import AnyEmbedder

HANDFUL = 10  # documents that are deleted without a question
PASSAGE_TOKENS = 256  # or what the model reads, where that is less


class Source(Protocol):
    """Where an index's vectors come from."""

    embedder: AnyEmbedder | None

    @property
    def failed(self) -> list[str]:
        """What could not be read, each with its reason."""
        ...

    @property
    def left_out(self) -> LeftOut:
        """What of the inputs is of no kind that is read."""
        ...

    @property
    def encodings(self) -> Mapping[str, int]:
        """How many files were read in an encoding other than UTF-8, by its name."""
        ...

    def prepare(self, path: Path, options: BuildOptions) -> None:
        """Load what making the index needs, before anything is made.

        Raises:
            ValueError: the options do not fit the model.
        """
        ...

    def settings(self, options: BuildOptions) -> Settings:
        """Return the settings of a new index."""
        ...

    def check(self, index: Index, options: BuildOptions) -> None:
        """Refuse an index that is there and does not fit."""
        ...

    def fill(self, index: Index, options: BuildOptions) -> Iterator[BuildReport]:
        """Bring an index up to date; yields how far that is."""
        ...


class Documents:
    """Documents and the encoder that embeds them: the one that was named, else the index's own, for a new index the default.

    An index keeps the share of tokens that its encoder merges, unless another is asked for, which it refuses.
    """

    def __init__(
        self,
        reader: DocumentReader,
        computing: Computing,
        *,
        model: str | None = None,
        merge_tokens: float | None = None,
    ) -> None:
        self.reader, self.computing = reader, computing
        self.model, self.merge_tokens = model, merge_tokens
        self.embedder: AnyEmbedder | None = None

    @property
    def failed(self) -> list[str]:
        return self.reader.failed

    @property
    def left_out(self) -> LeftOut:
        return self.reader.left_out

    @property
    def encodings(self) -> Mapping[str, int]:
        return self.reader.encodings

    def prepare(self, path: Path, options: BuildOptions) -> None:
        """Load the encoder, and check how texts are to be cut and vectors compared and stored.

        Raises:
            ValueError: passages would be longer than what the model reads, or documents with fields are to be compared otherwise.
            CheckpointError, DeviceError: the model cannot be loaded or computed here.
        """
        if not is_index(path):
            self.settings(options)
            return
        with Index.open(path) as index:
            self._cutting(self._load(index), options)

    def settings(self, options: BuildOptions) -> Settings:
        """Return the settings of a new index; loads the encoder.

        Raises:
            ValueError: passages would be longer than what the model reads.
            CheckpointError, DeviceError: the model cannot be loaded or computed here.
        """
        from embedkit.encoding.token_embedder import TokenEmbedder

        embedder = self._load(None)
        cutting = self._cutting(embedder, options)
        if isinstance(embedder, TokenEmbedder):
            return token_settings(embedder.encoder, options, cutting)
        encoder = embedder.encoder
        kind = encoder.folder.kind
        return Settings(
            dimension=encoder.width("document"),
            metric=options.metric or metric_of(encoder),
            storage=storage_of(kind, options.storage),
            kind=kind,
            fingerprint=encoder.fingerprint,
            cutting=cutting,
            fields=len(encoder.fields),
        )

    def _cutting(self, embedder: AnyEmbedder, options: BuildOptions) -> dict[str, int]:
        return cutting_of(embedder.room, embedder.encoder.fields, options)

    def check(self, index: Index, options: BuildOptions) -> None:
        """Refuse an index of another model, or one whose texts are cut otherwise; loads the encoder.

        Raises:
            IndexMismatchError: the index does not fit.
            ValueError, CheckpointError, DeviceError: as `settings`.
        """
        embedder = self._load(index)
        index.check_encoder(embedder.encoder.fingerprint)
        usual, here = BuildOptions().chunk_overlap, index.settings.cutting
        if options.chunk_tokens is None and options.chunk_overlap != usual and here:
            options = replace(options, chunk_tokens=here["chunk_tokens"])
        if options.chunk_tokens is not None:
            index.settings.check_cutting(self._cutting(embedder, options), str(index.path))

    def fill(self, index: Index, options: BuildOptions) -> Iterator[BuildReport]:
        from embedkit.models import lasting_name

        embedder = self._load(index)
        encoder = embedder.encoder
        index.note_model_path(lasting_name(encoder.folder.path))
        self.reader.name_of = FileNames(index)
        return fill_index(
            index,
            self.reader,
            encoder,
            embedder,
            tokenizer=embedder.tokenizer,
            commit_every=options.commit_every,
            fraction=self.reader.fraction,
        )

    def _load(self, index: Index | None) -> AnyEmbedder:
        if self.embedder is None:
            from embedkit.inference.token_merging import merging_of

            model = or_default(self.model) if index is None else of_index(index, self.model)
            share = 0.0 if index is None else merging_of(index.settings.fingerprint)
            share = share if self.merge_tokens is None else self.merge_tokens
            if index is not None:
                check_kind(index, model)
            limit = None if index is None else (index.settings.fingerprint or {}).get("max_active_dims")
            self.embedder = load_embedder(
                model, self.computing, "document", merge_tokens=share, max_active_dims=limit
            )
        return self.embedder


class ReadyVectors:
    """Vectors that were made elsewhere, with their ids."""

    embedder: AnyEmbedder | None = None

    def __init__(self, vectors: Path, ids: Path) -> None:
        self.vectors, self.ids = vectors, ids
        self.failed: list[str] = []
        self.left_out = LeftOut()
        self.encodings: dict[str, int] = {}

    def prepare(self, path: Path, options: BuildOptions) -> None:
        """Check how vectors are to be compared and stored.

        Raises:
            ValueError: not so.
        """
        if not is_index(path):
            self.settings(options)

    @cached_property
    def _opened(self) -> npt.NDArray[np.floating]:
        from embedkit.data.vectors import open_vectors

        return open_vectors(self.vectors)

    def settings(self, options: BuildOptions) -> Settings:
        """Return the settings of a new index.

        Raises:
            RecordError: the file cannot be read.
        """
        return Settings(
            dimension=self._opened.shape[1],
            metric=options.metric or "cosine",
            storage=options.storage or USUAL_STORAGE,
        )

    def check(self, index: Index, options: BuildOptions) -> None:
        """Refuse an index whose vectors a model made.

        Raises:
            IndexMismatchError: a model made them.
        """
        index.check_encoder(None)

    def fill(self, index: Index, options: BuildOptions) -> Iterator[BuildReport]:
        from embedkit.data.vectors import read_ids

        return build_vectors(index, read_ids(self.ids), self._opened)


def find_gone(index: Index, source: Source) -> list[int]:
    """Return the keys of documents of these inputs that are no longer in them; to be called after `fill` has ended.

    Raises:
        RecordError: something of the inputs could not be read, so that what is missing may be there.
    """
    if not isinstance(source, Documents):
        return []
    failed = source.reader.failed
    if failed:
        raise RecordError(
            f"{failed[0]}. With --sync everything must be readable: {len(failed):,} could not be read, and nothing was deleted"
        )
    return find_vanished(index, scope_of(source.reader.inputs))


def count_gone(index: Index, source: Source) -> int:
    """Count the documents of the folders and patterns among the inputs that are no longer in them, and stay without --sync.

    Where something could not be read, what is missing may be there: 0.
    """
    if not isinstance(source, Documents) or source.reader.failed:
        return 0
    walked = [name for name in source.reader.inputs if Path(name).is_dir() or glob.has_magic(name)]
    return len(find_vanished(index, scope_of(walked))) if walked else 0


def needs_consent(count: int, total: int) -> bool:
    """Say whether deleting so many of all documents is worth a question: more than a tenth of them, and more than a handful."""
    return count > max(HANDFUL, total // 10)


@contextmanager
def building(path: Path, source: Source, options: BuildOptions) -> Iterator[Index]:
    """Open or create an index as `open_index` does; one that was created and got no document goes again.

    Raises:
        As `open_index`.
    """
    created, empty = not is_index(path), False
    try:
        with open_index(path, source, options) as index:
            try:
                yield index
            finally:
                empty = created and index.count_documents() == 0
    finally:
        if empty:
            shutil.rmtree(path, ignore_errors=True)
            remove_home(path)


def open_index(path: Path, source: Source, options: BuildOptions) -> Index:
    """Open an index to bring it up to date, or create it.

    Raises:
        IndexMismatchError: the index is of another model, or cannot take an option any more.
        ValueError: passages would be longer than what the model reads.
    """
    if not is_index(path):
        settings = source.settings(options)
        make_home(path)
        return Index.create(path, settings)
    index = Index.open(path, writable=True)
    try:
        _check_settings(index, options)
        source.check(index, options)
    except BaseException:
        index.close()
        raise
    return index


def _check_settings(index: Index, options: BuildOptions) -> None:
    """Refuse options that an index which is there cannot take any more."""
    usual = BuildOptions()
    for name in ("storage", "metric"):
        wanted, here = getattr(options, name), getattr(index.settings, name)
        if wanted not in (getattr(usual, name), here):
            raise IndexMismatchError(
                f"{index.path}: its {name} is {here}, and --{name} {wanted} was asked for. Build a new index"
            )


def cutting_of(room: int, fields: Sequence[str], options: BuildOptions) -> dict[str, int]:
    """Say how texts are cut of which a model reads `room` tokens; {} where they are not.

    Raises:
        ValueError: passages would be longer than what the model reads, or share more than half of their tokens.
    """
    if options.chunk_tokens == 0 or (fields and "text" not in fields):
        return {}
    if options.chunk_tokens is not None and options.chunk_tokens > room:
        raise ValueError(
            f"--chunk-tokens is {options.chunk_tokens}; the model reads {room} and its special tokens"
        )
    size = min(PASSAGE_TOKENS, room) if options.chunk_tokens is None else options.chunk_tokens
    overlap = options.chunk_overlap
    if overlap > size // 2 and overlap != BuildOptions.chunk_overlap:
        raise ValueError(
            f"--chunk-overlap is {overlap}; it must be at most half of a passage, {size // 2} of {size} tokens"
        )
    return {"chunk_tokens": size, "chunk_overlap": min(overlap, size // 2)}
