"""Joining shards where they lie: the shards.json that makes one index of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import IndexFileError, ServerError
from embedkit.storage.files import output_errors

from ..maintenance.content import id_hashes, ids_with_hashes
from ..storage.layout import is_index
from ..store import Index
from .options import Connect
from .places import named_shards
from .shards_file import SHARDS, ShardPlace, ShardsFile


def join_shards(folder: Path, places: Sequence[str], connect: Connect | None = None) -> ShardsFile:
    """Write the shards.json that makes one index of shards where they lie; return what it holds.

    Shards beside or below the folder are named by their path from there, so that all can be moved together. A server that does not answer
    now is taken for what it was named.

    Raises:
        IndexFileError: there is an index already, a shard cannot be opened, or two that lie here have a document of one id.
        IndexMismatchError: a shard was built by another encoder, or compares vectors otherwise.
        ServerError: nothing lies here, and no server answers.
        OutputError: the disk is full or cannot be written.
    """
    if is_index(folder) or (folder / SHARDS).exists() or (folder / "plan.json").exists():
        raise IndexFileError(f"{folder}: there is an index already. Choose another folder, or remove it")
    file = named_shards(places, connect)
    known: NDArray[np.uint64] = np.empty(0, np.uint64)
    found = []
    for place in file.shards:
        if place.is_served:
            found.append(_looked_at(file, place, connect))
            continue
        with Index.open(place.location) as index:
            file.check_belongs(index.settings, place.name)
            ids = id_hashes(index)
            if len(shared := np.intersect1d(ids, known)):
                doc_id = next(iter(ids_with_hashes(index, shared)))
                raise IndexFileError(
                    f"{place.name}: its document {doc_id!r} is in a shard before it, too. Delete it from one of them"
                )
            known = np.union1d(known, ids)
            found.append(replace(place, documents=index.count_documents(), passages=len(index)))
    named = [
        replace(each, name=f"{number:05d}", location=_from(folder, each)) for number, each in enumerate(found)
    ]
    file = replace(file, shards=named)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file.write(folder)
    return file


def _looked_at(file: ShardsFile, place: ShardPlace, connect: Connect | None) -> ShardPlace:
    if connect is None:
        return place
    try:
        shard = connect(place.location)
    except ServerError:
        return place  # a search says what is the matter with it
    try:
        file.check_belongs(shard.settings, place.location)
        return replace(place, documents=shard.count_documents(), passages=len(shard))
    finally:
        shard.close()


def _from(folder: Path, place: ShardPlace) -> str:
    if place.is_served:
        return place.location
    near = Path(place.location).resolve().is_relative_to(folder.absolute().parent.resolve())
    return os.path.relpath(place.location, folder) if near else place.location
