"""The `embedkit` command: its subcommands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from embedkit.errors import EmbedkitError

from .shared import console

# The commands and what the overall help says of each: the module of a command is loaded when the command is called.
COMMANDS = {
    "encode": "Turn texts into sentence vectors.",
    "index": "Build, change, check and measure an index.",
    "search": "Search an index.",
    "pairs": "Find the most similar pairs in a collection, near-duplicates, or clusters.",
    "rerank": "Reorder candidates by a model that reads query and text together.",
    "evaluate": "Measure models, pipelines and runs on judged data.",
    "compare": "Compare two runs, saved results, models or modes, query by query.",
    "bench": "Measure encoding, search and cold start with your model on this machine.",
    "explain": "Show which words make the score of a document for a query.",
    "model": "Look at model folders, check, convert, export and fetch them.",
    "train": "Train tokenizers and models.",
    "recipes": "List, show and copy the training recipes that come with the package.",
    "mine": "Find documents that are near a query and are no answer to it: training on them teaches the most.",
    "fill-mask": "Predict the token at each [MASK].",
    "doctor": "Tell versions, processor features, threads, devices, which number formats are fast here, folders and disk.",
}
# Those whose --rerank may stand without a value.
WITH_RERANKER = ("search", "mine")


class Commands(TyperGroup):
    """The commands, each loaded when it is called; a reader of their output that goes away early (`| head`) is no error."""

    def __init__(self, **settings: Any) -> None:  # Any: as in the parent
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment] # None until one is called

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # Any: as in the parent
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = load_command(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # Any: as in the parent
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

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


def load_command(name: str) -> Any:  # Any: typer keeps its own copy of click, whose types are private
    """Import the module of a command and build its parser."""
    module = import_module(f".{name.replace('-', '_')}", __package__)
    alone = typer.Typer(callback=lambda: None, rich_markup_mode=None)  # a group of this one
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name)
    else:
        from .shared.commands import Command, RerankCommand

        kind = RerankCommand if name in WITH_RERANKER else Command
        function = getattr(module, name.replace("-", "_"))
        alone.command(name, cls=kind, epilog=getattr(module, "EXAMPLES", None))(function)
    return get_group(alone).commands[name]


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
        console.note(f"error: {exc}")
        sys.exit(1)
