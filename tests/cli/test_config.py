"""`embedkit config`: what it shows to people."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EMBEDKIT_CONFIG")
    monkeypatch.delenv("EMBEDKIT_PRECISION")
    monkeypatch.delenv("EMBEDKIT_CACHE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def show(*words: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, ["config", *words])
    assert result.exit_code == exit_code, result.output
    return " ".join((result.stdout + result.stderr).split())


def test_where_nothing_is_set_it_says_so_and_where_the_files_would_be(folder: Path) -> None:
    shown = show()
    assert f"user {folder}/config/embedkit/config.toml (not there)" in shown
    assert "no embedkit.toml in this folder or above it" in shown
    assert "nothing is set: every option has its default" in shown
    assert show("path") == f"{folder}/config/embedkit/config.toml"


def test_what_is_set_is_shown_with_its_source_and_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "embedkit.toml").write_text("# ours\n[search]\ntop-k = 4\n", encoding="utf-8")
    monkeypatch.setenv("EMBEDKIT_PIPE", "json")
    shown = show()
    assert "search: top-k 4 project" in shown
    assert "EMBEDKIT_PIPE json environment" in shown
    assert show("path").endswith(f"{folder}/embedkit.toml")
    of_search = show("search", "--mode", "dense")
    assert "top-k 4 project" in of_search
    assert "mode dense option" in of_search
    assert "fusion scores default" in of_search


@pytest.mark.usefixtures("folder")
def test_a_command_that_is_none_is_wrong_usage() -> None:
    assert "there is no command 'serch'. Did you mean 'search'" in show("serch", exit_code=2)
    assert "name one of its commands: build, add" in show("index", exit_code=2)
    assert "No such option: --mod" in show("search", "--mod", "x", exit_code=2)
