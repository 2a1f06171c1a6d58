"""The documents of a shard, as a worker reads them from the parts of files."""

from __future__ import annotations

from collections.abc import Iterator

from embedkit.data.parts import read_part
from embedkit.data.records import Document
from embedkit.distributed.plan import ShardPlan
from embedkit.errors import RecordError


class PartTexts:
    """The documents of a shard, what of them was refused, and how far they are read; with `unique` an id that comes again is refused."""

    def __init__(self, plan: ShardPlan, shard: int, *, unique: bool = True) -> None:
        self.parts, self.options = plan.shards[shard], plan.read_options
        self.refused: list[dict[str, str]] = []
        self.encodings: dict[str, int] = {}
        self.duplicates = 0
        self._strict, self._unique = plan.strict, unique
        self._total = max(1, plan.size_of(shard))
        self._done, self._bytes_here, self._part_bytes = 0, 0, 0

    def __iter__(self) -> Iterator[Document]:
        seen: dict[str, str] = {}
        for part in self.parts:
            self._part_bytes, self._bytes_here = part.last - part.first, 0
            for document in read_part(part, self.options, self._refuse):
                self._bytes_here += len(document.text)
                if document.encoding != "utf-8":
                    self.encodings[document.encoding] = self.encodings.get(document.encoding, 0) + 1
                if self._unique and document.doc_id in seen:
                    self.duplicates += 1
                    self._set_aside(duplicate(document.where, document.doc_id, seen[document.doc_id]))
                    continue
                if self._unique:
                    seen[document.doc_id] = document.where
                yield document
            self._done += self._part_bytes

    def _refuse(self, reason: str) -> None:
        self._set_aside({"reason": reason})

    def _set_aside(self, entry: dict[str, str]) -> None:
        if self._strict:
            raise RecordError(entry["reason"])
        self.refused.append(entry)

    def fraction(self) -> float:
        return min(1.0, (self._done + min(self._bytes_here, self._part_bytes)) / self._total)


def duplicate(where: str, doc_id: str, first: str) -> dict[str, str]:
    """Say of a document that its id stands there again: what goes into the quarantine file."""
    return {
        "id": doc_id,
        "reason": f"{where}: the id {doc_id!r} stands there again; it was at {first}. The first one stays",
    }
