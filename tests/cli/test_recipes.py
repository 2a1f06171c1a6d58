"""`embedkit recipes`: what is listed can be shown, copied and trained with."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import recipes
from cli.main import app
from embedkit.errors import OutputError, RecipeError
from embedkit.recipe import About, load_recipe, preset_names
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.distillation.recipe import DistillRecipe
from embedkit.training.engine.recipes import PretrainRecipe
from embedkit.training.generation.recipe import GenerationRecipe, LanguageModelRecipe
from embedkit.training.reranker.recipe import RerankerRecipe

KINDS: dict[str, type[Any]] = {  # Any: recipes of all kinds
    "mlm": PretrainRecipe,
    "contrastive": ContrastiveRecipe,
    "distill": DistillRecipe,
    "reranker": RerankerRecipe,
    "generation": GenerationRecipe,
    "lm": LanguageModelRecipe,
}


def run(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, ["recipes", *map(str, arguments)])


def listed() -> list[dict[str, str]]:
    return [json.loads(line) for line in run("list", "--json").stdout.splitlines()]


def test_every_shipped_recipe_is_listed_with_what_it_is_for() -> None:
    assert [row["name"] for row in listed()] == preset_names()
    for row in listed():
        assert About(**{key: value for key, value in row.items() if key != "name"})  # type: ignore[arg-type] # JSON


@pytest.mark.parametrize("row", listed(), ids=lambda row: row["name"])
def test_a_shipped_recipe_is_one_of_the_task_that_it_names(row: dict[str, str]) -> None:
    recipe = load_recipe(KINDS[row["task"]], path=row["name"], overrides=["run.steps=3"])
    assert recipe.run.steps == 3


def test_the_list_for_people_has_every_fact(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    recipes.list_()
    shown = capsys.readouterr().out
    for row in listed():
        assert all(value in shown for value in row.values()), row["name"]


def test_a_recipe_is_shown_as_it_is_written_and_as_an_object() -> None:
    text = run("show", "mini").stdout
    assert text.startswith("# BERT mini")
    assert json.loads(run("show", "mini", "--json").stdout) == {"name": "mini", **tomllib.loads(text)}
    unknown = run("show", "minni")
    assert isinstance(unknown.exception, RecipeError)
    assert "there is no preset 'minni'; did you mean mini?" in str(unknown.exception)


def test_a_copy_is_a_recipe_file_and_never_takes_anothers_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("copy", "mini")
    assert result.stderr == "mini.toml: written; train with: embedkit train mlm --recipe mini.toml\n"
    assert (tmp_path / "mini.toml").read_text(encoding="utf-8") == run("show", "mini").stdout
    by_name = load_recipe(PretrainRecipe, path="mini", overrides=["run.steps=1"])
    assert load_recipe(PretrainRecipe, path="mini.toml", overrides=["run.steps=1"]) == by_name
    again = run("copy", "mini")
    assert isinstance(again.exception, OutputError)
    assert "mini.toml: already exists. Choose another name, or remove it first" in str(again.exception)
    assert run("copy", "mini", tmp_path / "other.toml").exit_code == 0


def test_a_copy_may_go_to_standard_output(tmp_path: Path) -> None:
    text = run("show", "mini").stdout
    assert (run("copy", "mini", "-").stdout, run("copy", "mini", "-").stderr) == (text, "")
    code = "from cli.main import run; run()"
    piped = subprocess.run(
        [sys.executable, "-c", code, "recipes", "copy", "mini", "/dev/stdout"],
        capture_output=True,
        check=False,
    )
    assert (piped.returncode, piped.stdout.decode(), piped.stderr) == (0, text, b"")
    with (tmp_path / "log").open("wb") as log:  # a file that was redirected to is no file to be replaced
        subprocess.run(
            [sys.executable, "-c", code, "recipes", "copy", "mini", "/dev/stdout"], stdout=log, check=True
        )
    assert (tmp_path / "log").read_text(encoding="utf-8") == text
