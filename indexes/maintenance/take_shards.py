"""One index of the shards of another, without embedding anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace as replaced
from pathlib import Path

from embedkit.errors import IndexFileError

from ..sharded.scatter import BUILD_AGAIN
from ..sharded.shards_file import ShardPlace, ShardsFile
from ..storage.layout import is_index
from ..storage.settings import check_same
from ..store import Index
from .build import BuildReport
from .take_in import merge_indexes


def merge_shards(target: Index, folder: Path, *, replace: bool = False) -> Iterator[BuildReport]:
    """Put the documents of all shards into an index, in their order, as `merge_indexes` does; the same call resumes.

    An index that was empty is then what a build in one piece makes: the same documents, passages, vectors and words, in the same order.

    Raises:
        IndexFileError: a shard is not here, or lies on a server.
        As `merge_indexes`.
    """
    target.need_writer()
    file = ShardsFile.read(folder)
    for place in file.shards:
        if place.is_served:
            raise IndexFileError(
                f"{place.location}: the shard {place.name} lies on a server. Merge where its folder is"
            )
        if not is_index(folder / place.location):
            raise IndexFileError(f"{folder / place.location}: there is no index. {BUILD_AGAIN}")
        with Index.open(folder / place.location) as shard:
            check_same(
                json.loads(file.settings.to_json()),
                json.loads(shard.settings.to_json()),
                str(folder),
                f"does not fit its shard {place.name}",
            )
    return _merge_shards(target, folder, file.shards, replace)


def _merge_shards(
    target: Index, folder: Path, places: Sequence[ShardPlace], replace: bool
) -> Iterator[BuildReport]:
    total = sum(place.documents for place in places)
    before = BuildReport()
    for number, place in enumerate(places, 1):
        report = before
        with Index.open(folder / place.location) as shard:
            for part in merge_indexes(target, shard, replace=replace):
                report = _sum(before, part)
                done = number == len(places) and part.finished
                fraction = 1.0 if done else report.read / total if total else 0.0
                yield replaced(report, fraction=min(1.0, fraction), finished=done)
        before = report


def _sum(before: BuildReport, part: BuildReport) -> BuildReport:
    return replaced(
        part,
        read=before.read + part.read,
        added=before.added + part.added,
        updated=before.updated + part.updated,
        unchanged=before.unchanged + part.unchanged,
        passages=before.passages + part.passages,
        embedded=before.embedded + part.embedded,
        seconds=before.seconds + part.seconds,
    )
