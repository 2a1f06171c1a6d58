"""Adding documents to an index that is served, and deleting them: as the commands `index build` and `index delete` do it."""

from __future__ import annotations

from collections.abc import Sequence

from embedkit.data.records import Document
from embedkit.errors import IndexMismatchError
from embedkit.pipelines.embedders import embedder_of
from embedkit.pipelines.filling import fill_index
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.engine.engine import Engine
from embedkit.serving.indexes.computing import submit
from embedkit.serving.indexes.live import LiveIndex
from indexes import BuildReport, Deleted, Index


def add_documents(live: LiveIndex, documents: Sequence[Document], engine: Engine) -> BuildReport:
    """Add documents, each in place of the one that has its id, in one commit or, of very many, several; the engine embeds them as bulk.

    Raises:
        IndexBusyError: somebody else writes to the index.
        IndexMismatchError: the index has no encoder, or one of documents with fields; or another index has taken its place.
        RecordError: an id occurs twice, or metadata hold what JSON cannot.
        QueueFullError: the engine takes no more; what was committed stays.
    """
    encoder = live.encoder
    if encoder is None:
        raise IndexMismatchError(
            f"the index {live.name!r} was built from ready vectors: which encoder made them is not known, so that nothing can be added"
        )
    if encoder.fields:
        raise IndexMismatchError(
            f"the model of the index {live.name!r} encodes documents by the fields {', '.join(encoder.fields)}. "
            "Add them with: embedkit index build"
        )
    embedder = embedder_of(encoder, "document")

    def embed(texts: Sequence[str]) -> Vectors:
        return submit(engine, embedder, texts, role="document", priority="bulk").result().vectors

    with live.writing, Index.open(live.path, writable=True) as index:
        index.check_encoder(encoder.fingerprint)
        *_, last = fill_index(index, documents, encoder, embed, tokenizer=embedder.tokenizer)
        return last


def delete_documents(live: LiveIndex, doc_ids: Sequence[str]) -> Deleted:
    """Delete documents by their ids.

    Raises:
        IndexBusyError: somebody else writes to the index.
    """
    with live.writing, Index.open(live.path, writable=True) as index:
        return index.delete(doc_ids)
