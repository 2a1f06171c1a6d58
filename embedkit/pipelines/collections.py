"""The collections that evaluation searches: an index that was named, or one in the cache that is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.data.beir import RetrievalSet
from embedkit.data.reading import DocumentReader
from embedkit.data.records import Document
from embedkit.models import lasting_name
from embedkit.pipelines.collection_cache import CachedCollection
from embedkit.pipelines.embedders import embedder_of, storage_of
from embedkit.pipelines.models import metric_of
from embedkit.pipelines.options import BuildOptions
from embedkit.pipelines.token_models import token_settings
from indexes import (
    BuildReport,
    GatherOptions,
    Index,
    Searchable,
    Settings,
    build,
    build_ann,
    is_index,
    open_index,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedkit.pipelines.embedders import AnyEmbedder
    from indexes.sharded.options import Connect

# Passages per commit of a cached collection: what a stop costs at most.
COMMIT_EVERY = 1024


@dataclass(frozen=True)
class CollectionPlace:
    """Where collections are searched: in an index that is there, or in the cache; `connect` opens shards that servers hold."""

    cache: Path
    index: Path | None = None
    device: str | None = None  # as `Index.open` takes it
    connect: Connect | None = None

    def open_named(self) -> Searchable:
        """Open the index that was named, all shards of it: what is measured is all of a collection."""
        assert self.index is not None
        gathering = GatherOptions(require_all=True, seconds=None, connect=self.connect)
        return open_index(self.index, device=self.device, gathering=gathering)


def cached_collection(
    place: CollectionPlace, test: RetrievalSet, embedder: AnyEmbedder | None
) -> CachedCollection | None:
    """Return where a set's collection is cached; None where an index was named."""
    if place.index is not None:
        return None
    from embedkit.encoding.token_embedder import TokenEmbedder

    assert test.corpus is not None  # whoever names no index names a corpus
    depends_on: dict[str, object] = {"searched": "by words alone"}
    if embedder is not None:
        # The precision is no part of a fingerprint, since vectors of two precisions may be compared; but they differ.
        depends_on = {
            "encoder": embedder.encoder.fingerprint,
            "precision": embedder.encoder.precision,
            "metric": "maxsim of 4-bit tokens"
            if isinstance(embedder, TokenEmbedder)
            else metric_of(embedder.encoder),
        }
    return CachedCollection.of(place.cache, test.name, corpus=test.corpus, encoder=depends_on)


def open_collection(
    place: CollectionPlace, cached: CachedCollection | None, embedder: AnyEmbedder | None
) -> Searchable:
    """Open the index that was named, or a collection that is whole in the cache; without `embedder` for words alone.

    Raises:
        IndexMismatchError: the named index is of another encoder.
    """
    if cached is not None:
        return Index.open(cached.path, device=place.device)
    opened = place.open_named()
    try:
        if embedder is not None:
            opened.check_encoder(embedder.encoder.fingerprint)
    except BaseException:
        opened.close()
        raise
    return opened


def fill_collection(
    cached: CachedCollection, corpus: Path, embedder: AnyEmbedder | None
) -> Iterator[BuildReport]:
    """Encode a collection into the cache, or go on where an earlier run was stopped."""
    reader = DocumentReader([str(corpus)])
    encoder = None if embedder is None else embedder.encoder
    embed = _one_number if encoder is None else embedder_of(encoder, "document")
    with _open_for_filling(cached.path, embedder) as index:
        yield from build(index, reader, embed=embed, commit_every=COMMIT_EVERY, fraction=reader.fraction)
    cached.mark_whole()


def _open_for_filling(path: Path, embedder: AnyEmbedder | None) -> Index:
    if is_index(path):
        return Index.open(path, writable=True)
    if embedder is None:
        return Index.create(path, Settings(dimension=1))
    index = Index.create(path, _settings(embedder))
    if index.settings.kind == "multi-vector":
        for _ in build_ann(index, "flat"):  # what is measured is the model, not what lists leave out
            pass
    index.note_model_path(lasting_name(embedder.encoder.folder.path))
    return index


def _settings(embedder: AnyEmbedder) -> Settings:
    from embedkit.encoding.token_embedder import TokenEmbedder

    if isinstance(embedder, TokenEmbedder):
        return token_settings(embedder.encoder, BuildOptions(storage="4-bit"))
    encoder = embedder.encoder
    kind = encoder.folder.kind
    return Settings(
        dimension=encoder.dimension,
        metric=metric_of(encoder),
        storage=storage_of(kind),
        fingerprint=encoder.fingerprint,
        kind=kind,
    )


def _one_number(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Stand in for an encoder where documents are found by their words: -> (N, 1)."""
    import numpy as np

    return np.ones((len(texts), 1), np.float32)


def own_documents(index: Searchable, test: RetrievalSet) -> dict[str, Document]:
    """Return the documents of the collection that have the id of a query."""
    found = {query_id: index.document(query_id) for query_id in index.known_ids(list(test.queries))}
    return {query_id: document for query_id, document in found.items() if document is not None}


def known_documents(index: Searchable, test: RetrievalSet) -> set[str]:
    """Return which of the judged documents the collection holds."""
    judged = {doc_id for judgements in test.qrels.values() for doc_id in judgements}
    return index.known_ids(sorted(judged))
