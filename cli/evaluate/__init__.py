"""`embedkit evaluate`: how good is a model, an index setting or a pipeline?"""

from __future__ import annotations

import typer

from ..shared.commands import RerankCommand, SearchCommand, examples, subcommand
from ..shared.usage import Group
from . import generation as evaluate_generation
from . import retrieval as evaluate_retrieval
from . import runs as evaluate_runs
from . import texts as evaluate_texts

app = typer.Typer(
    name="evaluate",
    cls=Group,
    help="Measure models, pipelines and runs on judged data.",
    epilog=examples("embedkit evaluate retrieval scifact", "embedkit evaluate similarity stsb.tsv"),
    no_args_is_help=True,
)
subcommand(app, "retrieval", cls=SearchCommand, epilog=evaluate_retrieval.RETRIEVAL_EXAMPLES)(
    evaluate_retrieval.retrieval
)
subcommand(app, "reranking", cls=RerankCommand, epilog=evaluate_retrieval.RERANKING_EXAMPLES)(
    evaluate_retrieval.reranking
)
subcommand(app, "similarity", epilog=evaluate_texts.SIMILARITY_EXAMPLES)(evaluate_texts.similarity)
subcommand(app, "clustering", epilog=evaluate_texts.CLUSTERING_EXAMPLES)(evaluate_texts.clustering)
subcommand(app, "generation", epilog=evaluate_generation.EXAMPLES)(evaluate_generation.generation)
subcommand(app, "run", epilog=evaluate_runs.RUN_EXAMPLES)(evaluate_runs.run)
subcommand(app, "trend", epilog=evaluate_runs.TREND_EXAMPLES)(evaluate_runs.trend)
