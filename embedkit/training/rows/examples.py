"""Training rows of any kind as columns: every distinct text once, rows as numbers of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.training.rows.columns import Kind

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
ALIKE_OR_NOT = ("0", "1")  # the classes that mean a pair is alike or not


@dataclass(frozen=True, kw_only=True)
class Examples:
    """R rows of one kind over U distinct texts.

    Shapes:
        first, second: (R,) numbers of texts; `first` is the text itself where there is one a row
        negatives: (R, K) numbers of texts, -1 where a row has fewer than others; K is 0 without negatives
        scores: (R,), as in the file
        labels: (R,) numbers of `classes`, which are in the order of their names
        vectors: (R, E)
        documents: (M, F) numbers of the texts of documents with F `fields`, -1 for a missing one; `second` and `negatives` are then
            numbers of these
        margins: (R, K) the teacher's score of the positive minus that of each negative, NaN where there is none
    """

    name: str
    kind: Kind
    texts: Sequence[str]
    first: Ints
    second: Ints | None = None
    negatives: Ints | None = None
    scores: Floats | None = None
    labels: Ints | None = None
    classes: tuple[str, ...] = ()
    vectors: Floats | None = None
    margins: Floats | None = None
    documents: Ints | None = None
    fields: tuple[str, ...] = ()
    described: str = ""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def short_name(self) -> str:
        """The last two parts of the name, without endings: stsb/train."""
        return "/".join(part.partition(".")[0] or part for part in Path(self.name).parts[-2:])

    @property
    def alike_or_not(self) -> bool:
        """Say whether the classes are 0 and 1, which mean that a pair is alike or not."""
        return set(self.classes) <= set(ALIKE_OR_NOT)

    @property
    def text_columns(self) -> Ints:
        """All texts of each row, (R, 1, 2 or 2 + K); -1 where there is none. Documents with fields are numbered after the texts."""
        columns = [self.first[:, None]]
        if self.documents is not None:
            assert self.second is not None
            others = self.second[:, None]
            if self.negatives is not None:
                others = np.concatenate([others, self.negatives], axis=1)
            return np.concatenate([*columns, np.where(others < 0, -1, others + len(self.texts))], axis=1)
        if self.second is not None:
            columns.append(self.second[:, None])
        if self.negatives is not None:
            columns.append(self.negatives)
        return np.concatenate(columns, axis=1)

    def take(self, rows: Ints) -> Examples:
        """Return some of the rows, over the same texts."""

        def some(array: NDArray[Any] | None) -> NDArray[Any] | None:  # Any: numbers of either kind
            return None if array is None else array[rows]

        return replace(
            self,
            first=self.first[rows],
            second=some(self.second),
            negatives=some(self.negatives),
            scores=some(self.scores),
            labels=some(self.labels),
            vectors=some(self.vectors),
            margins=some(self.margins),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in the rows."""
        digest = hashlib.sha256(self.kind.encode())
        for text in (*self.texts, *self.classes, *self.fields):
            digest.update(text.encode("utf-8") + b"\0")
        for array in (self.text_columns, self.scores, self.labels, self.vectors, self.margins):
            digest.update(b"|" if array is None else np.ascontiguousarray(array).tobytes())
        if self.documents is not None:
            digest.update(self.documents.tobytes())
        return digest.hexdigest()
