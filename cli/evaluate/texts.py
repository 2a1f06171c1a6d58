"""`embedkit evaluate similarity` and `clustering`: vectors alone, without a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedkit.models import ENCODER

from ..shared import completing, console, models, options
from ..shared.groups import grouped
from .output import Showing, present

if TYPE_CHECKING:
    from embedkit.evaluation.results import Evaluation, Kind
    from embedkit.evaluation.similarity import Embed

SIMILARITY_EXAMPLES = """\b
Examples:
  embedkit evaluate similarity stsb.tsv sick.tsv
  embedkit evaluate similarity pairs.jsonl -m FOLDER --task pairs --columns question,duplicate,same
"""
CLUSTERING_EXAMPLES = """\b
Example:
  embedkit evaluate clustering banking77.tsv --columns text,label
"""


Task = Literal["sts", "pairs", "triplets"]


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help=".tsv, .csv, .jsonl or .parquet with named columns, also .gz or .zst.",
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=completing.complete_model,
        help=f"Model folder or name; repeat for more. Default: $EMBEDKIT_MODEL, else {ENCODER}.",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,…",
        help="The columns to read, in this order.",
        show_default=False,
        autocompletion=completing.complete_fields,
    ),
]
# What is measured of one file: the kind of result, its values and its counts.
Measure = Callable[["Embed"], tuple["Kind", Mapping[str, float], Mapping[str, int]]]


@grouped
def similarity(
    files: Files,
    *,
    model: Models = None,
    task: Annotated[
        Task | None,
        typer.Option(
            "--task", help="What the third column is. Default: told by the columns.", show_default=False
        ),
    ] = None,
    columns: Columns = None,
    computing: options.ComputingOptions,
    recursions: options.Recursions = None,
    showing: Showing,
) -> None:
    """Measure cosines of pairs and triplets of texts.

    Scored pairs (sentence1, sentence2, score): Spearman and Pearson correlation. Labelled pairs (sentence1, sentence2,
    label 0 or 1): average precision, best F1 and accuracy with their thresholds. Triplets (anchor, positive, negative):
    accuracy.
    """
    measures = {path: _similarity_of(path, task, columns) for path in files}
    evaluations = _evaluate(measures, model, computing, recursions=recursions)
    _present(evaluations, showing)


def _similarity_of(path: Path, task: Task | None, columns: str | None) -> Measure:
    """Read a file and return what measures it."""
    from embedkit.evaluation import similarity as library

    names: dict[Task, tuple[str, ...]] = {
        "sts": library.STS_COLUMNS,
        "pairs": library.PAIR_COLUMNS,
        "triplets": library.TRIPLET_COLUMNS,
    }
    if columns is not None:
        if task is None:
            raise typer.BadParameter("--columns goes with --task: sts, pairs or triplets")
        chosen = _split(columns, 3)
    else:
        chosen = library.detect_columns(path) if task is None else names[task]
    task = task or next(name for name, usual in names.items() if usual == chosen)
    first, second, third = chosen
    if task == "triplets":
        rows = [(a, b, c) for a, b, c in library.read_columns(path, chosen)]

        def triplets(embed: Embed) -> tuple[Kind, Mapping[str, float], Mapping[str, int]]:
            found = library.evaluate_triplets(rows, embed)
            return (
                "triplets",
                {"accuracy": found.accuracy},
                {"triplets": found.num_triplets, "ties": found.num_ties},
            )

        return triplets
    pairs = library.read_scored_pairs(path, (first, second, third))

    def scored(embed: Embed) -> tuple[Kind, Mapping[str, float], Mapping[str, int]]:
        found = library.evaluate_similarity(pairs, embed)
        return (
            "similarity",
            {"spearman": found.spearman, "pearson": found.pearson},
            {"pairs": found.num_pairs},
        )

    def labelled(embed: Embed) -> tuple[Kind, Mapping[str, float], Mapping[str, int]]:
        found = library.evaluate_pairs(pairs, embed)
        values = {
            "ap": found.average_precision,
            "f1": found.f1,
            "f1 threshold": found.f1_threshold,
            "accuracy": found.accuracy,
            "accuracy threshold": found.accuracy_threshold,
        }
        return "pairs", values, {"pairs": found.num_pairs, "positives": found.num_positives}

    return scored if task == "sts" else labelled


@grouped
def clustering(
    files: Files,
    *,
    model: Models = None,
    columns: Columns = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="Seed of the first centres of k-means.")
    ] = 0,
    computing: options.ComputingOptions,
    recursions: options.Recursions = None,
    showing: Showing,
) -> None:
    """Cluster labelled texts (columns text, label) into as many clusters as labels, and compare: V-measure and adjusted Rand."""
    from embedkit.evaluation.clustering import evaluate_clustering
    from embedkit.evaluation.similarity import CLUSTERING_COLUMNS, read_columns

    chosen = CLUSTERING_COLUMNS if columns is None else _split(columns, 2)

    def reader(path: Path) -> Measure:
        texts = [(text, label) for text, label in read_columns(path, chosen)]

        def measure(embed: Embed) -> tuple[Kind, Mapping[str, float], Mapping[str, int]]:
            found = evaluate_clustering(texts, embed, seed=seed)
            values = {
                "v-measure": found.v_measure,
                "homogeneity": found.homogeneity,
                "completeness": found.completeness,
                "adjusted rand": found.adjusted_rand,
            }
            return "clustering", values, {"texts": found.num_texts, "labels": found.num_labels}

        return measure

    measures = {path: reader(path) for path in files}
    evaluations = _evaluate(measures, model, computing, recursions=recursions)
    _present(evaluations, showing)


def _split(columns: str, count: int) -> tuple[str, ...]:
    names = tuple(name.strip() for name in columns.split(","))
    if len(names) != count or not all(names):
        raise typer.BadParameter(f"--columns is {columns!r}; it must be {count} names with commas between")
    return names


def _evaluate(
    measures: Mapping[Path, Measure],
    named: Sequence[str] | None,
    computing: options.ComputingOptions,
    *,
    recursions: int | None,
) -> list[Evaluation]:
    from embedkit.errors import EvaluationError
    from embedkit.evaluation.results import Evaluation, collect_provenance
    from embedkit.pipelines.collection_cache import digest
    from embedkit.pipelines.models import load_encoder, or_default
    from embedkit.pipelines.systems import full_name, labels

    folders: Sequence[str | Path] = named or [or_default(None)]
    evaluations = []
    datasets = labels(list(measures))
    for folder, name in zip(folders, labels(folders), strict=True):
        encoder = load_encoder(folder, computing, recursions=recursions)
        models.say_choice(encoder.choice)
        models.say_names(encoder.folder.name)
        for (path, measure), dataset in zip(measures.items(), datasets, strict=True):
            with console.progress_bar(f"{dataset}: {name}") as bar:
                bar.update(None, "")
                try:
                    kind, values, counts = measure(lambda texts: encoder.encode(texts, on_truncate="ok"))  # noqa: B023 (called at once)
                except EvaluationError as exc:
                    raise EvaluationError(f"{path}: {exc}") from exc
            evaluations.append(
                Evaluation(
                    kind=kind,
                    system=full_name(name, computing, recursions=recursions),
                    dataset=dataset,
                    values=values,
                    provenance=collect_provenance(
                        command=console.command_words(), data=[path], fingerprint=digest(encoder.fingerprint)
                    ),
                    counts=counts,
                )
            )
    return evaluations


def _present(evaluations: list[Evaluation], showing: Showing) -> None:
    shown = list(dict.fromkeys(name for each in evaluations for name in each.values))
    present(evaluations, shown, showing)
