"""`embedkit evaluate retrieval` and `reranking`: search pipelines on judged test sets, BM25 always beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import ENCODER, RERANKER, shipped

from ..shared import models as which_model
from ..shared import options
from ..shared.options import DeviceName, FusionName, ModeName, PrecisionName
from .output import AsMarkdown, Metrics, Save, chosen_metrics, file_name, present

if TYPE_CHECKING:
    from embedkit.data.beir import RetrievalSet

    from .systems import Measured

RETRIEVAL_EXAMPLES = """\b
Examples:
  embedkit evaluate retrieval scifact
  embedkit evaluate retrieval scifact cisi -m ONE -m OTHER --mode dense --mode hybrid --metric ndcg@10
  embedkit evaluate retrieval --queries topics.txt --qrels qrels.txt --index my.index --rerank
"""
RERANKING_EXAMPLES = """\b
Examples:
  embedkit evaluate reranking scifact                                 (of what BM25 finds)
  embedkit evaluate reranking scifact --model ENCODER --rerank FOLDER (of what the encoder finds)
"""


Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER",
        help="Test sets as BEIR has them: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv, each also .gz or .zst.",
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=f"Model folder or name; repeat for more. Default: the index's, else $EMBEDKIT_MODEL, else {ENCODER}.",
        show_default=False,
    ),
]
FirstModels = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Model folder or name whose hits are reranked; repeat for more. Default: the hits of BM25.",
        show_default=False,
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
        metavar="[MODEL]",
        help=f"Rerank with this cross-encoder (without a value {RERANKER}), or with 'maxsim'; repeat for more.",
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
    rerank_weight: options.RerankWeight = None,
    fusion: options.FusionBy = FusionName.scores,
    candidates: Candidates = 100,
    metric: Metrics = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: Qrels = None,
    corpus: Corpus = None,
    cache_dir: CacheDir = None,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    merge_tokens: options.MergeTokens = None,
    as_json: options.AsJson = False,
    as_markdown: AsMarkdown = False,
    save: Save = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure search pipelines on judged test sets.

    Every model in every mode on every set, in one table, with BM25 beside. A collection is encoded once, title before
    text, and kept in the cache: the same again takes seconds. With one set six metrics are shown, with several nDCG@10.
    """
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.evaluation.retrieval import STANDARD_METRICS
    from embedkit.pipelines.collection_cache import cache_folder

    from .collections import Place
    from .systems import MAXSIM, Job, measure

    sets = _sets(folders or [], split, queries, qrels, corpus, index)
    usual = [str(each) for each in STANDARD_METRICS]
    shown = chosen_metrics(metric, usual if len(sets) == 1 else usual[:1])
    modes = mode or [ModeName.dense]
    by_words = set(modes) == {ModeName.text} and MAXSIM not in (rerank or [])
    models: Sequence[str | Path] = model or ()
    if not models and not by_words and index is None:
        models = [which_model.or_default(None)]
    measured = measure(
        Job(
            sets=sets,
            models=models,
            modes=[each.value for each in modes],
            metrics=[parse_metric(name) for name in dict.fromkeys([*usual, *shown])],
            place=Place(cache_folder(cache_dir), index, _index_device(device), quiet),
            rerank=rerank or [],
            rerank_weight=rerank_weight,
            fusion=fusion.value,
            candidates=candidates,
            device=device,
            precision=precision,
            merge_tokens=merge_tokens,
            quiet=quiet,
        )
    )
    _present(measured, shown, as_json=as_json, as_markdown=as_markdown, save=save)


def reranking(
    rerank: Rerank = None,
    rerank_weight: options.RerankWeight = None,
    folders: Folders = None,
    model: FirstModels = None,
    index: SomeIndex = None,
    candidates: Candidates = 100,
    metric: Metrics = None,
    split: Split = "test",
    queries: Queries = None,
    qrels: Qrels = None,
    corpus: Corpus = None,
    cache_dir: CacheDir = None,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    as_json: options.AsJson = False,
    as_markdown: AsMarkdown = False,
    save: Save = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure what reranking gains and costs: the same hits with and without it, ms a query and pairs a second.

    The hits are those of BM25, or with --model or --index those of a search by meaning.
    """
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.pipelines.collection_cache import cache_folder

    from .collections import Place
    from .systems import MAXSIM, Job, measure

    sets = _sets(folders or [], split, queries, qrels, corpus, index)
    shown = chosen_metrics(metric, ["map@100", "mrr@10", "ndcg@10"])
    models: Sequence[str | Path] = model or ()
    if not models and MAXSIM in (rerank or []) and index is None:
        models = [which_model.or_default(None)]
    measured = measure(
        Job(
            sets=sets,
            models=models,
            modes=["dense"] if model or index is not None else ["text"],
            metrics=[parse_metric(name) for name in shown],
            place=Place(cache_folder(cache_dir), index, _index_device(device), quiet),
            rerank=rerank or [str(shipped(RERANKER))],
            rerank_weight=rerank_weight,
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
    from embedkit.data.beir import load_retrieval_set, load_topic_set

    if (queries is None) != (qrels is None):
        raise typer.BadParameter("--queries and --qrels go together")
    if not folders and queries is None:
        raise typer.BadParameter("name a FOLDER, or --queries and --qrels")
    if corpus is not None and queries is None:
        raise typer.BadParameter("--corpus goes with --queries and --qrels; a FOLDER has its own")
    sets = [load_retrieval_set(folder, split=split) for folder in folders]
    if queries is not None and qrels is not None:
        sets.append(load_topic_set(queries, qrels, corpus=corpus))
    if index is None and any(each.corpus is None for each in sets):
        raise typer.BadParameter("name the collection with --corpus, or an index of it with --index")
    if index is not None and len(sets) > 1:
        raise typer.BadParameter(f"--index holds one collection; {len(sets)} test sets were named")
    names = [each.name for each in sets]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"two test sets have one name: {', '.join(names)}; rename a folder")
    return sets
