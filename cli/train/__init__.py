"""`embedkit train`: a tokenizer, a pretrained encoder, and the curves of runs."""

from __future__ import annotations

import typer

from . import contrastive as train_contrastive
from . import distill as train_distill
from . import mlm as train_mlm
from . import plot as train_plot
from . import reranker as train_reranker
from . import tokenizer as train_tokenizer

app = typer.Typer(no_args_is_help=True, help="Train tokenizers and models.")
app.command("tokenizer", epilog=train_tokenizer.EXAMPLES)(train_tokenizer.train_tokenizer)
app.command("mlm", epilog=train_mlm.EXAMPLES)(train_mlm.train_mlm)
app.command("plot", epilog=train_plot.EXAMPLES)(train_plot.train_plot)
app.command("distill", epilog=train_distill.EXAMPLES)(train_distill.train_distill)
app.command("reranker", epilog=train_reranker.EXAMPLES)(train_reranker.train_reranker)
app.command("contrastive", epilog=train_contrastive.EXAMPLES)(train_contrastive.train_contrastive)
