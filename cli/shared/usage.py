"""Groups of commands, and what is said of wrong usage: which command or option was meant, which value was wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperGroup

# Any, here and below: typer keeps its own copy of click, whose types are private; this is its class of wrong usage.
UsageError: Any = typer.BadParameter.__base__
_OPTION = re.compile(r"--?[A-Za-z][\w-]*")
_CHOICE = re.compile(r"'(.*)' is not one of (.*)\.")


class Group(TyperGroup):
    """Commands whose summaries are shown whole; `help` is `--help`, and whoever mistypes a command is told which there are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        wants_help = args[:1] == ["help"]
        found: list[str] = super().parse_args(ctx, [*args[1:], "--help"] if wants_help else args)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if not (ctx.resilient_parsing or word.startswith("-") or self.get_command(ctx, word)):
            ctx.fail(self.unknown(ctx, word))
        return super().resolve_command(ctx, args)

    def unknown(self, ctx: Any, word: str) -> str:
        """Say that there is no such command, and which was probably meant, or which there are."""
        names = self.list_commands(ctx)
        return f"No such command {word!r}. {did_you_mean(get_close_matches(word, names)) or one_of(names)}"

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.summaries(ctx))

    def summaries(self, ctx: Any) -> list[tuple[str, str]]:
        """Return each command with the first sentence of its help."""
        return [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]


def asks_for_help(context: Any, words: Sequence[str]) -> bool:  # Any: click's
    """Say whether a command's words ask for its help, which no file must be in the way of."""
    end = words.index("--") if "--" in words else len(words)
    return any(word in context.help_option_names for word in words[:end])


def did_you_mean(words: list[str]) -> str:
    return f"Did you mean {' or '.join(map(repr, words))}?" if words else ""


def one_of(names: list[str]) -> str:
    return f"There are: {', '.join(names)}"


def explain_usage(error: Any, ctx: Any) -> None:
    """Make the message of wrong usage say what was given, what was wanted, and what was probably meant."""
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        known = [name for each in ctx.command.get_params(ctx) for name in each.opts if name.startswith("--")]
        error.possibilities = None
        error.message += ". " + (
            did_you_mean(get_close_matches(option, known, n=1))
            if _OPTION.fullmatch(option)
            else "Where it is a text, put -- before it"
        )
        error.message = error.message.removesuffix(". ")
    elif found := _CHOICE.search(error.message):
        given, choices = found.groups()
        close = get_close_matches(given, re.findall("'([^']+)'", choices), n=1)
        error.message = " ".join(filter(None, (f"{given!r} is not one of {choices}.", did_you_mean(close))))
    elif hasattr(error.__cause__, "errors"):  # of a type that pydantic checks
        first = error.__cause__.errors()[0]
        error.message = f"{first['input']!r} {_must(first['msg'])}"


def _must(message: str) -> str:
    """Return what pydantic says a value should be, as the end of a sentence: "must be greater than or equal to 1"."""
    wanted, _, _ = message.partition(", unable")
    return wanted.replace("Input should be", "must be").removeprefix("Value error, ")
