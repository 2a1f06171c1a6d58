"""`embedkit evaluate retrieval` and `reranking`: search pipelines on judged test sets, BM25 always beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from embedkit.models import ENCODER, RERANKER, shipped
from embedkit.retrieval.options import Mode

from ..shared import completing, console, options
from ..shared.groups import grouped
from .output import IdenticalIds, Metrics, Showing, chosen_metrics, file_name, present
from .progress import watch

if TYPE_CHECKING:
    from embedkit.data.beir import RetrievalSet
    from embedkit.pipelines.collections import CollectionPlace
    from embedkit.pipelines.measuring import Measured

RETRIEVAL_EXAMPLES = """\b
Examples:
  embedkit evaluate retrieval scifact
  embedkit evaluate retrieval scifact cisi -m ONE -m OTHER --mode dense --mode hybrid --metric ndcg@10
  embedkit evaluate retrieval --queries topics.txt --qrels qrels.txt --index my.index --rerank
"""
RERANKING_EXAMPLES = """\b
Examples:
  embedkit evaluate reranking scifact                                  # of what BM25 finds
  embedkit evaluate reranking scifact --model ENCODER --rerank FOLDER  # of what the encoder finds
  embedkit evaluate reranking scifact --mode dense --mode hybrid       # … by meaning alone, and with words
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
        autocompletion=completing.complete_model,
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
        autocompletion=completing.complete_model,
        help="Model folder or name whose hits are reranked; repeat for more. Default: the hits of BM25; with --mode "
        "as in evaluate retrieval.",
        show_default=False,
    ),
]
SomeIndex = Annotated[
    Path | None,
    typer.Option(
        "--index",
        "-i",
        metavar="FOLDER",
        help="Search this index, not the cache.",
        show_default=False,
        autocompletion=completing.complete_index,
    ),
]
Rerank = Annotated[
    list[str] | None,
    typer.Option(
        "--rerank",
        metavar="[MODEL]",
        autocompletion=completing.complete_reranker,
        help=f"Rerank with this cross-encoder or multi-vector model (without a value {RERANKER}), or with 'maxsim'; repeat for more.",
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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is searched: test sets, or queries and judgements with a collection; and where it is kept."""

    PANEL: ClassVar[str] = "Test data"

    index: SomeIndex = None
    split: Split = "test"
    queries: Queries = None
    qrels: Qrels = None
    corpus: Corpus = None
    ignore_identical_ids: IdenticalIds = None
    cache_dir: CacheDir = None

    def place(self, computing: options.ComputingOptions) -> CollectionPlace:
        """Say where the collections are searched."""
        from embedkit.pipelines.collections import CollectionPlace
        from embedkit.storage.cache import cache_folder

        return CollectionPlace(
            cache_folder(self.cache_dir), self.index, computing.index_device, options.shard_servers()
        )


@dataclass(frozen=True, kw_only=True)
class Rerankers:
    """What reranks, and how much of it."""

    rerank: Rerank = None
    rerank_weight: options.RerankWeight = None
    candidates: Candidates = 100


@grouped
def retrieval(
    folders: Folders = None,
    *,
    model: Models = None,
    mode: Annotated[
        list[Mode] | None,
        typer.Option(
            "--mode",
            help="By meaning (dense), by words (text), or both; repeat for more. Default: dense.",
            show_default=False,
        ),
    ] = None,
    reranked: Rerankers,
    fusion: options.FusionOption = "scores",
    text_weight: Annotated[
        list[float] | None,
        typer.Option(
            "--text-weight",
            rich_help_panel=options.TUNING,
            metavar="W",
            min=0.0,
            help="Weight of words in mode hybrid, where meaning has 1; repeat for more.",
            show_default="1",
        ),
    ] = None,
    metric: Metrics = None,
    judged: Judged,
    computing: options.ComputingOptions,
    merge_tokens: options.MergeTokens = None,
    recursions: options.Recursions = None,
    showing: Showing,
) -> None:
    """Measure search pipelines on judged test sets.

    Every model in every mode on every set, in one table, with BM25 beside. A collection is encoded once, title before
    text, and kept in the cache: the same again takes seconds. With one set six metrics are shown, with several nDCG@10.
    """
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.evaluation.retrieval import STANDARD_METRICS
    from embedkit.pipelines.measuring import Job

    sets = _sets(folders or [], judged, saved=showing.save is not None)
    usual = [str(each) for each in STANDARD_METRICS]
    shown = chosen_metrics(metric, usual if len(sets) == 1 else usual[:1])
    modes = mode or ["dense"]
    if "hybrid" not in modes and (text_weight or fusion != "scores"):
        raise typer.BadParameter("--text-weight and --fusion are for --mode hybrid")
    rerank = reranked.rerank or []
    job = Job(
        sets=sets,
        models=_models(model, modes, rerank, judged),
        modes=modes,
        metrics=[parse_metric(name) for name in dict.fromkeys([*usual, *shown])],
        place=judged.place(computing),
        command=console.command_words(),
        rerank=rerank,
        rerank_weight=reranked.rerank_weight,
        fusion=fusion,
        text_weights=list(dict.fromkeys(text_weight or [1.0])),
        candidates=reranked.candidates,
        computing=computing,
        merge_tokens=merge_tokens,
        recursions=recursions,
        ignore_identical_ids=judged.ignore_identical_ids,
    )
    _present(watch(job), shown, showing)


@grouped
def reranking(
    folders: Folders = None,
    *,
    reranked: Rerankers,
    model: FirstModels = None,
    mode: Annotated[
        list[Mode] | None,
        typer.Option(
            "--mode",
            help="Whose hits: by meaning (dense), by words (text), or both; repeat for more. Default: text, with --model or --index "
            "dense.",
            show_default=False,
        ),
    ] = None,
    metric: Metrics = None,
    judged: Judged,
    computing: options.ComputingOptions,
    showing: Showing,
) -> None:
    """Measure what reranking gains and costs: the same hits with and without it, ms per query and pairs per second.

    The hits are those of BM25, with --model or --index those of a search by meaning, or what --mode says.
    """
    from embedkit.evaluation.metrics import parse_metric
    from embedkit.pipelines.measuring import Job

    sets = _sets(folders or [], judged, saved=showing.save is not None)
    shown = chosen_metrics(metric, ["map@100", "mrr@10", "ndcg@10"])
    modes: list[Mode] = mode or (["dense"] if model or judged.index is not None else ["text"])
    job = Job(
        sets=sets,
        models=_models(model, modes, reranked.rerank or [], judged),
        modes=modes,
        metrics=[parse_metric(name) for name in shown],
        place=judged.place(computing),
        command=console.command_words(),
        rerank=reranked.rerank or [str(shipped(RERANKER))],
        rerank_weight=reranked.rerank_weight,
        candidates=reranked.candidates,
        computing=computing,
        kind="reranking",
        ignore_identical_ids=judged.ignore_identical_ids,
    )
    _present(watch(job), [*shown, "ms/query", "pairs/s"], showing)


def _models(
    model: Sequence[str] | None, modes: Sequence[Mode], rerank: Sequence[str], judged: Judged
) -> Sequence[str | Path]:
    """Return the models that are named, or the default where one is needed: words alone need none, and an index has its own."""
    from embedkit.pipelines.models import MAXSIM, or_default

    by_words = set(modes) == {"text"} and MAXSIM not in rerank
    if model or by_words or judged.index is not None:
        return model or ()
    return [or_default(None)]


def _present(measured: list[Measured], shown: list[str], showing: Showing) -> None:
    runs = {}
    if showing.save is not None:
        runs = {file_name(each.evaluation): each.run for each in measured}
    present([each.evaluation for each in measured], shown, showing, runs=runs)


def _sets(folders: list[Path], judged: Judged, *, saved: bool) -> list[RetrievalSet]:
    """Read the test sets; where runs are `saved` their ids must fit one before anything is searched."""
    from embedkit.data.beir import load_retrieval_set, load_topic_set
    from embedkit.data.trec import refuse_white_space

    queries, qrels, corpus, index = judged.queries, judged.qrels, judged.corpus, judged.index
    if (queries is None) != (qrels is None):
        raise typer.BadParameter("--queries and --qrels go together")
    if not folders and queries is None:
        raise typer.BadParameter("name a FOLDER, or --queries and --qrels")
    if corpus is not None and queries is None:
        raise typer.BadParameter("--corpus goes with --queries and --qrels; a FOLDER has its own")
    sets = [load_retrieval_set(folder, split=judged.split) for folder in folders]
    if queries is not None and qrels is not None:
        sets.append(load_topic_set(queries, qrels, corpus=corpus))
    if index is None and any(each.corpus is None for each in sets):
        raise typer.BadParameter("name the collection with --corpus, or an index of it with --index")
    if index is not None and len(sets) > 1:
        raise typer.BadParameter(f"--index holds one collection; {len(sets)} test sets were named")
    names = [each.name for each in sets]
    if len(set(names)) < len(names):
        raise typer.BadParameter(f"two test sets have one name: {', '.join(names)}; rename a folder")
    for query_id in (query_id for each in sets for query_id in each.queries if saved):
        refuse_white_space(query_id, "query id")
    return sets
