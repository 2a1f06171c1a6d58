"""What an index is: dimension, metric, storage and the encoder that its vectors come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from embedkit.errors import IndexMismatchError
from embedkit.storage.hashing import json_digest

from ..types import Metric, Storage, VectorKind
from .codes import STORAGES, TOKEN_BITS

Fingerprint = Mapping[str, Any]  # Any: whatever JSON holds

# Entries of the database.
CODEBOOK, SCALES = "codebook", "scales"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is fixed for the life of an index.

    `fingerprint` names what the vectors depend on (weights, tokenizer, pooling, prompts …), None for vectors made
    elsewhere. `cutting` says how texts are cut into passages; empty where they are not. `fields` above 0 says that a vector is so many
    parts side by side, one for each field of a document, zeros for a missing one; see `indexes.candidates.Scorer`. `kind` is what each
    passage has: one vector, or in a multi-vector index one for each token.
    """

    dimension: int
    metric: Metric = "cosine"
    storage: Storage = "float32"
    fingerprint: Fingerprint | None = None
    cutting: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever JSON holds
    fields: int = 0
    kind: VectorKind = "dense"

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise ValueError(f"dimension is {self.dimension}; it must be at least 1")
        if self.metric not in get_args(Metric):
            raise ValueError(f"metric is {self.metric!r}; it must be one of {', '.join(get_args(Metric))}")
        if self.kind not in get_args(VectorKind):
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(get_args(VectorKind))}")
        storages = tuple(TOKEN_BITS) if self.kind == "multi-vector" else STORAGES
        if self.storage not in storages:
            raise ValueError(f"storage is {self.storage!r}; it must be one of {', '.join(storages)}")
        if self.kind == "multi-vector" and (self.metric != "cosine" or self.fields):
            what = "documents with fields" if self.fields else f"the metric {self.metric}"
            raise ValueError(f"token vectors are compared by cosine, text with text; {what} cannot be had")
        if self.kind == "sparse" and (self.storage != "int8" or self.metric == "l2" or self.fields):
            what = (
                "documents with fields"
                if self.fields
                else f"the metric {self.metric} with storage {self.storage}"
            )
            raise ValueError(
                f"weights of terms are kept in 8 bits (int8) and compared by dot or cosine; {what} cannot be had"
            )
        if self.storage == "binary" and self.metric != "cosine":
            raise ValueError(
                f"binary storage keeps directions alone; the metric must be cosine, not {self.metric}"
            )

        if self.fields:
            self._check_fields()

    def _check_fields(self) -> None:
        if self.fields < 1 or self.dimension % self.fields:
            raise ValueError(f"fields is {self.fields}; it must divide the dimension, {self.dimension}")
        if self.metric != "cosine":
            raise ValueError(
                f"documents with fields are compared by cosines of these; the metric is {self.metric}"
            )
        if self.storage == "binary":
            raise ValueError(
                "binary storage cannot tell a field that is missing; choose float32, float16 or int8"
            )

    def to_json(self) -> str:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not self.fields:
            del values["fields"]  # releases that do not know it read all other indexes
        if self.kind == "dense":
            del values["kind"]
        return json.dumps(values, sort_keys=True, default=dict)

    @property
    def digest(self) -> str:
        """What tells an index that is searched alike from any other."""
        return json_digest(json.loads(self.to_json()))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        return cls(**json.loads(text))

    @property
    def decided_first(self) -> str | None:
        """Name the database's entry that the first commit makes and all vectors are stored by; None where a vector is stored by itself."""
        if self.kind == "multi-vector":
            return CODEBOOK
        return SCALES if self.kind == "dense" and self.storage in ("int8", "binary") else None

    def need_dense(self, place: object, what: str) -> None:
        """Refuse what takes one vector a passage.

        Raises:
            IndexMismatchError: the index is of another kind.
        """
        if self.kind != "dense":
            raise IndexMismatchError(
                f"{place} is a {self.kind} index; {what} takes one vector a passage. Build an index for that with a dense model"
            )

    def check_encoder(self, fingerprint: Fingerprint | None, place: str) -> None:
        """Refuse an encoder that did not make the vectors here.

        Raises:
            IndexMismatchError: some field differs; the message names each with both values.
        """
        check_same(self.fingerprint, fingerprint, place, "was built by another encoder")

    def check_cutting(self, cutting: Mapping[str, Any], place: str) -> None:
        """Refuse to cut texts otherwise than those here were cut."""
        check_same(self.cutting, cutting, place, "cuts its texts otherwise")


def check_same(here: Fingerprint | None, given: Fingerprint | None, place: str, what: str) -> None:
    """Compare two mappings after a round through JSON, so that a tuple equals a list."""
    if here is None or given is None:
        if here is not given:
            made = "ready vectors, of which no encoder is known" if here is None else "an encoder"
            raise IndexMismatchError(
                f"{place} was built from {made}; this call brings "
                f"{'no encoder' if given is None else 'an encoder'}. "
                + ("Search it with vectors" if here is None else "Name the model that it was built with")
            )
        return
    ours, theirs = json.loads(json.dumps(here, default=dict)), json.loads(json.dumps(given, default=dict))
    absent = "(absent)"
    differing = [
        f"{name} is {_short(ours.get(name, absent))} there and {_short(theirs.get(name, absent))} here"
        for name in sorted({*ours, *theirs})
        if ours.get(name, absent) != theirs.get(name, absent)
    ]
    if differing:
        raise IndexMismatchError(
            f"{place} {what}: {'; '.join(differing)}. Use what it was built with, or build again"
        )


def _short(value: Any) -> str:  # Any: whatever JSON holds
    text = value if value == "(absent)" else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…{text[-1]}"
