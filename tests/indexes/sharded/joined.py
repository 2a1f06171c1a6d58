"""Indexes that the command line made, joined as the shards of one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from indexes import Index, ShardPlace, ShardsFile


def join(folder: Path, paths: Sequence[Path]) -> Path:
    """Copy indexes, in order, into a new index in shards."""
    places = []
    for number, path in enumerate(paths):
        name = f"{number:05d}"
        location = f"shards/{name}.index"
        shutil.copytree(path, folder / location)
        with Index.open(path) as index:
            places.append(ShardPlace(name, location, index.count_documents(), len(index), ""))
            settings, model_path = index.settings, index.model_path
    ShardsFile("", settings, model_path or "", places).write(folder)
    return folder
