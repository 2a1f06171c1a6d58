"""How hard a search looks: what `tune` has measured, as the database keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..storage.database import Database

ENTRY = "probing"  # in the database
# Of 2,560 passages of simplewiki they find all of the ten best (`benchmarks/multi_vector.py`); `tune` measures an index of one's own.
DEFAULT_KNOBS: Mapping[str, int] = {"nprobe": 4, "candidates": 512}


@dataclass(frozen=True, kw_only=True)
class Probing:
    """For each token of a query, the rows of the `nprobe` nearest centroids are looked at; the `candidates` best of them, judged by
    centroids alone, are scored by what is stored. Without knobs all rows are looked at. `curve` is what `tune` measured.
    """

    knobs: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_KNOBS))
    target_recall: float | None = None
    curve: Sequence[Mapping[str, Any]] = ()  # Any: numbers and knobs, see `maintenance.tune`

    @classmethod
    def read(cls, database: Database) -> Probing:
        """Return what is stored, or the defaults."""
        text = database.checked_meta(ENTRY)
        return cls() if text is None else cls(**json.loads(text))

    def store(self, database: Database) -> None:
        """Store it; to be called within a transaction."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        database.set_checked_meta(ENTRY, json.dumps(values, default=dict))
