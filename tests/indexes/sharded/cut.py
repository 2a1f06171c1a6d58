"""The same documents in one index and in shards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from embedkit.data.records import Document
from embedkit.types import Float32
from indexes import Index, Passage, Settings, ShardPlace, ShardsFile

Cuts = Sequence[Sequence[Passage]]


def make_index(
    path: Path,
    settings: Settings,
    documents: Sequence[Document],
    vectors: Float32,
    passages: Cuts | None = None,
) -> Path:
    with Index.create(path, settings) as index:
        if documents:
            index.add(documents, vectors, passages=passages)
    return path


def make_shards(
    folder: Path,
    settings: Settings,
    documents: Sequence[Document],
    vectors: Float32,
    *,
    ends: Sequence[int],
    passages: Cuts | None = None,
) -> Path:
    """Cut documents at `ends`, each the number of the first document of the next shard."""
    folder.mkdir(parents=True)
    borders = [0, *sorted(ends), len(documents)]
    widths = np.cumsum([0, *([1] * len(documents) if passages is None else map(len, passages))])
    places = []
    for number, (first, last) in enumerate(pairwise(borders)):
        name = f"{number:05d}"
        part = vectors[widths[first] : widths[last]]
        cut = None if passages is None else passages[first:last]
        make_index(folder / "shards" / f"{name}.index", settings, documents[first:last], part, cut)
        places.append(ShardPlace(name, f"shards/{name}.index", last - first, len(part), ""))
    ShardsFile("", settings, "", places).write(folder)
    return folder
