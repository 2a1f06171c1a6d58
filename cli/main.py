"""The `embedkit` command: its subcommands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from time import monotonic
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_group

from embedkit.errors import EmbedkitError
from embedkit.storage.files import is_utf8

from .shared import console
from .shared.streams import ReaderGoneError, drop_output, open_standard_streams
from .shared.threads import limit_spinning
from .shared.usage import Group, did_you_mean

# The commands and what the overall help says of each: the module of a command is loaded when the command is called.
COMMANDS = {
    "encode": "Turn texts into vectors: of sentences, of tokens with a multi-vector model, of terms with a sparse one.",
    "index": "Build, change, check and measure an index.",
    "search": "Search an index, or those of a server.",
    "grep": "Search a folder by meaning and by words, with nothing set up.",
    "mcp": "Serve a folder or an index to language models (Model Context Protocol).",
    "serve": "Serve models and indexes over HTTP, with a page to search from.",
    "pairs": "Find the most similar pairs in a collection, near-duplicates, or clusters.",
    "rerank": "Reorder candidates by a model that reads query and text together.",
    "evaluate": "Measure models, pipelines and runs on judged data.",
    "compare": "Compare two runs, saved results, models or modes, query by query.",
    "bench": "Measure encoding, search and cold start with your model on this machine.",
    "explain": "Show which words make the score of a document for a query.",
    "model": "List models, look at their folders, check, convert, export and fetch them.",
    "train": "Train tokenizers and models.",
    "recipes": "List, show and copy the training recipes that come with the package.",
    "adapt": "Adapt a model to your own documents, without labels.",
    "mine": "Find documents that are near a query and are no answer to it: training on them teaches the most.",
    "generate": "Generate texts: queries for passages, a text for any text, or how a text goes on.",
    "fill-mask": "Predict the token at each [MASK].",
    "config": "Show what holds for options, and where each value comes from.",
    "doctor": "Report versions, processor features, threads, devices, which number formats are fast here, folders and disk.",
}
EXAMPLES = """\b
Examples:
  embedkit index docs                                    # makes the folder searchable
  embedkit search how do I resume a build
  embedkit encode notes.txt --output notes.npy
"""
PATIENCE_SECONDS = 1.0  # for what was interrupted to say how to go on; files and indexes survive any end
COMPLETING = "_EMBEDKIT_COMPLETE"  # set by the shell's script where it asks how a line may go on
# Those whose --rerank may stand without a value.
WITH_RERANKER = ("mcp", "mine")  # search and grep have commands of their own


class Commands(Group):
    """The commands, each loaded when it is called."""

    def __init__(self, **settings: Any) -> None:  # Any: as in the parent
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment] # None until one is called

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # Any: as in the parent
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = load_command(cmd_name)
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:  # Any: as in the parent
        return super().parse_args(ctx, list(map(_as_text, args)))

    def unknown(self, ctx: Any, word: str) -> str:  # Any: as in the parent
        groups = [(name, getattr(self.get_command(ctx, name), "commands", ())) for name in COMMANDS]
        nested = [f"embedkit {name} {word}" for name, commands in groups if word in commands]
        if nested:
            return f"No such command {word!r}. {did_you_mean(nested)}"
        return super().unknown(ctx, word)

    def summaries(self, ctx: Any) -> list[tuple[str, str]]:  # Any: as in the parent
        return list(COMMANDS.items())


app = typer.Typer(
    name="embedkit",
    cls=Commands,
    no_args_is_help=True,
    epilog=EXAMPLES,
    pretty_exceptions_enable=False,  # whatever is no EmbedkitError is a bug and keeps its traceback
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _as_text(word: str) -> str:
    """Return a word of the command line as the text that it is; bytes that are none may still name a file."""
    if not is_utf8(word) and not os.path.lexists(word):
        with suppress(UnicodeDecodeError):
            return os.fsencode(word).decode()  # the locale, not the word, was at fault
    return word


def load_command(name: str) -> Any:  # Any: typer keeps its own copy of click, whose types are private
    """Import the module of a command and build its parser."""
    module = import_module(f".{name.replace('-', '_')}", __package__)
    alone = typer.Typer(callback=lambda: None, rich_markup_mode=None)  # a group of this one
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=name)
    else:
        from .shared.commands import Command, RerankCommand, talking

        kind = getattr(module, "COMMAND", RerankCommand if name in WITH_RERANKER else Command)
        function = getattr(module, name.replace("-", "_"))
        alone.command(name, cls=kind, epilog=getattr(module, "EXAMPLES", None))(talking(function))
    return get_group(alone).commands[name]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.say(f"embedkit {version('embedkit')}")
        raise typer.Exit


@app.callback()
def embedkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Sentence embeddings and retrieval: train, encode, index, search, rerank, evaluate.

    Start with `embedkit index .`, which makes the files of this folder searchable, and `embedkit search WORDS`. Each
    command has its own help with examples: `embedkit search -h`.

    Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 an error that the
    message explains, 2 wrong usage, 130 interrupted.
    """


def run() -> NoReturn:
    """Run the command line and exit."""
    limit_spinning()
    open_standard_streams()
    code = _exit_code()
    _heed_interrupts(lambda number, frame: os._exit(code))  # the work is done; what follows only cleans up
    drop_output()
    if code == console.INTERRUPTED or any(thread.daemon for thread in threading.enumerate()):
        # Python would wait for threads that still compute, and abort where one waits for more of standard input.
        os._exit(code)
    sys.exit(code)


def _heed_interrupts(handler: Callable[[int, FrameType | None], object]) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is behind `nohup`
        signal.signal(signal.SIGINT, handler)


def _interrupt(number: int, frame: object) -> None:
    """End the command by the first Ctrl-C: one that follows at once changes nothing, a later one waits for nothing more."""
    first = monotonic()

    def again(number: int, frame: object) -> None:
        if monotonic() - first > PATIENCE_SECONDS:
            os._exit(console.INTERRUPTED)

    signal.signal(signal.SIGINT, again)
    raise KeyboardInterrupt


def _exit_code() -> int:
    """Run the command; turn the ways in which it may end into messages and exit codes."""
    try:
        _heed_interrupts(_interrupt)
        try:
            app()
        finally:
            sys.stdout.flush()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 0
    except ReaderGoneError:
        return 0
    except KeyboardInterrupt:
        return console.INTERRUPTED
    except Exception as exc:
        if COMPLETING in os.environ:  # what is said would stand in the middle of the line that is being typed
            return 1
        if not isinstance(exc, EmbedkitError):
            raise
        console.tell(f"error: {exc}")
        return 1
    return 0
