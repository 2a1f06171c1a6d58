"""Points, sparse vectors and filters as Qdrant's client has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

Vectors = npt.NDArray[np.float32]
Columns = dict[str, Any]  # Any: what a point holds, by column


def filter_of(where: Mapping[str, Any] | None) -> models.Filter | None:  # Any: a filter as JSON
    return None if where is None else models.Filter(**where)


def sparse(weights: Mapping[int, float]) -> models.SparseVector:
    return models.SparseVector(indices=list(weights), values=list(weights.values()))


def point_of(point_id: str, row: Columns, vector: Vectors) -> models.PointStruct:
    payload = {name: value for name, value in row.items() if name != "words"}
    payload["numbers"] = [{"key": key, "value": value} for key, value in row["numbers"].items()]
    vectors: dict[str, Any] = {"embedding": vector.tolist()}  # Any: a vector of either kind
    if row["words"]:
        vectors["words"] = sparse(row["words"])
    return models.PointStruct(id=point_id, vector=vectors, payload=payload)


def read_points(
    found: Sequence[Any], *, vectors: bool
) -> tuple[list[Columns], Vectors]:  # Any: a point of the client's
    rows = [{"id": str(each.id), **(each.payload or {})} for each in found]
    if not vectors or not found:
        return rows, np.empty((len(rows), 0), np.float32)
    numbers = [(each.vector or {}).get("embedding") for each in found]
    width = max(len(each or ()) for each in numbers)
    return rows, np.array([each or [0.0] * width for each in numbers], np.float32)
