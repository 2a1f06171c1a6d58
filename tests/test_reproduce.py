"""docs/reproduce/texts.py: what the shipped models are trained on, made here of small files in the same layout; and whiten.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedkit.encoding.encoder import Encoder
from embedkit.model.sentence_config import SentenceConfig
from embedkit.training.whitening import fit_whitening
from tests.open_data import EVALUATED, MEASURED, write_jsonl, write_open_data
from tests.tiny import WORDS, write_static_model, write_tiny_model

WHITEN = Path(__file__).resolve().parent.parent / "docs" / "reproduce" / "whiten.py"
SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "reproduce" / "texts.py"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_open_data(tmp_path / "data")
    return tmp_path / "data"


def run(*arguments: object) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def test_texts_are_distinct_and_of_no_test_set_and_the_same_again(data: Path, tmp_path: Path) -> None:
    report = run("texts", data, tmp_path / "a.jsonl", "--limit", 100_000)
    texts = texts_of(tmp_path / "a.jsonl")
    assert f"{len(texts):,}  texts" in report
    assert len({plain(text) for text in texts}) == len(texts) > 100
    joined = " ".join(plain(text) for text in texts)
    assert plain("Foxes are small animals") in joined  # a sentence beside the one that is kept out
    for kept_out in (MEASURED, "A paper to test with", "Its abstract is not among the texts"):
        assert plain(kept_out) not in joined
    for name in (
        "stsb",
        "sick",
        "mrpc",
        "parade",
        "parasci",
        "wikiqa",
        *EVALUATED,
        "banking77 test",
        "a test image",
    ):
        assert plain(name) not in joined.replace("squadv11train", "")
    for name in (
        "banking77 train",
        "of a train image",
        "medquad",
        "stackexchange",
        "simplewiki title lead",
        "Ask squad_v11_train",
    ):
        assert plain(name) in joined, name
    run("texts", data, tmp_path / "b.jsonl", "--limit", 100_000)
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_a_limit_is_kept_and_shared_out(data: Path, tmp_path: Path) -> None:
    report = run("texts", data, tmp_path / "few.jsonl", "--limit", 30)
    assert len(texts_of(tmp_path / "few.jsonl")) == 30
    counts = {
        line.split(maxsplit=1)[1]: int(line.split()[0].replace(",", "")) for line in report.splitlines()[:-1]
    }
    assert sum(counts.values()) == 30
    assert counts["banking77 question"] == 1  # all that there is
    assert counts["simplewiki sentence"] > 3


def test_pairs_are_a_file_a_source_and_of_no_test_set(data: Path, tmp_path: Path) -> None:
    run("pairs", data, tmp_path / "pairs")
    found = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (tmp_path / "pairs").iterdir()
    }
    assert {
        "arxiv",
        "simplewiki",
        "squad",
        "stackexchange",
        "stackexchange_body",
        "medquad",
        "coco",
        "scitldr",
    } <= set(found)
    assert found["squad"] == [
        {
            "query": "Ask squad_v11_train t",
            "positive": "Title squad_v11_train A document of squad_v11_train t",
        }
    ]
    assert [pair["query"] for pair in found["scitldr"]] == ["Ask scitldr t"]
    assert "A Paper To Test With" not in [pair["query"] for pair in found["arxiv"]]
    assert found["coco"][0]["query"] != found["coco"][0]["positive"]


@pytest.mark.parametrize("static", [False, True])
def test_whitened_vectors_are_mapped_ones_and_keep_their_mean(tmp_path: Path, static: bool) -> None:
    """The map, found again here, gives the script's vectors; nothing was centred."""
    raw, model = (
        write_static_model(tmp_path / name, normalize=normalize)
        if static
        else write_tiny_model(tmp_path / name, sentence=SentenceConfig(normalize=normalize))
        for name, normalize in (("raw", False), ("model", True))
    )
    texts = [f"{one} {other} runs" for one in WORDS[:12] for other in WORDS[12:24]]
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    command = [sys.executable, str(WHITEN), str(model), str(tmp_path / "texts.jsonl"), str(tmp_path / "out")]
    subprocess.run([*command, "--strength", "0.7"], check=True, timeout=120)
    vectors = Encoder.load(str(raw), device="cpu", precision="fp32").encode(texts)
    mapped = vectors @ fit_whitening(vectors, 0.7).weight.T
    found = Encoder.load(str(tmp_path / "out"), device="cpu", precision="fp32").encode(texts)
    np.testing.assert_allclose(found, mapped / np.linalg.norm(mapped, axis=1, keepdims=True), atol=1e-5)
