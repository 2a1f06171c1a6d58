"""A group of options is one parameter of the command, and as many options on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from cli.shared.groups import grouped


@dataclass(frozen=True, kw_only=True)
class Plain:
    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Sized(Plain):
    size: Annotated[int, typer.Option("--size", help="How many.", min=1)] = 3
    shape: Annotated[Literal["round", "square"], typer.Option("--shape", help="Which.")] = "round"


def made() -> tuple[typer.Typer, list[object]]:
    app = typer.Typer()
    got: list[object] = []

    @app.command()
    @grouped
    def command(name: Annotated[str, typer.Argument()], *, loud: bool = False, sized: Sized) -> None:
        """Do it."""
        got.append((name, loud, sized))

    return app, got


def test_the_function_gets_the_group_as_a_whole() -> None:
    app, got = made()
    assert CliRunner().invoke(app, ["x", "--size", "5", "--loud"]).exit_code == 0
    assert CliRunner().invoke(app, ["y", "--shape", "square"]).exit_code == 0
    assert got == [("x", True, Sized(size=5)), ("y", False, Sized(shape="square"))]
    assert isinstance(got[0][2], Plain)  # type: ignore[index] # it is whatever the library takes


def test_help_lists_options_in_the_order_of_the_parameters_with_choices_and_defaults() -> None:
    app, _ = made()
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "Do it." in shown
    assert shown.index("--loud") < shown.index("--size") < shown.index("--shape")
    assert "round" in shown
    assert "square" in shown


@pytest.mark.parametrize("words", [["x", "--size", "0"], ["x", "--shape", "flat"], []])
def test_what_an_option_does_not_take_is_wrong_usage(words: list[str]) -> None:
    app, got = made()
    assert CliRunner().invoke(app, words).exit_code == 2
    assert got == []


def test_two_options_of_one_name_are_a_mistake() -> None:
    def command(*, size: int, sized: Sized) -> None: ...

    command.__annotations__["sized"] = Sized
    with pytest.raises(TypeError, match="two options are called 'size'"):
        grouped(command)
