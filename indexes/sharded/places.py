"""Shards that are named one by one: indexes in folders, and addresses of indexes that servers hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.errors import IndexFileError, ServerError

from ..storage.layout import is_index
from ..store import Index
from .options import Connect, GatherOptions
from .shards_file import ShardPlace, ShardsFile, is_address, is_sharded

if TYPE_CHECKING:
    from ..storage.settings import Settings


def shards_of(path: str | Path, gathering: GatherOptions) -> ShardsFile:
    """Return what a folder's shards.json names, or with `gathering.more` all that is named.

    Raises:
        IndexFileError: there is none, it is damaged, or as `named_shards`.
        ServerError: as `named_shards`.
    """
    if gathering.more:
        return named_shards([str(path), *gathering.more], gathering.connect)
    return ShardsFile.read(Path(path))


def named_shards(places: Sequence[str], connect: Connect | None = None) -> ShardsFile:
    """Return what a shards.json of these would hold: folders of indexes, in one piece or in shards, and addresses.

    The settings and the model are those of the first that lies here, else of the first server that answers. Nothing is written, and
    what lies here is not opened further: a search does that, and compares the settings of all.

    Raises:
        IndexFileError: a folder holds no index, or a shard is named twice.
        ServerError: nothing lies here, and no server answers.
    """
    shards = [shard for place in places for shard in _shards_of(place)]
    twice = [each for each, count in Counter(shard.location for shard in shards).items() if count > 1]
    if twice:
        raise IndexFileError(
            f"the shard {twice[0]} is named twice: its documents would be found twice. Name it once"
        )
    for place in places:
        if not is_address(place):
            file = _of_folder(Path(place))
            return replace(file, plan="", shards=shards)
    settings, model = _of_servers(places, connect)
    return ShardsFile("", settings, model, shards)


def _shards_of(place: str) -> list[ShardPlace]:
    if is_address(place):
        location = place.rstrip("/")
        return [ShardPlace(location, location, 0, 0, "")]
    folder = Path(place)
    return [
        each if each.is_served else replace(each, name=_name(folder, each), location=_absolute(folder, each))
        for each in _of_folder(folder).shards
    ]


def _name(folder: Path, shard: ShardPlace) -> str:
    return f"{folder}/{shard.name}" if shard.name else str(folder)


def _absolute(folder: Path, shard: ShardPlace) -> str:
    return os.path.normpath((folder / shard.location).absolute())


def _of_folder(folder: Path) -> ShardsFile:
    """Read what lies in a folder; an index in one piece is one shard."""
    if is_sharded(folder):
        return ShardsFile.read(folder)
    if not is_index(folder):
        raise IndexFileError(
            f"{folder}: there is no index. Name the folder of one, or http://HOST:8080/INDEX"
        )
    with Index.open(folder) as index:
        shard = ShardPlace("", ".", index.count_documents(), len(index), "")
        return ShardsFile("", index.settings, index.model_path or "", [shard])


def _of_servers(places: Iterable[str], connect: Connect | None) -> tuple[Settings, str]:
    """Ask one server after the other what its shard is."""
    reasons = []
    for place in places:
        if connect is None:
            raise IndexFileError(f"{place}: the shard is held by a server, which this command does not ask")
        try:
            shard = connect(place)
        except ServerError as exc:
            reasons.append(str(exc))
            continue
        try:
            return shard.settings, shard.model_path or ""
        finally:
            shard.close()
    raise ServerError(f"no server of a shard answers: {'; '.join(reasons)}")
