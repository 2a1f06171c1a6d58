"""The commands in the README and the manual are ones that there are, with options that they have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
COLUMNS = 110  # as in the code
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(embedkit [^`]+)`")
PLACEHOLDERS = ("…", "TASK")
LINK = re.compile(r"\]\(([^)#:]+)\)")


def commands(page: Path) -> Iterator[str]:
    """Yield what the page shows of `embedkit …`, in blocks and within lines."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|\$ |[|;&] *|which )(embedkit [^|;&)]*)", line.strip())
            if found:
                yield found.group(1)
    yield from INLINE.findall(BLOCK.sub("", text))


def check(words: list[str]) -> None:
    """Walk from the whole command line down to the command; its options must be known."""
    command: Any = typer.main.get_command(app)  # Any: click's, whose module is not to be imported
    options = {"--help", "-h", "--version", "--install-completion"}
    for place, word in enumerate(words):
        if command.name == "config" and not word.startswith("-") and word != "path":
            check(words[place:])  # a command with its own options
            return
        is_option = re.match(r"--?[a-z]", word) is not None
        if is_option:
            name = word.split("=")[0]
            assert name in options, f"{' '.join(words)}: there is no option {name}"
        elif hasattr(command, "commands"):
            if command.name == "index" and word not in command.commands:
                word = "build"  # `embedkit index INPUT…`
            names = word.split("|")  # `model info|check`
            for name in names:
                assert name in command.commands or name in PLACEHOLDERS, f"there is no command {name!r}"
            if len(names) > 1 or word in PLACEHOLDERS:
                return
            command = command.get_command(None, word)
            options |= {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_their_options_are_there(page: Path) -> None:
    for shown in commands(page):
        words = shlex.split(shown.replace("'", "’") if shown.count("'") % 2 else shown, comments=True)
        check(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lines_fit_but_for_tables_and_what_a_terminal_shows(page: Path) -> None:
    prose = BLOCK.sub(lambda block: "\n" * block.group().count("\n"), page.read_text(encoding="utf-8"))
    long = [
        number
        for number, line in enumerate(prose.splitlines(), 1)
        if len(line) > COLUMNS and not line.startswith("|")
    ]
    assert long == []


def test_the_files_of_the_examples_are_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"examples/[\w.]+", readme)
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_checker_notices_what_is_not_there() -> None:
    check(["search", "i", "q", "--top-k", "3"])
    with pytest.raises(AssertionError, match="there is no option --topk"):
        check(["search", "i", "q", "--topk", "3"])
    with pytest.raises(AssertionError, match="there is no command 'serach'"):
        check(["serach", "i"])


def test_the_manual_is_where_the_commands_were_found() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 60
