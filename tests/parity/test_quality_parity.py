"""The figures that are known of all-MiniLM-L6-v2 on real test sets come out. Minutes, unless $EMBEDKIT_CACHE has it all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def all_threads() -> Iterator[None]:
    """Encode with every core: other tests make do with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or before)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return os.environ.get("EMBEDKIT_CACHE") or str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("name", "known", "near"), [("scifact", 0.645, 0.003), ("cacm", 0.410, 0.005), ("cisi", 0.420, 0.005)]
)
def test_ndcg_is_the_known_one_with_bm25_beside(
    shared_data: Path, minilm: Path, cache: str, name: str, known: float, near: float
) -> None:
    """SciFact as published; CACM and CISI as measured with sentence-transformers on the same files."""
    folder = str(shared_data / "retrieval" / name)
    modes = ["--mode", "dense", "--mode", "hybrid"]
    result = CliRunner().invoke(
        app,
        ["evaluate", "retrieval", folder, "-m", str(minilm), *modes, "--device", "cpu", "--cache-dir", cache],
    )
    assert result.exit_code == 0, (result.output, result.exception)
    bm25, dense, hybrid = (json.loads(line)["values"]["ndcg@10"] for line in result.stdout.splitlines())
    assert dense == pytest.approx(known, abs=near)
    assert hybrid > max(bm25, dense)
    if name == "scifact":
        assert bm25 >= 0.67


def test_stsb_spearman_is_the_published_one(shared_data: Path, minilm: Path) -> None:
    path = str(shared_data / "sts" / "stsb" / "test.tsv")
    result = CliRunner().invoke(app, ["evaluate", "similarity", path, "-m", str(minilm), "--device", "cpu"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert 100 * json.loads(result.stdout)["values"]["spearman"] == pytest.approx(82.03, abs=0.05)
