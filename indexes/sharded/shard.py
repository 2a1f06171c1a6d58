"""What an index in shards needs of each of them: `Index` fulfils it, and so does what stands for a shard on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from embedkit.data.records import Document, Hit
from embedkit.retrieval.vectors import Vectors

if TYPE_CHECKING:
    from ..maintenance.field_values import FieldValues
    from ..search.conditions import Misuse
    from ..search.shared_scans import SharedScans
    from ..search.shared_text import TextStatistics
    from ..storage.codes import FloatArray, RowArray
    from ..storage.settings import Settings


class Shard(Protocol):
    """One shard, open for reading; see `Index`."""

    settings: Settings

    def __len__(self) -> int: ...

    def close(self) -> None: ...

    def follow(self) -> bool: ...

    def rest(self) -> None: ...

    @property
    def model_path(self) -> str | None: ...

    @property
    def state(self) -> object: ...

    def limit_cache(self, num_bytes: int) -> None: ...

    def share_scans(self, scans: SharedScans) -> None: ...

    def field_names(self) -> list[str]: ...

    def share_fields(self, names: Sequence[str] | None) -> None: ...

    def misuses(self, where: str) -> list[Misuse]: ...

    def search(
        self, queries: Vectors, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]: ...

    def search_ids(
        self, queries: Vectors, *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]: ...

    def text_terms(self, query: str) -> list[str]: ...

    def text_statistics(self, terms: Sequence[str]) -> TextStatistics: ...

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool,
        statistics: TextStatistics | None,
        vectors: FloatArray | None,
    ) -> list[list[Hit]]: ...

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]: ...

    def vectors_at(self, places: RowArray) -> FloatArray: ...

    def count_rows(self, where: str | None = None) -> int: ...

    def count_documents(self) -> int: ...

    def known_ids(self, doc_ids: Sequence[str]) -> set[str]: ...

    def document(self, doc_id: str) -> Document | None: ...

    def passages(self, doc_id: str) -> tuple[list[Hit], FloatArray]: ...

    def field_values(self) -> Sequence[FieldValues]: ...
