"""Results that last: what was measured, on which data, by which model, in a JSON file; tables and trends of them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from embedkit.errors import EvaluationError, RecordError
from embedkit.storage.files import write_text
from embedkit.storage.hashing import file_hash

FORMAT = "embedkit evaluation"
VERSION = 1
PACKAGES = ("embedkit", "numpy", "torch", "tokenizers", "faiss-cpu")

# Of all other measures more is better.
LESS_IS_BETTER = ("perplexity", "bits per byte", "copied")
Kind = Literal["retrieval", "reranking", "similarity", "pairs", "triplets", "clustering", "generation"]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a result comes from, so that it can be had again."""

    command: tuple[str, ...]
    created: str  # ISO 8601, UTC
    data: Mapping[str, str]  # file name -> SHA-256
    fingerprint: str  # of the model; "" where none took part, as for BM25 or a run file
    versions: Mapping[str, str]  # package -> version


def collect_provenance(
    *, command: Sequence[str], data: Sequence[str | Path], fingerprint: str = ""
) -> Provenance:
    """Hash the data files and note the versions and the time.

    Raises:
        RecordError: a data file cannot be read.
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree, or not needed here
            continue
    return Provenance(
        command=tuple(command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data={Path(path).as_posix(): file_hash(path) for path in data},
        fingerprint=fingerprint,
        versions=versions,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One system measured on one data set."""

    kind: Kind
    system: str
    dataset: str
    values: Mapping[str, float]  # metric -> value
    provenance: Provenance
    counts: Mapping[str, int] = field(default_factory=dict)  # such as queries, pairs
    notes: tuple[str, ...] = ()
    per_query: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def save_evaluation(path: str | Path, evaluation: Evaluation) -> None:
    """Write an evaluation as JSON.

    Raises:
        OutputError: the file cannot be written.
        EvaluationError: a value is not finite, which JSON cannot hold.
    """
    content = {"format": FORMAT, "version": VERSION, **asdict(evaluation)}
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as exc:
        raise EvaluationError(
            f"{path}: a value of {evaluation.system!r} on {evaluation.dataset!r} is not finite; nothing was written. "
            "Look at what made it"
        ) from exc
    write_text(path, text + "\n")


def load_evaluation(path: str | Path) -> Evaluation:
    """Read an evaluation that `save_evaluation` wrote, now or in any earlier version.

    Raises:
        RecordError: the file cannot be read, is none of ours, newer than this version, or lacks something.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise RecordError(f"{path}: cannot be read ({exc.strerror or exc}). Check the path") from exc
    except ValueError as exc:
        raise RecordError(f"{path}: not JSON ({exc}). Name a file that was saved as an evaluation") from exc
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path}: no {FORMAT!r} file. Name a file that was saved as an evaluation")
    if content.get("version") != VERSION:
        raise RecordError(
            f"{path}: format version {content.get('version')}; this embedkit reads version {VERSION}. Upgrade it"
        )
    del content["format"], content["version"]
    _check(content, Evaluation, f"{path}")
    _check(content["provenance"], Provenance, f"{path}: provenance")
    if content["kind"] not in get_args(Kind):
        raise RecordError(
            f"{path}: kind is {content['kind']!r}; it must be one of {', '.join(get_args(Kind))}. Save it again"
        )
    for name, number in content["values"].items():
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise RecordError(
                f"{path}: the value of {name} is {number!r}; it must be a number. Save it again"
            )
    provenance = content["provenance"]
    provenance["command"] = tuple(provenance["command"])
    content["notes"] = tuple(content["notes"])
    return Evaluation(**{**content, "provenance": Provenance(**provenance)})


# Any: whatever JSON holds; this is where it is looked at.
def _check(content: Any, kind: type[Evaluation] | type[Provenance], where: str) -> None:
    if not isinstance(content, dict):
        raise RecordError(f"{where} is {type(content).__name__}; it must be an object. Save it again")
    expected = {each.name for each in fields(kind)}
    if set(content) != expected:
        missing = ", ".join(sorted(expected - set(content))) or "nothing"
        extra = ", ".join(sorted(set(content) - expected)) or "nothing"
        raise RecordError(f"{where}: missing {missing}; unknown {extra}. Save it again")
    for each in fields(kind):
        # The annotations are text here, and three shapes are all there are.
        shape = {"Mapping": dict, "tuple": list, "Provenance": dict}.get(str(each.type).split("[")[0], str)
        if not isinstance(content[each.name], shape):
            raise RecordError(
                f"{where}: {each.name} is {type(content[each.name]).__name__}; it must be {shape.__name__}. "
                "Save it again"
            )


@dataclass(frozen=True, slots=True)
class Table:
    """A header and rows of cells, ready to print; `best` marks the cells that lead their column."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]]  # (row, column)


def tabulate(evaluations: Sequence[Evaluation], metrics: Sequence[str], *, digits: int = 4) -> Table:
    """Set out systems (rows) by data set and metric (columns); an empty cell was not measured.

    Raises:
        EvaluationError: one system was measured twice on one data set with one metric.
    """
    systems = list(dict.fromkeys(each.system for each in evaluations))
    columns = [
        (dataset, metric)
        for dataset in dict.fromkeys(each.dataset for each in evaluations)
        for metric in metrics
        if any(each.dataset == dataset and metric in each.values for each in evaluations)
    ]
    cells: dict[tuple[str, str, str], float] = {}
    for each in evaluations:
        for metric in metrics:
            if metric not in each.values:
                continue
            cell = (each.system, each.dataset, metric)
            if cell in cells:
                raise EvaluationError(
                    f"{each.system!r} has two values of {metric} on {each.dataset!r}; a table has room for one. "
                    "Leave one out, or ask for the trend"
                )
            cells[cell] = each.values[metric]
    rows, best = [], set()
    for row, system in enumerate(systems):
        numbers = [cells.get((system, *column)) for column in columns]
        rows.append((system, *("" if number is None else f"{number:.{digits}f}" for number in numbers)))
        for place, (column, number) in enumerate(zip(columns, numbers, strict=True), 1):
            leading = min if column[1] in LESS_IS_BETTER else max
            best_here = leading(cells[(other, *column)] for other in systems if (other, *column) in cells)
            if len(systems) > 1 and number is not None and round(number, digits) == round(best_here, digits):
                best.add((row, place))
    return Table(
        ("system", *(f"{dataset} {metric}" for dataset, metric in columns)), tuple(rows), frozenset(best)
    )


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, the best cells bold."""
    lines = [
        "| " + " | ".join(_escape(cell) for cell in table.header) + " |",
        "|---|" + "---:|" * (len(table.header) - 1),
    ]
    for row, cells in enumerate(table.rows):
        shown = [
            f"**{_escape(cell)}**" if (row, column) in table.best else _escape(cell)
            for column, cell in enumerate(cells)
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _escape(cell: str) -> str:
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")
