"""The collections that evaluation searches: an index that was named, or one in the cache that is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from ..shared import console

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedkit.data.beir import RetrievalSet
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder
    from embedkit.pipelines.collection_cache import CachedCollection
    from indexes import Index

# Passages in one commit of a cached collection: what a stop costs at most.
COMMIT_EVERY = 1024


@dataclass(frozen=True)
class Place:
    """Where collections are searched: in an index that is there, or in the cache."""

    cache: Path
    index: Path | None = None
    device: str | None = None  # as `Index.open` takes it
    quiet: bool = False


def open_collection(place: Place, test: RetrievalSet, embedder: Embedder | None) -> Index:
    """Open a set's collection, encoding what the cache lacks; without `embedder` it is searched by words alone.

    Raises:
        IndexMismatchError: the named index is of another encoder.
    """
    from embedkit.pipelines.collection_cache import CachedCollection
    from indexes import Index

    if place.index is not None:
        opened = Index.open(place.index, device=place.device)
        if embedder is not None:
            opened.check_encoder(embedder.encoder.fingerprint)
        return opened
    assert test.corpus is not None  # the commands ask for it
    depends_on: dict[str, object] = {"searched": "by words alone"}
    if embedder is not None:
        # The precision is no part of a fingerprint, since vectors of two precisions may be compared; but they differ.
        depends_on = {
            "encoder": embedder.encoder.fingerprint,
            "precision": embedder.encoder.precision,
            "metric": _metric(embedder.encoder),
        }
    cached = CachedCollection.of(place.cache, test.name, test.corpus, depends_on)
    if not cached.is_whole():
        if cached.earlier():
            console.note(
                f"{test.corpus}: differs from what was cached as {test.name!r} before; it is read anew"
            )
        _fill(cached, test.corpus, embedder, quiet=place.quiet)
    return Index.open(cached.path, device=place.device)


def _fill(cached: CachedCollection, corpus: Path, embedder: Embedder | None, *, quiet: bool) -> None:
    """Encode a collection into the cache, or go on where an earlier run was stopped."""
    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.embedder import Embedder
    from embedkit.models import lasting_name
    from indexes import Index, Settings, build

    encoder = None if embedder is None else embedder.encoder
    if (cached.path / "index.sqlite").is_file():
        index = Index.open(cached.path, writable=True)
    elif encoder is None:
        index = Index.create(cached.path, Settings(dimension=1))
    else:
        settings = Settings(
            dimension=encoder.dimension, metric=_metric(encoder), fingerprint=encoder.fingerprint
        )
        index = Index.create(cached.path, settings)
    reader = DocumentReader([str(corpus)])
    label = f"{cached.name}: " + ("words" if encoder is None else "encode")
    with index, console.progress_bar(label, quiet=quiet) as bar:
        if encoder is not None:
            index.note_model_path(lasting_name(encoder.folder.path))
        reports = build(
            index,
            reader,
            embed=_one_number if encoder is None else Embedder(encoder, "document"),
            commit_every=COMMIT_EVERY,
            fraction=reader.fraction,
        )
        try:
            for report in reports:
                rate = report.embedded / report.seconds if report.seconds else 0.0
                bar.update(report.fraction, f"{report.embedded:,} documents  {rate:,.0f} documents/s")
        except KeyboardInterrupt:
            console.note(f"interrupted; go on with the same command:\n  {console.command_line()}")
            raise typer.Exit(130) from None
    cached.mark_whole()


def _metric(encoder: Encoder) -> Literal["cosine", "dot"]:
    """Compare vectors as the model's folder says."""
    return "dot" if encoder.folder.modules.similarity == "dot" else "cosine"


def _one_number(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Stand in for an encoder where documents are found by their words: -> (N, 1)."""
    import numpy as np

    return np.ones((len(texts), 1), np.float32)


def known_documents(index: Index, test: RetrievalSet) -> set[str]:
    """Return which of the judged documents the collection holds."""
    from indexes.storage.documents import find_documents

    judged = {doc_id for judgements in test.qrels.values() for doc_id in judgements}
    return set(find_documents(index.database, sorted(judged)))
