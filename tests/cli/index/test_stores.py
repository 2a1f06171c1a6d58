"""`embedkit index push`, `index pull` and `search URL` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from indexes import Index
from tests.connectors.conftest import KINDS, Target, chroma_port, postgres_server, s3_bucket, target

__all__ = ["chroma_port", "postgres_server", "s3_bucket", "target"]  # fixtures

runner = CliRunner()


def run(*words: str) -> tuple[int, str, str]:
    done = runner.invoke(app, list(words))
    error = str(done.exception) if done.exception and not isinstance(done.exception, SystemExit) else ""
    return done.exit_code, done.stdout, done.stderr + error


def test_a_url_of_no_store_is_refused_by_all_commands(tmp_path: Path) -> None:
    for words in (
        ["search", "foo://x?table=t", "query"],
        ["index", "pull", "foo://x?table=t", str(tmp_path / "a")],
    ):
        code, _, said = run(*words)
        assert code == 1
        assert "foo:// is no store that is known here" in said


def test_wrong_usage(tmp_path: Path) -> None:
    code, _, said = run("index", "push", "a", "b", "c")
    assert code == 2
    assert "name an index and a store's URL" in said
    code, _, said = run("index", "push", str(tmp_path), "lance://x?table=t", "--hnsw-m", "1")
    assert code == 2
    assert "--hnsw-m is 1; it must be from 2 to 100" in said


@pytest.mark.parametrize("target", KINDS[1:], indirect=True)
def test_push_search_and_pull(target: Target, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text(
        "".join(
            json.dumps({"id": f"n{number}", "text": f"text number {number} of {word}", "year": 2000 + number})
            + "\n"
            for number, word in enumerate(["cats", "dogs", "wind", "snow"])
        ),
        encoding="utf-8",
    )
    index, copy = str(tmp_path / "a.index"), str(tmp_path / "b.index")
    assert (
        run("index", "build", str(tmp_path / "notes.jsonl"), "--index", index, "--model", str(tiny_model))[0]
        == 0
    )
    code, _, said = run("index", "push", index, target.url, "--dry-run")
    assert (code, "would send 4 new and 0 changed vectors, delete 0" in said) == (0, True)
    code, out, said = run("index", "push", index, target.url, "--json")
    assert code == 0, said
    assert json.loads(out)["sent"] == 4
    code, _, said = run("index", "push", index, target.url)
    assert "0 new, 0 changed, 4 unchanged, 0 deleted; 4 read back and verified" in said
    for more in (["--mode", "dense"], ["--mode", "dense", "--where", "year > 2001"]):
        code, ours, _ = run("search", index, "snow and wind", "--json", *more)
        code, theirs, said = run("search", target.url, "snow and wind", "--json", *more)
        assert code == 0, said
        for mine, other in zip(ours.splitlines(), theirs.splitlines(), strict=True):
            left, right = json.loads(mine), json.loads(other)
            score = left.pop("score")
            assert right.pop("score") == pytest.approx(score, abs=1e-6)
            assert left.pop("scores").keys() == right.pop("scores").keys()
            assert left == right
    code, out, said = run("search", target.url, "wind", "--all")
    if target.kind.startswith("chroma"):
        assert (code, "this store is not searched by words" in said) == (1, True)
    else:
        assert "number 2 of wind" in out, said
    code, _, said = run("search", target.url, "wind", "--mode", "dense", "--where", "month = 1")
    assert "no document has the field 'month'" in said
    code, out, said = run("index", "pull", target.url, copy, "--json")
    assert code == 0, said
    assert json.loads(out)["documents"] == 4
    with Index.open(index) as one, Index.open(copy) as two:
        assert two.settings == one.settings
        assert two.model_path == one.model_path
    code, _, said = run("search", index, "wind", "--ef", "50")
    assert (code, "--ef goes with a store's URL" in said) == (2, True)
