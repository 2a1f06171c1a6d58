"""An index that is served as it is, by the ids of its documents; no file but the index is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.data.records import Hit
from embedkit.errors import IndexMismatchError
from embedkit.pipelines.searching import open_search
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.mcp.served import Call, ServedText, Turns, near_vectors, unknown_name
from embedkit.types import Computing
from indexes import GatherOptions, open_index
from indexes.types import VectorKind

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEncoder
    from embedkit.pipelines.grep.filtering import Narrowing
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.options import SearchOptions


_WHAT: dict[VectorKind, str] = {
    "dense": "vectors",
    "multi-vector": "vectors, one for each token",
    "sparse": "weights of terms",
}


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How an index is served; `gathering` says how its shards are searched, where it has any."""

    computing: Computing
    model: str | None = None
    rerank: str | None = None
    gathering: GatherOptions = field(default_factory=GatherOptions)


class ServedIndex:
    """An index; who adds to it meanwhile is seen by the next call."""

    is_there = True

    def __init__(self, path: Path, options: IndexOptions) -> None:
        """Look whether it can be opened.

        Raises:
            IndexFileError: there is no index, or it is damaged.
        """
        self.path, self.options = path, options
        open_index(path, gathering=options.gathering).close()
        self._turns = Turns()
        self._encoder: AnyEncoder | None = None

    @property
    def shown(self) -> str:
        return str(self.path)

    @property
    def text_weight(self) -> float:
        return 1.0

    def bring_up_to_date(self, call: Call) -> list[str]:
        return []

    @contextmanager
    def opened(self, options: SearchOptions, call: Call) -> Iterator[Search]:
        self._turns.take(call)
        try:
            with ExitStack() as stack:
                try:
                    search = stack.enter_context(self._open(options))
                except IndexMismatchError:
                    if self._encoder is None:
                        raise
                    self._encoder = None  # somebody has built it again, with another model
                    search = stack.enter_context(self._open(options))
                if search.embedder is not None:
                    self._encoder = search.embedder.encoder
                yield search
        finally:
            self._turns.give()

    @contextmanager
    def _open(self, options: SearchOptions) -> Iterator[Search]:
        wanted = self.options
        with open_search(
            self.path,
            options,
            wanted.computing,
            model=wanted.model,
            rerank=wanted.rerank,
            interactive=True,
            encoder=self._encoder,
            gathering=wanted.gathering,
        ) as search:
            yield search

    def search(self, opened: Search, query: str, options: SearchOptions, narrowing: Narrowing) -> list[Hit]:
        wanted = replace(options, where=narrowing.where(options.where))
        return opened.retriever.search([query], wanted)[0]

    def search_vectors(
        self, opened: Search, vectors: Vectors, options: SearchOptions, narrowing: Narrowing
    ) -> list[Hit]:
        return near_vectors(opened.index, vectors, options, narrowing)

    def named(self, hits: Sequence[Hit]) -> list[Hit]:
        """Keep the ids: the name of a file that many documents come from would name none of them."""
        return [hit if hit.where.startswith(hit.doc_id) else replace(hit, place=None) for hit in hits]

    def doc_id(self, name: str) -> str:
        return name

    def text(self, name: str) -> ServedText:
        with open_index(self.path, gathering=self.options.gathering) as index:
            document = index.document(name)
        if document is None:
            raise unknown_name(name, "document")
        first = document.marks[0] if document.marks else None
        counted = first is not None and first.kind == "lines" and first.at == 0
        return ServedText(name, document.text, int(first.value) if first is not None and counted else 1)

    def status(self) -> list[str]:
        with open_index(self.path, gathering=self.options.gathering) as index:
            settings = index.settings
            return [
                f"index: {self.path}",
                f"{index.count_documents():,} documents, {len(index):,} passages, model {index.model_path or 'not noted'}",
                f"{_WHAT[settings.kind]}: {settings.dimension:,} dimensions, {settings.storage}, {settings.metric}",
            ]

    def close(self) -> None:
        """Nothing is kept but the index."""
