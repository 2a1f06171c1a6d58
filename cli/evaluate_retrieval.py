"""`embedkit evaluate retrieval` and `reranking`: search pipelines on judged test sets, BM25 always beside."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .evaluate_output import AsMarkdown, Metrics, Save, chosen_metrics, file_name, present
from .options import DeviceName, PrecisionName

if TYPE_CHECKING:
    from embedkit.evaluation.beir import RetrievalSet

    from .evaluate_systems import Measured

RETRIEVAL_EXAMPLES = """\b
Examples:
  embedkit evaluate retrieval scifact --model FOLDER
  embedkit evaluate retrieval scifact cisi -m ONE -m OTHER --mode dense --mode hybrid --metric ndcg@10
  embedkit evaluate retrieval --queries topics.txt --qrels qrels.txt --index my.index --rerank FOLDER
"""
RERANKING_EXAMPLES = """\b
Examples:
  embedkit evaluate reranking scifact --rerank FOLDER                    (of what BM25 finds)
  embedkit evaluate reranking scifact --rerank FOLDER --model ENCODER    (of what the encoder finds)
"""


class ModeName(StrEnum):
    dense = "dense"
    text = "text"
    hybrid = "hybrid"


Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER",
        help="Test sets as BEIR has them: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv, each also .gz or .zst.",
        show_default=False,
    ),
]
Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model", "-m", metavar="FOLDER", help="Model folder; repeat for more.", show_default=False
    ),
]
SomeIndex = Annotated[
    Path | None,
    typer.Option(
        "--index", "-i", metavar="FOLDER", help="Search this index, not the cache.", show_default=False
    ),
]
Rerank = Annotated[
    list[str] | None,
    typer.Option(
        "--rerank",
        metavar="FOLDER",
        help="Rerank with this cross-encoder as well, or with 'maxsim'; repeat for more.",
        show_default=False,
    ),
]
Candidates = Annotated[
    int, typer.Option("--candidates", metavar="N", min=1, help="Hits that are reranked or fused.")
]
Split = Annotated[str, typer.Option("--split", metavar="NAME", help="The judgements: qrels/NAME.tsv.")]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        metavar="FILE",
        help="TREC topics or a query file, in place of FOLDER.",
        show_default=False,
    ),
]
Qrels = Annotated[
    Path | None,
    typer.Option(
        "--qrels", metavar="FILE", help="The judgements that go with --queries.", show_default=False
    ),
]
Corpus = Annotated[
    Path | None,
    typer.Option("--corpus", metavar="FILE", help="The documents that go with them.", show_default=False),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        envvar="EMBEDKIT_CACHE",
        help="Where encoded collections are kept. Default: ~/.cache/embedkit.",
        show_default=False,
    ),
]


def retrieval(
    folders: Folders = None,
    model: Models = None,
    mode: Annotated[
        list[ModeName] | None,
        typer.Option(
            "--mode",
            help="By meaning (dense), by words (text), or both; repeat for more. Default: dense.",
            show_default=False,
        ),
    ] = None,
    index: SomeIndex = None,
    rerank: Rerank = None,
    candidates: Candidates = 100,
    metric: Metrics = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: Qrels = None,
    corpus: Corpus = None,
    cache_dir: CacheDir = None,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.fp32,
    as_json: options.AsJson = False,
    as_markdown: AsMarkdown = False,
    save: Save = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure search pipelines on judged test sets.

    Every model in every mode on every set, in one table, with BM25 beside. A collection is encoded once, title before
    text, and kept in the cache: the same again takes seconds. With one set six metrics are shown, with several nDCG@10.
    """
    from embedkit.evaluation.cache import cache_folder
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.evaluation.retrieval import STANDARD_METRICS

    from .evaluate_collections import Place
    from .evaluate_systems import Job, measure

    sets = _sets(folders or [], split, queries, qrels, corpus, index)
    if mode and ModeName.dense in mode and not model and index is None:
        raise typer.BadParameter("--mode dense needs a model: name its folder with --model")
    usual = [str(each) for each in STANDARD_METRICS]
    shown = chosen_metrics(metric, usual if len(sets) == 1 else usual[:1])
    modes = mode or ([ModeName.dense] if model or index is not None else [ModeName.text])
    measured = measure(
        Job(
            sets=sets,
            models=model or [],
            modes=[each.value for each in modes],
            metrics=[parse_metric(name) for name in dict.fromkeys([*usual, *shown])],
            place=Place(cache_folder(cache_dir), precision.value, index, _index_device(device), quiet),
            rerank=rerank or [],
            candidates=candidates,
            device=device,
            precision=precision,
            quiet=quiet,
        )
    )
    _present(measured, shown, as_json=as_json, as_markdown=as_markdown, save=save)


def reranking(
    rerank: Rerank = None,
    folders: Folders = None,
    model: Models = None,
    index: SomeIndex = None,
    candidates: Candidates = 100,
    metric: Metrics = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: Qrels = None,
    corpus: Corpus = None,
    cache_dir: CacheDir = None,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.fp32,
    as_json: options.AsJson = False,
    as_markdown: AsMarkdown = False,
    save: Save = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure what reranking gains and costs: the same hits with and without it, ms a query and pairs a second.

    The hits are those of BM25, or with --model or --index those of a search by meaning.
    """
    from embedkit.evaluation.cache import cache_folder
    from embedkit.evaluation.metrics import parse_metric

    from .evaluate_collections import Place
    from .evaluate_systems import Job, measure

    if not rerank:
        raise typer.BadParameter("name a cross-encoder with --rerank, or 'maxsim'")
    sets = _sets(folders or [], split, queries, qrels, corpus, index)
    shown = chosen_metrics(metric, ["map@100", "mrr@10", "ndcg@10"])
    measured = measure(
        Job(
            sets=sets,
            models=model or [],
            modes=["dense"] if model or index is not None else ["text"],
            metrics=[parse_metric(name) for name in shown],
            place=Place(cache_folder(cache_dir), precision.value, index, _index_device(device), quiet),
            rerank=rerank,
            candidates=candidates,
            device=device,
            precision=precision,
            kind="reranking",
            quiet=quiet,
        )
    )
    _present(measured, [*shown, "ms/query", "pairs/s"], as_json=as_json, as_markdown=as_markdown, save=save)


def _present(
    measured: list[Measured], shown: list[str], *, as_json: bool, as_markdown: bool, save: Path | None
) -> None:
    runs = {file_name(each.evaluation): each.found.run() for each in measured} if save is not None else {}
    evaluations = [each.evaluation for each in measured]
    present(evaluations, shown, as_json=as_json, as_markdown=as_markdown, save=save, runs=runs)


def _index_device(device: DeviceName) -> str | None:
    return "cuda" if device == DeviceName.cuda else None


def _sets(
    folders: list[Path],
    split: str,
    queries: Path | None,
    qrels: Path | None,
    corpus: Path | None,
    index: Path | None,
) -> list[RetrievalSet]:
    from embedkit.evaluation.beir import load_retrieval_set, load_topic_set

    if (queries is None) != (qrels is None):
        raise typer.BadParameter("--queries and --qrels go together")
    if not folders and queries is None:
        raise typer.BadParameter("name a FOLDER, or --queries and --qrels")
    if corpus is not None and queries is None:
        raise typer.BadParameter("--corpus goes with --queries and --qrels; a FOLDER has its own")
    sets = [load_retrieval_set(folder, split=split) for folder in folders]
    if queries is not None and qrels is not None:
        sets.append(load_topic_set(queries, qrels, corpus=corpus))
    if index is not None and len(sets) > 1:
        raise typer.BadParameter(f"--index holds one collection; {len(sets)} test sets were named")
    names = [each.name for each in sets]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"two test sets have one name: {', '.join(names)}; rename a folder")
    return sets
