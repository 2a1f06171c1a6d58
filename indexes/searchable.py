"""What every index is to whoever searches it, whether it lies in one folder or in shards; and opening either."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from embedkit.data.records import Document, Hit
from embedkit.retrieval.retriever import SearchIndex

from .sharded.shards_file import is_sharded
from .storage.codes import FloatArray
from .storage.layout import is_index
from .storage.settings import Fingerprint, Settings
from .store import Index

if TYPE_CHECKING:
    from types import TracebackType

    from embedkit.retrieval.strength import CosineNoise

    from .maintenance.field_values import FieldValues
    from .search.shared_scans import SharedScans
    from .sharded.coverage import Coverage
    from .sharded.options import GatherOptions


class Searchable(SearchIndex, Protocol):
    """An index that is open for reading: `Index` and `ShardedIndex`."""

    @property
    def path(self) -> Path | str:
        """What it is called in messages: its folder, or an address."""
        ...

    settings: Settings

    def __len__(self) -> int:
        """Count the vectors that can be found."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None: ...

    @property
    def model_path(self) -> str | None:
        """Where the encoder's folder lay when it was last used here."""
        ...

    @property
    def noise(self) -> CosineNoise | None:
        """How alike the vectors here are; None where they are too few to say."""
        ...

    def take_coverage(self) -> Coverage | None:
        """Return how many shards the searches since the last call have seen; None where there are no shards."""
        ...

    @property
    def state(self) -> object:
        """What differs after a commit from what it was before; of this handle alone."""
        ...

    def search(
        self,
        queries: Any,
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        bare: bool = False,
    ) -> list[list[Hit]]:
        """Return up to k hits for each of (Q, E) queries (Any: or vectors of another kind, as the index has them), best first.

        `bare` ones are without what their documents hold.
        """
        ...

    def check_encoder(self, fingerprint: Fingerprint | None) -> None:
        """Refuse queries from an encoder that did not make the vectors here."""
        ...

    def count_rows(self, where: str | None = None) -> int:
        """Count the vectors that can be found, or those of them that a filter lets pass."""
        ...

    def count_documents(self) -> int: ...

    def known_ids(self, doc_ids: Sequence[str]) -> set[str]:
        """Return which of the ids are here."""
        ...

    def document(self, doc_id: str) -> Document | None:
        """Return a document, or None where there is none of this id."""
        ...

    def passages(self, doc_id: str) -> tuple[list[Hit], FloatArray]:
        """Return the passages of a document in order, with their vectors (N, E)."""
        ...

    def field_values(self) -> Sequence[FieldValues]:
        """Return what the metadata hold."""
        ...

    def follow(self) -> bool:
        """See what has been committed since; say whether anything was."""
        ...

    def rest(self) -> None:
        """Let go of the commit; `follow` comes before the next search."""
        ...

    def limit_cache(self, num_bytes: int) -> None:
        """Keep so much of the database in this handle's own memory."""
        ...

    def share_scans(self, scans: SharedScans) -> None:
        """Share segments, and passes over all vectors, with other handles of this index that have the same `scans`."""
        ...


def is_searchable(path: str | Path) -> bool:
    """Say whether a folder holds an index, in one piece or in shards."""
    return is_index(path) or is_sharded(path)


def open_index(
    path: str | Path,
    *,
    device: str | None = None,
    gathering: GatherOptions | None = None,
    allow_regex: bool = True,
) -> Searchable:
    """Open an index for searching, in one piece or in shards; `gathering` says how shards are searched, and which further ones.

    With `gathering.more` the path may be an address, too. Without `allow_regex` filters with regular expressions are refused.

    Raises:
        IndexFileError: there is none, it is damaged, or of a newer version.
        IndexMismatchError: a shard of `gathering.more` does not belong to the others.
        ServerError: all shards lie on servers, and none answers.
    """
    if not is_sharded(path) and not (gathering is not None and gathering.more):
        return Index.open(path, device=device, allow_regex=allow_regex)
    from .sharded.index import ShardedIndex

    return ShardedIndex.open(path, device=device, gathering=gathering, allow_regex=allow_regex)
