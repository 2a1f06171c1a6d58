"""`embedkit compare`: is B better than A, is it chance, and which queries made the difference?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import SHIPPED

from .evaluate.output import IdenticalIds
from .evaluate.progress import watch
from .evaluate.retrieval import CacheDir, Split
from .shared import console, options
from .shared.completing import complete_metric, complete_system
from .shared.groups import grouped
from .shared.plain import plain

if TYPE_CHECKING:
    from embedkit.data.beir import RetrievalSet
    from embedkit.data.qrels import Qrels, Run
    from embedkit.evaluation.compare import Comparison, QueryChange
    from embedkit.retrieval.options import Mode

EXAMPLES = """\b
Examples:
  embedkit compare bm25.trec dense.trec --qrels qrels.txt
  embedkit compare bm25 FOLDER:hybrid --set scifact --html comparison.html
  embedkit compare old/scifact.mine.json new/scifact.mine.json --metric mrr@10
"""
SIDE_HELP = "A TREC run, a result saved as .json, or with --set: bm25, a model folder, or FOLDER:hybrid."
# Documents and queries are shown in the terminal by so many characters.
SHOWN_CHARACTERS = 90


@dataclass(frozen=True, kw_only=True)
class JudgedRuns:
    """What the two are judged by: a test set, or judgements of two runs."""

    set_: Annotated[
        Path | None,
        typer.Option(
            "--set",
            metavar="FOLDER",
            help="Test set (BEIR folder) with judgements and texts.",
            show_default=False,
        ),
    ] = None
    split: Split = "test"
    qrels: Annotated[
        Path | None,
        typer.Option("--qrels", metavar="FILE", help="Judgements of two runs.", show_default=False),
    ] = None
    ignore_identical_ids: IdenticalIds = None
    cache_dir: CacheDir = None
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="What to compare.", autocompletion=complete_metric)
    ] = "ndcg@10"
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the resampling.")] = 0


@grouped
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=SIDE_HELP, autocompletion=complete_system)],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", help="The same; the difference is B minus A.", autocompletion=complete_system
        ),
    ],
    *,
    judged: JudgedRuns,
    examples: Annotated[
        int, typer.Option("--examples", metavar="N", min=0, help="Queries shown each way.")
    ] = 5,
    hits: Annotated[int, typer.Option("--hits", metavar="N", min=0, help="Top hits shown of each.")] = 3,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with plots and top hits.", show_default=False
        ),
    ] = None,
    computing: options.ComputingOptions,
    printing: options.Printing,
) -> None:
    """Compare two runs, saved results, models or modes, query by query.

    Prints the difference of the means with a paired randomisation test and a bootstrap interval, and the queries that got
    worse and better with the top hits of both.
    """
    from embedkit.data.beir import load_retrieval_set
    from embedkit.evaluation.compare import add_texts, compare_runs, wanted_documents
    from embedkit.evaluation.compare_html import render_html
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.storage.files import write_text

    if judged.set_ is not None and judged.qrels is not None:
        raise typer.BadParameter("--set and --qrels exclude each other: a set has its own judgements")
    test = load_retrieval_set(judged.set_, split=judged.split) if judged.set_ is not None else None
    if _are_saved(a, b, judged):
        comparison = _compare_saved(Path(a), Path(b), metric=judged.metric, seed=judged.seed)
    else:
        metric = parse_metric(judged.metric)
        sides = _Sides(test, judged, computing, _ignored(test, judged))
        (first, second), names = sides.runs((a, b))
        comparison = compare_runs(
            sides.qrels,
            first,
            second,
            metric=metric,
            names=names,
            examples=max(examples, 10),
            hits=hits,
            seed=judged.seed,
        )
    if test is not None:
        documents = _texts(test, wanted_documents(comparison))
        comparison = add_texts(comparison, queries=test.queries, documents=documents)
    if console.wants_json(printing.as_json):
        console.print_json(comparison.as_dict())
    else:
        _print(comparison, examples)
    if html is not None:
        write_text(html, render_html(comparison))
        console.note(f"wrote {html}")


def _are_saved(a: str, b: str, judged: JudgedRuns) -> bool:
    """Say whether both sides are saved results, which hold a figure of each query and no hits to judge anew."""
    saved = [side.endswith(".json") for side in (a, b)]
    if any(saved) and not all(saved):
        result, other = (a, b) if saved[0] else (b, a)
        raise typer.BadParameter(
            f"{result} is a saved result, and {other} is none: a result compares with a result only. "
            "Save the other too, with: embedkit evaluate … --save FOLDER"
        )
    if all(saved) and (judged.qrels is not None or judged.ignore_identical_ids is not None):
        raise typer.BadParameter(
            "saved results are judged already: they go without --qrels, --ignore-identical-ids and --keep-identical-ids. "
            "Evaluate again, or compare the runs"
        )
    return all(saved)


def _ignored(test: RetrievalSet | None, judged: JudgedRuns) -> bool | None:
    """Say whether hits with the id of their query are left out of both sides; None where no texts can tell."""
    from embedkit.evaluation.identical_ids import ignored_note, own_documents, queries_are_documents

    ignored = judged.ignore_identical_ids
    if ignored is None and test is not None and test.corpus is not None:
        own = own_documents(test.queries, test.corpus)
        ignored = queries_are_documents(test.queries, test.qrels, own)
    if ignored:
        console.note(f"note: {ignored_note(judged.ignore_identical_ids)}")
    return ignored


def _compare_saved(a: Path, b: Path, *, metric: str, seed: int) -> Comparison:
    from embedkit.errors import EvaluationError
    from embedkit.evaluation.compare import compare_values
    from embedkit.evaluation.identical_ids import IGNORED
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.evaluation.results import load_evaluation
    from embedkit.pipelines.systems import labels

    first, second = load_evaluation(a), load_evaluation(b)
    if metric not in first.per_query:  # such as rougeL, of generated texts
        metric = str(parse_metric(metric))
    for path, result in ((a, first), (b, second)):
        if metric not in result.per_query:
            raise EvaluationError(
                f"{path}: no values of {metric!r} query by query; there are {', '.join(result.per_query) or 'none'}. "
                "Choose one with --metric, or evaluate again"
            )
    hashes = [sorted(each.provenance.data.values()) for each in (first, second)]
    if hashes[0] != hashes[1]:
        raise EvaluationError(
            f"{a} was measured on {first.dataset!r} and {b} on {second.dataset!r}, whose files differ: such values do "
            "not compare. Measure both on the same files"
        )
    if (IGNORED in first.counts) != (IGNORED in second.counts):
        kept = b if IGNORED in first.counts else a
        raise EvaluationError(
            f"{kept} counts hits with the id of their query, and the other result does not; such values do not compare. "
            "Measure both alike, with --ignore-identical-ids or --keep-identical-ids"
        )
    names = (first.system, second.system)
    if names[0] == names[1]:  # the same system at two times
        one, other = labels([a, b])
        names = (one, other)
    return compare_values(
        first.per_query[metric], second.per_query[metric], metric=metric, names=names, seed=seed
    )


@dataclass(frozen=True)
class _Sides:
    """What is compared where it has to be searched or read."""

    test: RetrievalSet | None
    judged: JudgedRuns
    computing: options.ComputingOptions
    ignore_identical_ids: bool | None

    @cached_property
    def qrels(self) -> Qrels:
        from embedkit.data.trec import read_qrels

        if self.test is not None:
            return self.test.qrels
        if self.judged.qrels is None:
            raise typer.BadParameter("runs need judgements: name them with --qrels, or a test set with --set")
        return read_qrels(self.judged.qrels)

    def runs(self, sides: tuple[str, str]) -> tuple[tuple[Run, Run], tuple[str, str]]:
        """Return the run and the name of each side."""
        from embedkit.pipelines.systems import labels

        first, second = (self._run(side, label) for side, label in zip(sides, labels(sides), strict=True))
        return (first[0], second[0]), (first[1], second[1])

    def _run(self, side: str, label: str) -> tuple[Run, str]:
        from embedkit.data.trec import read_run

        if not _is_system(side):
            from embedkit.evaluation.identical_ids import of_run

            run, _, notes = of_run(self.qrels, read_run(side), wanted=self.ignore_identical_ids)
            for text in notes if not self.ignore_identical_ids else ():  # else it is said already
                console.note(f"note: {label}: {text}")
            return run, label.removesuffix(".trec")
        if self.test is None:
            raise typer.BadParameter(f"{side!r} is a system, not a run: name a test set for it with --set")
        return self._search(side, self.test)

    def _search(self, side: str, test: RetrievalSet) -> tuple[Run, str]:
        """Search the set as `evaluate retrieval` does."""
        from embedkit.evaluation.retrieval import STANDARD_METRICS
        from embedkit.pipelines.collections import CollectionPlace
        from embedkit.pipelines.measuring import Job
        from embedkit.storage.cache import cache_folder

        is_words = side.lower() == "bm25"
        mode: Mode = "text" if is_words else "hybrid" if side.endswith(":hybrid") else "dense"
        job = Job(
            sets=[test],
            models=[] if is_words else [Path(side.removesuffix(":hybrid"))],
            modes=[mode],
            metrics=STANDARD_METRICS,
            place=CollectionPlace(cache_folder(self.judged.cache_dir), device=self.computing.index_device),
            command=console.command_words(),
            computing=self.computing,
            ignore_identical_ids=self.ignore_identical_ids,
        )
        measured = watch(job)[-1]  # BM25 comes first
        return measured.run, measured.evaluation.system


def _is_system(side: str) -> bool:
    name = side.removesuffix(":hybrid")
    return side.lower() == "bm25" or name in SHIPPED or Path(name).is_dir()


def _texts(test: RetrievalSet, wanted: set[str]) -> dict[str, str]:
    """Look up the shown documents."""
    from embedkit.data.reading import read_documents
    from embedkit.data.records import titled_text

    found: dict[str, str] = {}
    for document in read_documents([str(test.corpus)]):
        if document.doc_id in wanted:
            found[document.doc_id] = titled_text(document.title, document.text)
            if len(found) == len(wanted):
                break
    return found


def _print(comparison: Comparison, examples: int) -> None:
    test, interval = comparison.test, comparison.interval
    how = "exact" if test.exact else f"{test.rounds:,} rounds"
    console.print_table(
        ("system", comparison.metric),
        [
            (f"A  {comparison.name_a}", f"{comparison.mean_a:.4f}"),
            (f"B  {comparison.name_b}", f"{comparison.mean_b:.4f}"),
            ("B - A", f"{comparison.difference:+.4f}"),
        ],
    )
    console.say(
        f"{interval.confidence:.0%} interval {interval.low:+.4f} to {interval.high:+.4f} (bootstrap), "
        f"p = {test.p_value:.4g} (paired randomisation test, {how})\n"
        f"{len(comparison.changes):,} queries: B better in {comparison.wins:,}, same in {comparison.ties:,}, "
        f"worse in {comparison.losses:,}"
    )
    for heading, changes in (
        ("Worse under B", comparison.worse(examples)),
        ("Better under B", comparison.better(examples)),
    ):
        if changes:
            console.say(f"\n{heading}")
        for change in changes:
            _print_change(change)


def _print_change(change: QueryChange) -> None:
    """Print a query and the top hits of both, side by side; relevant ones are marked."""
    from itertools import zip_longest

    from rich.table import Table
    from rich.text import Text

    console.say(
        f"{change.difference:+.4f}  {change.a:.4f} -> {change.b:.4f}  {change.query_id}  {_cut(change.text)}"
    )
    if not change.hits_a and not change.hits_b:
        return
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in "AB":
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_row(Text("    A", style="dim"), Text("B", style="dim"))
    for pair in zip_longest(change.hits_a, change.hits_b):
        cells = []
        for hit, indent in zip(pair, ("    ", ""), strict=True):
            if hit is None:
                cells.append(Text(""))
                continue
            relevant = hit.level is not None and hit.level > 0
            mark = "+ " if relevant else "  "
            cells.append(
                Text(
                    f"{indent}{mark}{plain(hit.doc_id)}  {_cut(hit.text)}",
                    style="bold green" if relevant else "",
                )
            )
        table.add_row(*cells)
    console.styled().print(table)


def _cut(text: str) -> str:
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= SHOWN_CHARACTERS else flat[:SHOWN_CHARACTERS].rstrip() + "…"
