"""The `embedkit` command: its subcommands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from embedkit.errors import EmbedkitError

from . import (
    bench,
    compare,
    doctor,
    encode,
    evaluate,
    explain,
    fill_mask,
    index,
    mine,
    model,
    pairs,
    rerank,
    search,
    train,
)


class Commands(TyperGroup):
    """The commands; a reader of their output that goes away early (`| head`) is no error."""

    def invoke(self, ctx: Any) -> Any:  # Any: as in the parent
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Nothing is left to say, not even when the interpreter flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None


app = typer.Typer(
    name="embedkit",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # whatever is no EmbedkitError is a bug and keeps its traceback
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("encode", epilog=encode.EXAMPLES)(encode.encode)
app.add_typer(index.app, name="index")
app.command("search", epilog=search.EXAMPLES)(search.search)
app.command("pairs", epilog=pairs.EXAMPLES)(pairs.pairs)
app.command("rerank", epilog=rerank.EXAMPLES)(rerank.rerank)
app.add_typer(evaluate.app, name="evaluate")
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("bench", epilog=bench.EXAMPLES)(bench.bench)
app.command("explain", epilog=explain.EXAMPLES)(explain.explain)
app.add_typer(model.app, name="model")
app.add_typer(train.app, name="train")
app.command("mine", epilog=mine.EXAMPLES)(mine.mine)
app.command("fill-mask", epilog=fill_mask.EXAMPLES)(fill_mask.fill_mask)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"embedkit {version('embedkit')}")
        raise typer.Exit


@app.callback()
def embedkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Sentence embeddings and retrieval: train, encode, index, search, rerank, evaluate.

    Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 an error that the
    message explains, 2 wrong usage, 130 interrupted.
    """


def run() -> None:
    """Run the command line and exit."""
    try:
        app()
    except EmbedkitError as exc:
        typer.echo(f"error: {exc}", err=True)
        sys.exit(1)
