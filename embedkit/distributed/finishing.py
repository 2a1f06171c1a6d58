"""When all shards are done: ids that stand in two of them, the quarantine file, and `shards.json`, which makes them one index.

As in a build in one piece an id stands for one document. There a second one ends the build; here, where that would come after hours, the
first in the order of the input stays, and the others go to the quarantine file (with --strict they are an error).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.distributed.layout import QUARANTINE, SHARD_FOLDER, shard_name, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.receipts import Receipt, make_receipt, read_ids
from embedkit.distributed.texts import duplicate
from embedkit.errors import RecordError
from embedkit.storage.files import write_text
from indexes import Index, ShardPlace, ShardsFile, ids_with_hashes

AT_A_TIME = 2**25  # hashes of ids in memory: 256 MB, and as much again to sort them


def finish(folder: Path, plan: ShardPlan, receipts: Mapping[int, Receipt]) -> dict[int, Receipt]:
    """Make the shards one index; return the receipts as they are then.

    Raises:
        RecordError: with `strict`, an id stands in two shards.
        IndexFileError, OutputError: the disk is full or cannot be written; the same command goes on.
    """
    found = dict(receipts)
    for shard, entries in _later(folder, found).items():
        if plan.strict:
            raise RecordError(entries[0]["reason"])
        with Index.open(shard_path(folder, shard), writable=True) as index:
            index.delete([entry["id"] for entry in entries])
        before = found[shard]
        found[shard] = make_receipt(
            folder,
            replace(
                before,
                duplicates=before.duplicates + len(entries),
                quarantined=before.quarantined + len(entries),
                quarantine=[*before.quarantine, *entries],
            ),
        )
    write_quarantine(folder, plan, found)
    shards = [
        ShardPlace(
            shard_name(number),
            f"{SHARD_FOLDER}/{shard_name(number)}.index",
            receipt.documents,
            receipt.passages,
            receipt.content_hash,
        )
        for number, receipt in sorted(found.items())
    ]
    ShardsFile(plan.digest, plan.index_settings, plan.model_path, shards).write(folder)
    return found


def write_quarantine(folder: Path, plan: ShardPlan, receipts: Mapping[int, Receipt]) -> int:
    """Write what could not be read, with the reason, in the order of the input; return how much that is.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    entries: list[Mapping[str, str]] = [{"reason": reason} for reason in plan.unread]
    for _, receipt in sorted(receipts.items()):
        entries += ({**entry, "shard": shard_name(receipt.shard)} for entry in receipt.quarantine)
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    if lines or (folder / QUARANTINE).exists():
        write_text(folder / QUARANTINE, "".join(lines))
    return len(entries)


def _later(folder: Path, receipts: Mapping[int, Receipt]) -> dict[int, list[dict[str, str]]]:
    """Return for each shard the documents whose id stands in an earlier one."""
    doubtful = _shared_hashes(folder, receipts)
    first: dict[str, str] = {}
    found: dict[int, list[dict[str, str]]] = {}
    if not len(doubtful):
        return found
    for shard in sorted(receipts):
        wanted = np.intersect1d(read_ids(folder, receipts[shard]), doubtful)
        if not len(wanted):
            continue
        with Index.open(shard_path(folder, shard)) as index:
            for doc_id, source in ids_with_hashes(index, wanted).items():
                if doc_id in first:
                    found.setdefault(shard, []).append(duplicate(source, doc_id, first[doc_id]))
                else:
                    first[doc_id] = source
    return found


def _shared_hashes(folder: Path, receipts: Mapping[int, Receipt]) -> NDArray[np.uint64]:
    """Return the hashes of ids that two shards have, sorted; a share of all hashes is in memory at a time."""
    total = sum(receipt.documents for receipt in receipts.values())
    shared = [
        _shared([between(read_ids(folder, receipt), low, high) for receipt in receipts.values()])
        for low, high in ranges(-(-total // AT_A_TIME))
    ]
    return np.concatenate(shared) if shared else np.empty(0, np.uint64)


def ranges(count: int) -> Iterator[tuple[int, int]]:
    """Cut all 64-bit numbers into ranges of equal size, the last number of each within it."""
    borders = [number * 2**64 // max(1, count) for number in range(max(1, count) + 1)]
    yield from ((low, high - 1) for low, high in pairwise(borders))


def between(ids: NDArray[np.uint64], low: int, high: int) -> NDArray[np.uint64]:
    """Return those of sorted hashes that lie between two, both included."""
    start = np.searchsorted(ids, np.uint64(low), side="left")
    return ids[start : np.searchsorted(ids, np.uint64(high), side="right")]


def _shared(parts: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    ids = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    return np.unique(ids[1:][ids[1:] == ids[:-1]])
