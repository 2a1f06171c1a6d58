"""Receipts: what a worker says it has built, proved against the index it built.

A shard is done where its receipt is whole, is of this plan, and says of the index what the index holds. That is proved by reading all
of the index, unless its files are the very ones (inode, size, times of change) that the receipt was proved with before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.distributed.layout import ids_path, receipt_path, shard_path
from embedkit.errors import EmbedkitError, OutputError
from embedkit.storage.files import atomic_file, write_text
from embedkit.storage.hashing import canonical_json, json_digest
from indexes import Index, content_hash, id_hashes, is_index

IDS_TYPE = "<u8"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What one shard holds and how it came about. `as_planned` is False where a worker computed otherwise than the plan says."""

    shard: int
    plan: str
    documents: int
    passages: int
    content_hash: str
    tokens: int = 0
    truncated: int = 0
    empty: int = 0
    unknown: int = 0
    duplicates: int = 0
    quarantined: int = 0
    quarantine: Sequence[Mapping[str, str]] = ()
    encodings: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    precision: str = "fp32"
    backend: str = ""
    runtime: str = ""
    as_planned: bool = True
    files: Sequence[
        Sequence[object]
    ] = ()  # name, bytes, inode and times of change of the files it was proved with

    def write(self, folder: Path) -> None:
        """Write it beside the others; what was there is replaced.

        Raises:
            OutputError: the disk is full or cannot be written.
        """
        content = json.loads(canonical_json(asdict(self)))
        write_text(
            receipt_path(folder, self.shard),
            canonical_json({**content, "digest": json_digest(content)}) + "\n",
        )

    @classmethod
    def read(cls, folder: Path, shard: int) -> Receipt:
        """Read a receipt.

        Raises:
            ValueError: there is none, or it is damaged; the message says which.
        """
        try:
            content = json.loads(receipt_path(folder, shard).read_text(encoding="utf-8"))
            digest = content.pop("digest")
            if digest != json_digest(content):
                raise ValueError("the receipt is not what was written: its hash differs")
            return cls(**content)
        except FileNotFoundError as exc:
            raise ValueError("there is no receipt") from exc
        except (
            OSError,
            UnicodeDecodeError,
            json.JSONDecodeError,
            KeyError,
            TypeError,
            AttributeError,
        ) as exc:
            raise ValueError(f"the receipt is damaged ({exc})") from exc


def make_receipt(folder: Path, receipt: Receipt) -> Receipt:
    """Count and hash the index of a shard, keep the hashes of its ids, and write the receipt last.

    Raises:
        IndexFileError: the index cannot be read.
        OutputError: the disk is full or cannot be written.
    """
    files = signature(shard_path(folder, receipt.shard))
    with Index.open(shard_path(folder, receipt.shard)) as index:
        ids = id_hashes(index)
        receipt = replace(
            receipt,
            documents=index.count_documents(),
            passages=len(index),
            content_hash=content_hash(index),
            files=files,
        )
    with atomic_file(ids_path(folder, receipt.shard)) as stream:
        stream.write(ids.astype(IDS_TYPE).tobytes())
    receipt.write(folder)
    return receipt


def read_ids(folder: Path, receipt: Receipt) -> NDArray[np.uint64]:
    """Return the hashes of a shard's ids, sorted; from the index where the file beside the receipt is not whole."""
    path = ids_path(folder, receipt.shard)
    if path.is_file() and path.stat().st_size == 8 * receipt.documents:
        return np.fromfile(path, IDS_TYPE).astype(np.uint64, copy=False)
    with Index.open(shard_path(folder, receipt.shard)) as index:
        return id_hashes(index)


def verified(folder: Path, shard: int, plan_digest: str) -> Receipt:
    """Return the receipt of a shard that is done.

    Raises:
        ValueError: it is not; the message says why.
    """
    receipt = Receipt.read(folder, shard)
    if receipt.plan != plan_digest or receipt.shard != shard:
        raise ValueError("the receipt is of another plan or shard")
    path = shard_path(folder, shard)
    if not is_index(path):
        raise ValueError("there is a receipt, but no index")
    found = signature(path)
    if json.loads(json.dumps(found)) == json.loads(json.dumps(receipt.files)):
        return receipt
    try:
        with Index.open(path) as index:
            facts = (index.count_documents(), len(index), content_hash(index))
    except EmbedkitError as exc:
        raise ValueError(f"the index cannot be read: {exc}") from exc
    said = (receipt.documents, receipt.passages, receipt.content_hash)
    for what, one, other in zip(("documents", "passages", "content hash"), said, facts, strict=True):
        if one != other:
            raise ValueError(f"the receipt says {what} {one}, and the index has {other}")
    receipt = replace(receipt, files=found)
    with suppress(OutputError):  # a folder that cannot be written is read in full each time
        receipt.write(folder)  # so that the next look is a short one
    return receipt


def signature(path: Path) -> list[list[object]]:
    """Return what tells that the files of an index are the very ones that were seen before; no program sets a ctime back."""
    found = []
    for each in sorted([path / "index.sqlite", *(path / "segments").glob("*.vectors")]):
        status = os.stat(each)  # noqa: PTH116 (the system's own word)
        found.append([each.name, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns])
    return found
