"""What the database knows of the ANN file, and how to search it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHUNK_BYTES = 16 * 2**20  # of which each has its checksum


@dataclass(frozen=True, kw_only=True)
class AnnInfo:
    """What the database knows of the ANN file.

    It covers `rows` rows, all those up to `last_row` that there were. `curve` is what `tune` measured.
    """

    name: str
    kind: str
    rows: int
    last_row: int
    num_bytes: int
    checksums: Sequence[int]  # CRC-32 of each CHUNK_BYTES
    knobs: Mapping[str, int]
    target_recall: float | None = None
    curve: Sequence[Mapping[str, Any]] = ()  # Any: numbers and knobs, see `maintenance.tune`

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}, default=list)

    @classmethod
    def from_json(cls, text: str) -> AnnInfo:
        return cls(**json.loads(text))
