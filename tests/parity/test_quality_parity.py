"""The figures that are known of all-MiniLM-L6-v2 on real test sets come out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.reading import read_documents
from embedkit.data.trec import read_qrels

# Of SciFact's 5,183 abstracts: those that are judged, and the first others.
SAMPLE = 500


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


def ndcg(folder: Path, *options: str) -> list[float]:
    """Return nDCG@10 of BM25 and of each further mode."""
    result = CliRunner().invoke(app, ["evaluate", "retrieval", str(folder), *options, "--device", "cpu"])
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line)["values"]["ndcg@10"] for line in result.stdout.splitlines()]


def sample_of(collection: Path, folder: Path) -> Path:
    """Write a collection of SAMPLE documents: all that are judged, and the first of the others."""
    (folder / "qrels").mkdir(parents=True)
    shutil.copy(collection / "queries.jsonl.zst", folder)
    shutil.copy(collection / "qrels" / "test.tsv", folder / "qrels")
    judged = {name for wanted in read_qrels(folder / "qrels" / "test.tsv").values() for name in wanted}
    room = SAMPLE - len(judged)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
        for document in read_documents([str(collection / "corpus.jsonl.zst")]):
            if document.doc_id not in judged:
                room -= 1
                if room < 0:
                    continue
            row = {"_id": document.doc_id, "title": document.title, "text": document.text}
            stream.write(json.dumps(row) + "\n")
    return folder


@pytest.mark.parity
def test_ndcg_on_a_sample_is_that_of_sentence_transformers(
    shared_data: Path, minilm: Path, cache: str, tmp_path: Path
) -> None:
    """Measured with sentence-transformers 6.2 on the same documents."""
    folder = sample_of(shared_data / "retrieval" / "scifact", tmp_path / "scifact")
    modes = ["--mode", "dense", "--mode", "hybrid", "-m", str(minilm), "--cache-dir", cache]
    bm25, dense, hybrid = ndcg(folder, *modes)
    assert dense == pytest.approx(0.8401, abs=0.001)
    assert hybrid > max(bm25, dense)


@pytest.mark.parity
def test_bm25_on_scifact_is_as_good_as_published(shared_data: Path, cache: str) -> None:
    (bm25,) = ndcg(shared_data / "retrieval" / "scifact", "--mode", "text", "--cache-dir", cache)
    assert bm25 >= 0.67


@pytest.mark.quality
@pytest.mark.parametrize(
    ("name", "known", "near"), [("scifact", 0.645, 0.003), ("cacm", 0.410, 0.005), ("cisi", 0.420, 0.005)]
)
def test_ndcg_on_whole_collections_is_the_known_one(
    shared_data: Path, minilm: Path, cache: str, name: str, known: float, near: float
) -> None:
    """SciFact as published; CACM and CISI as measured with sentence-transformers on the same files. Minutes, unless it is cached."""
    modes = ["--mode", "dense", "--mode", "hybrid", "-m", str(minilm), "--cache-dir", cache]
    bm25, dense, hybrid = ndcg(shared_data / "retrieval" / name, *modes)
    assert dense == pytest.approx(known, abs=near)
    assert hybrid > max(bm25, dense)


@pytest.mark.parity
def test_stsb_spearman_is_the_published_one(shared_data: Path, minilm: Path) -> None:
    path = str(shared_data / "sts" / "stsb" / "test.tsv")
    result = CliRunner().invoke(app, ["evaluate", "similarity", path, "-m", str(minilm), "--device", "cpu"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert 100 * json.loads(result.stdout)["values"]["spearman"] == pytest.approx(82.03, abs=0.05)
