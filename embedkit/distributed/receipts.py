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

from embedkit.distributed.index_shards import IndexShards
from embedkit.distributed.layout import ids_path, receipt_path, shard_path
from embedkit.distributed.product import Product
from embedkit.errors import EmbedkitError, OutputError
from embedkit.storage.files import atomic_file, write_text
from embedkit.storage.hashing import canonical_json, json_digest

INDEXES = IndexShards()
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
    nonfinite: int = 0
    vectors: int = 0
    terms: int = 0
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
    mined: Mapping[str, int] = field(default_factory=dict)  # counts of rows with hard negatives
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


def make_receipt(folder: Path, receipt: Receipt, product: Product = INDEXES) -> Receipt:
    """Count and hash what a shard holds, keep the hashes of its ids, and write the receipt last.

    Raises:
        IndexFileError: the shard cannot be read.
        OutputError: the disk is full or cannot be written.
    """
    path = shard_path(folder, receipt.shard, product.ending)
    files = signature(path, product)
    facts = product.facts(path)
    receipt = replace(receipt, files=files, **asdict(facts))
    with atomic_file(ids_path(folder, receipt.shard)) as stream:
        stream.write(product.hashes(path).astype(IDS_TYPE).tobytes())
    receipt.write(folder)
    return receipt


def read_ids(folder: Path, receipt: Receipt, product: Product = INDEXES) -> NDArray[np.uint64]:
    """Return the hashes of a shard's ids, sorted; from the shard where the file beside the receipt is not whole."""
    path = ids_path(folder, receipt.shard)
    if path.is_file() and path.stat().st_size == 8 * receipt.documents:
        return np.fromfile(path, IDS_TYPE).astype(np.uint64, copy=False)
    return product.hashes(shard_path(folder, receipt.shard, product.ending))


def verified(folder: Path, shard: int, plan_digest: str, product: Product = INDEXES) -> Receipt:
    """Return the receipt of a shard that is done.

    Raises:
        ValueError: it is not; the message says why.
    """
    receipt = Receipt.read(folder, shard)
    if receipt.plan != plan_digest or receipt.shard != shard:
        raise ValueError("the receipt is of another plan or shard")
    path = shard_path(folder, shard, product.ending)
    what = product.ending[1:]
    if not product.is_there(path):
        raise ValueError(f"there is a receipt, but no {what}")
    found = signature(path, product)
    if json.loads(json.dumps(found)) == json.loads(json.dumps(receipt.files)):
        return receipt
    try:
        facts = asdict(product.facts(path))
    except (EmbedkitError, OSError, ValueError) as exc:
        raise ValueError(f"the {what} cannot be read: {exc}") from exc
    for name, value in facts.items():
        if getattr(receipt, name) != value:
            said = f"{name.replace('_', ' ')} {getattr(receipt, name)}"
            raise ValueError(f"the receipt says {said}, and the {what} has {value}")
    receipt = replace(receipt, files=found)
    with suppress(OutputError):  # a folder that cannot be written is read in full each time
        receipt.write(folder)  # so that the next look is a short one
    return receipt


def signature(path: Path, product: Product = INDEXES) -> list[list[object]]:
    """Return what tells that the files of a shard are the very ones that were seen before; no program sets a ctime back."""
    found = []
    for each in product.files(path):
        status = os.stat(each)  # noqa: PTH116 (the system's own word)
        found.append([each.name, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns])
    return found
