"""Where everything of an index in shards, or of vectors in shards, lies in its folder.

big.index/
  plan.json              what is to be built (`embedkit.distributed.plan`)
  shards/00000.index     an ordinary index each, or 00000.vectors, or 00000.mined; `.00000.….tmp` while it is made
  receipts/00000.json    what is done (`embedkit.distributed.receipts`); 00000.ids beside it: the hashes of its ids (of vectors: texts), sorted
  quarantine.jsonl       what could not be read, with its place and the reason
  shards.json            what a search opens, written last (`indexes.ShardsFile`)
"""

from __future__ import annotations

from pathlib import Path

PLAN, QUARANTINE = "plan.json", "quarantine.jsonl"
SHARD_FOLDER, RECEIPT_FOLDER = "shards", "receipts"


def shard_name(number: int) -> str:
    return f"{number:05d}"


def shard_path(folder: Path, number: int, ending: str = ".index") -> Path:
    return folder / SHARD_FOLDER / f"{shard_name(number)}{ending}"


def receipt_path(folder: Path, number: int) -> Path:
    return folder / RECEIPT_FOLDER / f"{shard_name(number)}.json"


def ids_path(folder: Path, number: int) -> Path:
    return folder / RECEIPT_FOLDER / f"{shard_name(number)}.ids"


def is_planned(folder: Path) -> bool:
    """Say whether a folder is an index in shards, finished or not."""
    return (folder / PLAN).is_file()
