"""How much a command says: `--quiet` and `--verbose` mean the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import app
from cli.shared import console
from embedkit.errors import RecordError

RUNNER = CliRunner()


def commands(
    command: Any, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:  # Any: typer's click
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name in command.list_commands(None):
        yield from commands(command.get_command(None, name), (*words, name))


ALL = dict(commands(get_command(app)))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_can_say_less_and_more(words: tuple[str, ...]) -> None:
    options = {option: each for each in ALL[words].params for option in each.opts}
    assert options["-q"] is options["--quiet"]
    assert options["-v"] is options["--verbose"]
    assert "warnings and errors" in options["-q"].help


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text(
        '{"id": "a", "text": "the dog runs"}\n{"id": "b", "text": "a red horse"}\n', encoding="utf-8"
    )
    return path


@pytest.fixture
def index(texts: Path, tiny_model: Path, tmp_path: Path) -> Path:
    invoke("index", "build", texts, "-i", tmp_path / "i", "-m", tiny_model)
    return tmp_path / "i"


def invoke(*words: object) -> Any:  # Any: click's result
    result = RUNNER.invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def test_a_quiet_command_says_nothing_where_all_is_well(
    texts: Path, index: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def runs(name: str) -> list[tuple[object, ...]]:
        return [
            ("encode", texts, "-m", tiny_model, "-o", tmp_path / f"{name}.npy"),
            ("encode", texts, "-m", tiny_model),
            ("index", "build", texts, "-i", tmp_path / name, "-m", tiny_model),
            ("index", "verify", index),
            ("index", "compact", index),
            ("index", "merge", tmp_path / name, index),
            ("search", index, "the dog", "-m", tiny_model),
            ("pairs", texts, "-m", tiny_model),
            ("index", "delete", "a", "-i", tmp_path / name),
        ]

    for loud, quiet in zip(runs("loud"), runs("quiet"), strict=True):
        assert invoke(*loud).stderr, loud
        assert invoke(*quiet, "--quiet").stderr == "", quiet


def test_warnings_and_errors_are_said_all_the_same(texts: Path, tiny_model: Path, tmp_path: Path) -> None:
    texts.write_text('{"text": "the dog runs"}\n{"text": ""}\n', encoding="utf-8")
    said = invoke("encode", texts, "-m", tiny_model, "-o", tmp_path / "a.npy", "-q").stderr
    assert said == f"warning: 1 text empty or without tokens for this model; the first is {texts}:2\n"
    result = RUNNER.invoke(app, ["encode", str(tmp_path / "no.txt"), "-m", str(tiny_model), "-q"])
    assert isinstance(result.exception, RecordError)


def test_a_verbose_command_says_what_computes(texts: Path, tiny_model: Path) -> None:
    words = ("encode", texts, "-m", tiny_model, "--device", "cpu")
    assert "computes on cpu" not in invoke(*words).stderr
    said = invoke(*words, "-v").stderr
    assert said.startswith("precision fp32; ")
    assert "computes on cpu" in said


def test_one_command_does_not_decide_for_the_next(texts: Path, tiny_model: Path) -> None:
    invoke("encode", texts, "-m", tiny_model, "-q")
    assert console.is_quiet()
    invoke("encode", texts, "-m", tiny_model)
    assert not console.is_quiet()


def test_quiet_and_verbose_exclude_each_other(texts: Path) -> None:
    result = RUNNER.invoke(app, ["encode", str(texts), "-q", "-v"])
    assert result.exit_code == 2
    assert "--quiet and --verbose exclude each other" in " ".join(result.stderr.split())
