"""How evaluations are shown and saved: a table, Markdown, JSON lines, files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.completing import complete_metric

if TYPE_CHECKING:
    from embedkit.data.qrels import Run
    from embedkit.evaluation.results import Evaluation

AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FOLDER",
        help="Write each result there as SET.SYSTEM.json, for `compare` and `evaluate trend`; runs beside as .trec.",
        show_default=False,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        autocompletion=complete_metric,
        help="Such as ndcg@10, map, mrr@10, recall@100, p@5, success@1; repeat for more.",
        show_default=False,
    ),
]
IdenticalIds = Annotated[
    bool | None,
    typer.Option(
        "--ignore-identical-ids/--keep-identical-ids",
        help="Leave out hits with the id of their query, as BEIR does. Default: where the queries are documents of the "
        "collection, with their text (ArguAna, Quora).",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Tables(options.Printing):
    """How tables are shown."""

    as_markdown: AsMarkdown = False

    def __post_init__(self) -> None:
        if self.as_json and self.as_markdown:
            raise ValueError("--json and --markdown exclude each other")


@dataclass(frozen=True, kw_only=True)
class Showing(Tables):
    """How results are shown, and where they are saved."""

    save: Save = None


def present(
    evaluations: Sequence[Evaluation],
    metrics: Sequence[str],
    showing: Showing,
    *,
    runs: Mapping[str, Run] | None = None,
) -> None:
    """Print evaluations and what is odd about them; write them where asked. `runs` go by the name of a result's file."""
    from embedkit.evaluation.results import tabulate, to_markdown

    table = tabulate(evaluations, metrics)
    if showing.as_markdown:
        console.say(to_markdown(table).rstrip("\n"))
    elif console.wants_json(showing.as_json):
        for each in evaluations:
            console.print_json(_as_json(each))
    else:
        # With one set its name need not stand over every column.
        sets = list(dict.fromkeys(each.dataset for each in evaluations))
        alone = f"{sets[0]} " if len(sets) == 1 else None
        header = [name.removeprefix(alone) if alone else name for name in table.header]
        console.print_table(header, table.rows, title=alone)
    for dataset in dict.fromkeys(each.dataset for each in evaluations):
        here = [each for each in evaluations if each.dataset == dataset]
        for text in dict.fromkeys(text for each in here for text in each.notes):
            own = [each.system for each in here if text in each.notes]
            whose = "" if len(own) == len(here) else f" ({', '.join(own)})"
            console.note(f"note: {dataset}{whose}: {text}")
    if showing.save is not None:
        _save(evaluations, runs or {}, showing.save)


def _as_json(evaluation: Evaluation) -> dict[str, object]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(evaluation).items() if name != "per_query"}


def file_name(evaluation: Evaluation) -> str:
    """Name a result's file by set and system, without its ending."""
    return ".".join(re.sub(r"[^\w.+-]+", "-", name) for name in (evaluation.dataset, evaluation.system))


def _save(evaluations: Sequence[Evaluation], runs: Mapping[str, Run], folder: Path) -> None:
    from embedkit.data.trec import write_run
    from embedkit.errors import OutputError
    from embedkit.evaluation.results import save_evaluation

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{folder}: cannot be made ({exc.strerror}). Check the path and the permissions"
        ) from exc
    for each in evaluations:
        name = file_name(each)
        save_evaluation(folder / f"{name}.json", each)
        if name in runs:
            write_run(folder / f"{name}.trec", runs[name], tag=re.sub(r"\s+", "-", each.system))
    console.note(f"{folder}: {len(evaluations)} results")


def chosen_metrics(names: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    """Return the metrics to show, in their canonical spelling.

    Raises:
        EvaluationError: one is not known.
    """
    from embedkit.evaluation.metrics import parse_metric

    return list(dict.fromkeys(str(parse_metric(name)) for name in (names or usual)))
