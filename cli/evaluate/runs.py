"""`embedkit evaluate run` and `trend`: runs that are there already, and results that were saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..shared import console, options
from ..shared.completing import complete_metric
from ..shared.groups import grouped
from .output import Metrics, Showing, chosen_metrics, present

RUN_EXAMPLES = """\b
Example:
  embedkit evaluate run qrels.txt bm25.trec dense.trec --metric ndcg@10 --metric map
"""
TREND_EXAMPLES = """\b
Example:
  embedkit evaluate trend results/*/*.json --metric ndcg@10
"""


@grouped
def run(
    qrels: Annotated[Path, typer.Argument(metavar="QRELS", help="Judgements as TREC or BEIR writes them.")],
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="TREC runs to measure.", show_default=False)
    ],
    *,
    metric: Metrics = None,
    ignore_ranks: Annotated[
        bool,
        typer.Option("--ignore-ranks", help="Order by score even where the column of ranks says otherwise."),
    ] = False,
    ignore_identical_ids: Annotated[
        bool | None,
        typer.Option(
            "--ignore-identical-ids/--keep-identical-ids",
            help="Leave out hits with the id of their query, as BEIR does. Default: keep them, and say where they come first.",
            show_default=False,
        ),
    ] = None,
    showing: Showing,
) -> None:
    """Measure run files, as trec_eval does."""
    from embedkit.data.trec import read_qrels, read_run
    from embedkit.evaluation.identical_ids import of_run
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.evaluation.results import Evaluation, collect_provenance
    from embedkit.evaluation.retrieval import STANDARD_METRICS, evaluate_retrieval
    from embedkit.pipelines.systems import labels

    shown = chosen_metrics(metric, [str(each) for each in STANDARD_METRICS])
    judgements = read_qrels(qrels)
    # The run is the system, not the data: two runs on the same judgements compare.
    provenance = collect_provenance(command=console.command_words(), data=[qrels])
    evaluations = []
    for path, name in zip(runs, labels(runs), strict=True):
        given, ignored, notes = of_run(
            judgements, read_run(path, check_ranks=not ignore_ranks), wanted=ignore_identical_ids
        )
        result = evaluate_retrieval(judgements, given, [parse_metric(each) for each in shown])
        evaluations.append(
            Evaluation(
                kind="retrieval",
                system=name,
                dataset=qrels.name,
                values=result.means,
                provenance=provenance,
                counts={"queries": result.num_queries, **ignored},
                notes=(*notes, *result.notes()),
                per_query=result.per_query,
            )
        )
    present(evaluations, shown, showing)


def trend(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Results written by --save.", show_default=False)
    ],
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="What to follow.", autocompletion=complete_metric)
    ] = "ndcg@10",
    as_json: options.AsJson = False,
) -> None:
    """Follow a metric through saved results, by set and system, from the oldest on."""
    from dataclasses import asdict

    from embedkit.evaluation.trend import trend as follow

    rows = follow(files, metric)
    if console.wants_json(as_json):
        for row in rows:
            console.print_json({"metric": metric, **asdict(row)})
        return
    console.print_table(
        ("set", "system", "when", metric, "change", "model", "file"),
        [
            (
                row.dataset,
                row.system,
                row.created[:16].replace("T", " "),
                f"{row.value:.4f}",
                "other data" if row.data_changed else "" if row.change is None else f"{row.change:+.4f}",
                row.fingerprint[:8],
                row.path,
            )
            for row in rows
        ],
    )
