"""`embedkit evaluate`: how good is a model, an index setting or a pipeline?"""

from __future__ import annotations

import typer

from ..shared.options import RerankCommand
from . import retrieval as evaluate_retrieval
from . import runs as evaluate_runs
from . import texts as evaluate_texts

app = typer.Typer(
    name="evaluate", help="Measure models, pipelines and runs on judged data.", no_args_is_help=True
)
app.command("retrieval", cls=RerankCommand, epilog=evaluate_retrieval.RETRIEVAL_EXAMPLES)(
    evaluate_retrieval.retrieval
)
app.command("reranking", cls=RerankCommand, epilog=evaluate_retrieval.RERANKING_EXAMPLES)(
    evaluate_retrieval.reranking
)
app.command("similarity", epilog=evaluate_texts.SIMILARITY_EXAMPLES)(evaluate_texts.similarity)
app.command("clustering", epilog=evaluate_texts.CLUSTERING_EXAMPLES)(evaluate_texts.clustering)
app.command("run", epilog=evaluate_runs.RUN_EXAMPLES)(evaluate_runs.run)
app.command("trend", epilog=evaluate_runs.TREND_EXAMPLES)(evaluate_runs.trend)
