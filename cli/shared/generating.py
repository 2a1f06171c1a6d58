"""The options that say how texts are generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from . import options


@dataclass(frozen=True, kw_only=True)
class Generating:
    """How texts are generated; None is what the model's folder says."""

    method: Annotated[
        Literal["greedy", "beam", "sample"] | None,
        typer.Option(
            "--method",
            help="The likeliest token each time, the best of several beams, or drawn at random. Default: the model's.",
            show_default=False,
        ),
    ] = None
    num_outputs: Annotated[
        int | None,
        typer.Option(
            "--num-outputs",
            "--num-queries",
            "-n",
            metavar="N",
            min=1,
            help="Outputs of each text, by beam or sample. Default: the model's, usually 1.",
            show_default=False,
        ),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            min=1,
            help="Longest output. Default: the model's.",
            show_default=False,
        ),
    ] = None
    min_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--min-new-tokens",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=0,
            help="Shortest output. Default: the model's, usually 1.",
            show_default=False,
        ),
    ] = None
    num_beams: Annotated[
        int | None,
        typer.Option(
            "--num-beams",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=1,
            help="Beginnings kept by method beam. Default: the model's, usually 4, or as many as outputs.",
            show_default=False,
        ),
    ] = None
    length_penalty: Annotated[
        float | None,
        typer.Option(
            "--length-penalty",
            rich_help_panel=options.TUNING,
            metavar="P",
            help="Outputs are compared by log-likelihood / tokens ** P: above 1 longer ones win. Default: the model's, usually 1.",
            show_default=False,
        ),
    ] = None
    no_repeat_ngram: Annotated[
        int | None,
        typer.Option(
            "--no-repeat-ngram",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=0,
            help="Let no N tokens in a row come twice. Default: the model's, usually 0, which lets them.",
            show_default=False,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            rich_help_panel=options.TUNING,
            metavar="T",
            help="Of method sample: below 1 likely tokens gain, above 1 unlikely ones. Default: the model's, usually 1.",
            show_default=False,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            rich_help_panel=options.TUNING,
            metavar="K",
            min=1,
            help="Of method sample: draw among the K likeliest tokens.",
            show_default=False,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p",
            rich_help_panel=options.TUNING,
            metavar="P",
            help="Of method sample: draw among the fewest tokens that make up a share P of the probability.",
            show_default=False,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=0,
            help="Seed of method sample. Default: 0; the same seed draws the same.",
            show_default=False,
        ),
    ] = None
