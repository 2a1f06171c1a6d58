"""`embedkit fill-mask`: look at what a masked language model learned."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .shared import console, options

EXAMPLES = """\b
Examples:
  embedkit fill-mask "Paris is the [MASK] of France." --model encoder
  embedkit fill-mask "The [MASK] barked." "She [MASK] a book." -m encoder --top-k 3 --json
"""


def fill_mask(
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help="Texts with [MASK] in them.", show_default=False)
    ],
    model: options.Model,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="Tokens shown for each [MASK].")
    ] = 5,
    as_json: options.AsJson = False,
) -> None:
    """Predict the token at each [MASK]."""
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.inference.fill_mask import fill_mask as predict

    fillings = predict(read_model_folder(model), texts, top_k=top_k)
    if console.wants_json(as_json):
        for filling in fillings:
            console.print_json(asdict(filling))
        return
    rows = [
        (filling.text if rank == 0 else "", token, f"{probability:.1%}")
        for filling in fillings
        for rank, (token, probability) in enumerate(zip(filling.tokens, filling.probabilities, strict=True))
    ]
    console.print_table(("text", "token", "probability"), rows)
