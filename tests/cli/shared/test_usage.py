"""Wrong usage: what was given, what was wanted, what was probably meant; and help in every way that people ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import app


def said(*arguments: str) -> str:
    """Return what is said of wrong usage, in one line."""
    result = CliRunner().invoke(app, list(arguments), prog_name="embedkit")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serach", "x"], "No such command 'serach'. Did you mean 'search'?"),
        (["stats"], "No such command 'stats'. Did you mean 'embedkit index stats'?"),
        (["export"], "Did you mean 'embedkit index export' or 'embedkit model export'?"),
        (["nothing"], "No such command 'nothing'. There are: encode, index, search,"),
        (
            ["train", "nothing"],
            "There are: tokenizer, mlm, contrastive, distill, reranker, generation, lm, plot",
        ),
        (["index", "bulid"], "No such command 'bulid'. Did you mean 'build'?"),
        (
            ["index", "list"],
            "'list' is no file or folder that is there, nor a command. The commands are: build, add,",
        ),
        (["search", "x", "--topk", "3"], "No such option: --topk. Did you mean '--top-k'?"),
        (["search", "x", "--nothing"], "Error: No such option: --nothing"),
        (["search", "-5", "degrees"], "No such option: -5. Where it is a text, put -- before it"),
        (
            ["search", "x", "--mode", "hybird"],
            "'hybird' is not one of 'dense', 'text', 'hybrid'. Did you mean 'hybrid'?",
        ),
        (["search", "x", "-k", "0"], "'--top-k' / '-k': 0 is not in the range x>=1"),
        (["search", "x", "-k", "few"], "'--top-k' / '-k': 'few' is not a valid int"),
        (["index", "build"], "Error: name an INPUT, or --vectors and --ids"),
    ],
)
def test_wrong_usage_says_what_was_given_and_what_was_meant(arguments: list[str], message: str) -> None:
    assert message in said(*arguments)


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["help"], "embedkit [OPTIONS] COMMAND"),
        (["help", "search"], "embedkit search [OPTIONS] [INDEX] [QUERY]...\n"),
        (["index", "help"], "embedkit index [OPTIONS] COMMAND"),
        (["index", "help", "stats"], "embedkit index stats [OPTIONS] [INDEX]\n"),
    ],
)
def test_help_is_a_command_too(arguments: list[str], usage: str) -> None:
    result = CliRunner().invoke(app, arguments, prog_name="embedkit")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {usage}")


def test_a_folder_is_indexed_whatever_command_its_name_is_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").mkdir()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["index", "list"])
    assert "list: the folder holds no file" in str(result.exception)


def all_commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command and group; Any: typer keeps its own copy of click."""
    yield words
    if hasattr(command, "commands"):
        for name in command.list_commands(None):
            yield from all_commands(command.get_command(None, name), (*words, name))


def test_usage_lines_and_summaries_are_whole() -> None:
    for words in all_commands(get_command(app)):
        result = CliRunner().invoke(app, [*words, "--help"], prog_name="embedkit")
        assert result.exit_code == 0, words
        usage, *lines = result.stdout.splitlines()
        assert "......" not in usage, words
        assert usage.count("[") == usage.count("]"), usage
        assert not any(line.endswith("...") for line in lines if not line.startswith("    embedkit")), words
