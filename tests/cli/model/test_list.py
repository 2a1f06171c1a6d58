"""`embedkit model list`: what comes with embedkit, and what the hub's cache holds, with what can be computed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.models import SHIPPED
from tests.tiny import write_tiny_model


def test_it_names_the_shipped_models_and_those_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for owner, seed in (("ours", 0), ("theirs", 1)):
        snapshots = tmp_path / f"models--{owner}--tiny-model" / "snapshots"
        snapshots.mkdir(parents=True)
        write_tiny_model(snapshots / "abc", seed=seed)
    config = tmp_path / "models--theirs--tiny-model" / "snapshots" / "abc" / "config.json"
    config.write_text(json.dumps({"model_type": "whisper"}), encoding="utf-8")
    (tmp_path / "models--owner--unfinished" / "snapshots").mkdir(parents=True)
    result = CliRunner().invoke(app, ["model", "list", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert set(rows) == {*SHIPPED, "ours/tiny-model", "theirs/tiny-model"}
    ours = rows["ours/tiny-model"]
    assert (ours["kind"], ours["family"], ours["place"]) == ("dense", "bert", "hub cache")
    assert Path(ours["folder"]).name == "abc"
    assert ours["parameters"] > 0
    assert rows["theirs/tiny-model"]["kind"] == "other"
    assert "model_type is 'whisper'; embedkit reads bert" in rows["theirs/tiny-model"]["reason"]
    assert {rows[name]["kind"] for name in SHIPPED} == {"dense", "cross-encoder"}
