"""How a command's help is laid out, and a command whose `--rerank` may come without a value."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from embedkit.errors import EmbedkitError
from embedkit.models import RERANKER, SHIPPED
from embedkit.pipelines.models import MAXSIM, set_default_model
from embedkit.storage.files import is_utf8

from . import console
from .completing import WORDS
from .config_files import found_files
from .usage import UsageError, asks_for_help, explain_usage

if TYPE_CHECKING:
    from .config import ConfigValue

COMMON = "Options"  # the panel of options that name no other


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Nothing on standard error but warnings and errors.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say also what computes in which precision, and what was measured."),
]


def talking(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--quiet` and `--verbose`, which mean the same for all."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [each.replace(annotation=hints[each.name], kind=keyword) for each in own]
    for name, annotation in (("quiet", Quiet), ("verbose", Verbose)):
        parameters.append(inspect.Parameter(name, keyword, default=False, annotation=annotation))

    @wraps(function)
    def command(
        *, quiet: bool, verbose: bool, **values: Any
    ) -> None:  # Any: whatever typer made of the command line
        if quiet and verbose:
            raise typer.BadParameter("--quiet and --verbose exclude each other")
        console.set_talk(quiet=quiet, verbose=verbose)
        function(**values)

    del command.__wrapped__  # typer would look through it at the function's own parameters
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return command


class Command(TyperCommand):
    """A command whose help shows its options in panels, whose wrong usage is explained, and whose errors name its own options alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer keeps its own copy of click
        ctx.meta[WORDS] = list(args)
        settings = {} if asks_for_help(ctx, args) else self.configure(ctx)
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except UsageError as exc:
            explain_usage(exc, ctx)
            setting = settings.get(getattr(getattr(exc, "param", None), "name", ""))
            if setting is not None and ctx.get_parameter_source(exc.param.name).name == "DEFAULT_MAP":
                from .config import refused

                raise refused(exc, setting) from exc
            raise
        _let_file_give_way(ctx)
        if not ctx.resilient_parsing:  # else it is an unfinished line, to be completed
            for parameter in self.params:
                _check_words(ctx.params.get(parameter.name), parameter, ctx)
        return rest

    def configure(self, ctx: Any) -> dict[str, ConfigValue]:  # Any: as above
        """Let configuration files say what holds where an option and the environment say nothing."""
        found = [] if ctx.resilient_parsing else found_files()
        if not found:
            set_default_model(None)
            return {}
        from .config import configure

        return configure(ctx, found)

    def invoke(self, ctx: Any) -> Any:  # Any: as above
        try:
            return super().invoke(ctx)
        except EmbedkitError as exc:
            own = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
            if own.issuperset(re.findall(r"--[a-z-]+", exc.option)):
                raise
            raise type(exc)(exc.message) from exc  # no advice that cannot be followed here
        except typer.BadParameter as exc:
            if (
                exc.param is None and exc.param_hint is None
            ):  # it would be called an invalid value, of nothing
                ctx.fail(exc.message)
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:  # Any: typer keeps its own copy of click
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], COMMON: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                name, _, _ = record[0].partition(" <")  # the type of an argument is for programmers
                panels["Arguments"].append((name, record[1]))
            else:
                panel = getattr(parameter, "rich_help_panel", None) or COMMON
                panels.setdefault(panel, []).append((_for_people(record[0]), _for_people(record[1])))
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # Any: as above
        """Show an argument that may be left out as [NAME], one that must be there as NAME, and several of them as NAME..."""
        pieces = ["[OPTIONS]"]
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                piece = parameter.metavar or str(parameter.name).upper()
                if not parameter.required and not piece.startswith("["):
                    piece = f"[{piece}]"
                several = parameter.nargs == -1 and not piece.endswith("...") and " " not in piece
                pieces.append(piece + "..." * several)
        return pieces


def _let_file_give_way(ctx: Any) -> None:  # Any: as above
    """Take back a file's --verbose where --quiet is given, and the other way round: they exclude each other."""
    for given, other in (("quiet", "verbose"), ("verbose", "quiet")):
        sources = [getattr(ctx.get_parameter_source(name), "name", "") for name in (given, other)]
        if ctx.params.get(given) and sources == ["COMMANDLINE", "DEFAULT_MAP"]:
            ctx.params[other] = False


def _for_people(text: str) -> str:
    """Take out of an option's record what is for programmers: that its value is one of a list, brackets around a default."""
    text = re.sub(r"<list\[(.*?)\]>", r"<\1>", text)
    return re.sub(r"\[(.*)default:\s+\((.*?)\)", r"[\1default: \2", text)


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


def _check_words(value: object, parameter: Any, ctx: Any) -> None:  # Any: as above
    """Refuse what is no number, and bytes that are no text, unless they name what is there.

    A Path, which may be written to, has any name.

    Raises:
        BadParameter: a word is not UTF-8, or a number is NaN, with which no comparison would hold.
    """
    # With some versions of Typer a Path is still a string here.
    is_path = getattr(getattr(parameter, "type", None), "name", "") == "path"
    for word in value if isinstance(value, list | tuple) else [value]:
        if isinstance(word, str) and not is_path and not is_utf8(word) and not os.path.lexists(word):
            raise typer.BadParameter(
                f"{os.fsencode(word)!r} is not UTF-8 and names no file. Convert it, for example with: "
                "iconv -f latin1 -t utf-8",
                ctx=ctx,
                param=parameter,
            )
        if isinstance(word, float) and math.isnan(word):
            raise typer.BadParameter("'nan' is not a number", ctx=ctx, param=parameter)


class RerankCommand(Command):
    """A command whose `--rerank` may stand without a value, last or before another option: it then means the shipped one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: as in the parent
        return super().parse_args(ctx, with_reranker(args))


class SearchCommand(RerankCommand):
    """A command that reranks only with `--rerank`, and refuses to be told how without, unless a file says that for whenever it does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: as in the parent
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing or ctx.params["rerank"]:
            return rest
        for parameter in self.params:
            typed = getattr(ctx.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
            if typed and parameter.name in ("rerank_weight", "rerank_budget_seconds"):
                ctx.fail(f"{parameter.opts[0]} goes with --rerank")
        return rest


def with_reranker(words: list[str]) -> list[str]:
    """Put the shipped reranker's name after each `--rerank` that has no value.

    A word that follows is a value if it names a shipped model or a folder, is "maxsim", or looks like a path; else it is part
    of the query.
    """
    options_end = words.index("--") if "--" in words else len(words)
    found = []
    for place, word in enumerate(words):
        found.append(word)
        following = words[place + 1 : place + 2]
        if word == "--rerank" and place < options_end and not (following and _is_reranker(following[0])):
            found.append(RERANKER)
    return found


def _is_reranker(word: str) -> bool:
    mistyped = bool(
        get_close_matches(word, SHIPPED, n=1, cutoff=0.8)
    )  # its message is better than a strange query
    return word in (*SHIPPED, MAXSIM) or mistyped or "/" in word or Path(word).is_dir()


def subcommand(
    app: typer.Typer, name: str, *, epilog: str | None = None, cls: type[Command] = Command
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to a group of commands."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, cls=cls, epilog=epilog)(talking(function))
        return function

    return add
