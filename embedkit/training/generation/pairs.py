"""Pairs to learn generation from: sources, each with all the targets that the data have for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedkit.data.beir import folder_and_split
from embedkit.data.records import ReadOptions
from embedkit.errors import RecordError
from embedkit.training.rows.files import Row, read_rows
from embedkit.training.rows.retrieval_set import read_retrieval_rows

Ints = NDArray[np.int64]
Side = Literal["source", "target"]
# Looked for in this order. What answers, describes or is found is read; what asks, names or sums up is written.
USUAL_NAMES: Mapping[Side, tuple[str, ...]] = {
    "source": (
        *("source", "input", "passage", "document", "positive", "pos", "context", "article", "abstract"),
        *("lead", "body", "text", "content", "contents", "answer", "definition", "sentence1", "text1"),
    ),
    "target": (
        *("target", "output", "query", "question", "anchor", "summary", "headline", "title"),
        *("sentence2", "text2"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class SourceTargets:
    """Q distinct sources, each with one target or more; `described` says which columns they are of."""

    sources: Sequence[str]
    targets: Sequence[Sequence[str]]
    described: str = ""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def num_targets(self) -> int:
        return sum(map(len, self.targets))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all texts."""
        digest = hashlib.sha256()
        for source, targets in zip(self.sources, self.targets, strict=True):
            for text in (source, *targets, ""):
                digest.update(text.encode("utf-8") + b"\0")
        return digest.hexdigest()

    def take(self, rows: Iterable[int]) -> SourceTargets:
        rows = list(rows)
        return SourceTargets(
            sources=[self.sources[row] for row in rows],
            targets=[self.targets[row] for row in rows],
            described=self.described,
        )

    def split(self, share: float, *, most: int) -> tuple[SourceTargets, SourceTargets]:
        """Part the sources into those to train on and those held out, by their number alone.

        Raises:
            RecordError: there are fewer than two sources.
        """
        if len(self) < 2:
            raise RecordError(
                f"{len(self)} distinct source in the training data; at least 2 are needed, one of them held out. Give more rows"
            )
        order = np.random.default_rng(0).permutation(len(self)).tolist()
        count = min(max(1, round(share * len(self))), most, len(self) - 1)
        return self.take(order[count:]), self.take(order[:count])


def parse_sides(options: Iterable[str]) -> dict[Side, str]:
    """Read `SIDE=NAME` options.

    Raises:
        RecordError: an option is not of that form.
    """
    found: dict[Side, str] = {}
    for option in options:
        side, equals, name = option.partition("=")
        if not equals or not name or side not in get_args(Side):
            raise RecordError(
                f"--column {option!r}: wanted source=NAME or target=NAME, such as --column source=passage"
            )
        found[side] = name  # type: ignore[index] # one of the two, as just checked
    return found


def read_source_targets(
    sources: Sequence[str],
    *,
    columns: Mapping[Side, str] | None = None,
    read: ReadOptions | None = None,
) -> SourceTargets:
    """Read files of pairs (JSONL, JSON, CSV, TSV, Parquet), or retrieval sets FOLDER[:SPLIT], whose queries are the targets.

    Equal sources are one, with the targets of all; a target may be a list of texts. Of `read` the delimiter and the header count.

    Raises:
        RecordError: a file or row cannot be read, has no such columns, or a text is empty; the message names the place.
    """
    found: dict[str, dict[str, None]] = {}
    described: dict[str, None] = {}
    for source in sources:
        for text, target, how in _read(source, columns or {}, read):
            found.setdefault(text, {})[target] = None
            described[how] = None
    if not found:
        raise RecordError(f"{', '.join(sources)}: there is no row in it; name another file")
    return SourceTargets(
        sources=list(found),
        targets=[list(targets) for targets in found.values()],
        described="; ".join(described),
    )


def _read(
    source: str, columns: Mapping[Side, str], options: ReadOptions | None
) -> Iterator[tuple[str, str, str]]:
    folder, split = folder_and_split(source)
    if (Path(folder) / "qrels").is_dir():
        rows = read_retrieval_rows(Path(folder), split, ("pairs", "triplets"), "a text generator")
        assert rows.second is not None
        for query, document in zip(rows.first.tolist(), rows.second.tolist(), strict=True):
            yield rows.texts[document], rows.texts[query], "source = documents, target = their queries"
        return
    names: Mapping[Side, str] | None = None
    how = ""
    for where, row in read_rows(source, options):
        if names is None:
            names = _find(row, columns, where)
            how = f"source = {names['source']!r}, target = {names['target']!r}"
        read = _text(where, row, names["source"])
        value = row.get(names["target"])
        targets = value if isinstance(value, list) else [value]
        if not targets:
            raise RecordError(
                f"{where}: {names['target']!r} is an empty list; it must hold a text. Take the row out or fill it in"
            )
        for target in targets:
            yield read, _text(where, {**row, names["target"]: target}, names["target"]), how


def _find(row: Row, given: Mapping[Side, str], where: str) -> dict[Side, str]:
    found: dict[Side, str] = {}
    for side, name in given.items():
        if name not in row:
            raise RecordError(
                f"{where}: missing column {name!r} (for {side}); columns here: {', '.join(row)}. Name another one"
            )
        found[side] = name
    for side, usual in USUAL_NAMES.items():
        if side in found:
            continue
        known = next((each for each in usual if each in row and each not in found.values()), None)
        if known is None:
            raise RecordError(
                f"{where}: columns here: {', '.join(row) or 'none'}; none of them is known as the {side}. "
                f"Say which it is with --column {side}=NAME"
            )
        found[side] = known
    return found


def _text(where: str, row: Mapping[str, Any], name: str) -> str:  # Any: whatever JSON holds
    if name not in row:
        raise RecordError(
            f"{where}: missing column {name!r}; columns here: {', '.join(row) or 'none'}. Every row must have what the first has"
        )
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        what = f"{type(value).__name__} {value!r}" if not isinstance(value, str) else "empty"
        raise RecordError(f"{where}: {name!r} is {what}; it must be a text. Take the row out or fill it in")
    return value
