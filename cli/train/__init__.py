"""`embedkit train`: a tokenizer, a pretrained encoder, and the curves of runs."""

from __future__ import annotations

import typer

from ..shared.commands import examples, subcommand
from ..shared.usage import Group
from . import contrastive as train_contrastive
from . import distill as train_distill
from . import generation as train_generation
from . import language_model as train_language_model
from . import mlm as train_mlm
from . import plot as train_plot
from . import reranker as train_reranker
from . import tokenizer as train_tokenizer

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Train tokenizers and models.",
    epilog=examples(
        "embedkit train contrastive pairs.jsonl --model embedkit-small --output mine --steps 1000",
        "embedkit train plot mine",
    ),
)
subcommand(app, "tokenizer", epilog=train_tokenizer.EXAMPLES)(train_tokenizer.train_tokenizer)
subcommand(app, "mlm", epilog=train_mlm.EXAMPLES)(train_mlm.train_mlm)
subcommand(app, "contrastive", epilog=train_contrastive.EXAMPLES)(train_contrastive.train_contrastive)
subcommand(app, "distill", epilog=train_distill.EXAMPLES)(train_distill.train_distill)
subcommand(app, "reranker", epilog=train_reranker.EXAMPLES)(train_reranker.train_reranker)
subcommand(app, "generation", epilog=train_generation.EXAMPLES)(train_generation.train_generation)
subcommand(app, "lm", epilog=train_language_model.EXAMPLES)(train_language_model.train_lm)
subcommand(app, "plot", epilog=train_plot.EXAMPLES)(train_plot.train_plot)
