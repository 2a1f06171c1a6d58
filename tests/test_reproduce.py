"""docs/reproduce/texts.py: what the shipped models are trained on, made here of small files in the same layout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

zstandard = pytest.importorskip(
    "zstandard", reason="the data sets are compressed: pip install 'embedkit[zstd]'"
)
SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "reproduce" / "texts.py"
MEASURED = "The quick brown fox jumps over the lazy sleeping dog"  # of a test set, ten words
TSV = {
    "sts/stsb/dev": "sentence1 sentence2 score",
    "sts/stsb/test": "sentence1 sentence2 score",
    "sts/sick/dev": "sentence1 sentence2 score",
    "pairs/mrpc/dev": "sentence1 sentence2",
    "pairs/mrpc/test": "sentence1 sentence2",
    "pairs/parade/dev": "sentence1 sentence2",
    "pairs/parade/test": "sentence1 sentence2",
    "pairs/parasci/val": "sentence1 sentence2",
    "pairs/parasci/test": "sentence1 sentence2",
    "pairs/wikiqa/dev": "question sentence",
    "pairs/wikiqa/test": "question sentence",
    "pairs/banking77/test": "text label",
    "pairs/banking77/train": "text label",
    "pairs/simplewiki_title_lead/all": "title lead",
    "pairs/simplewiki_enwiki_leads/all": "title simple_lead english_lead",
    "pairs/arxiv_title_abstract/train": "title abstract cat id",
    "pairs/open_english_wordnet/glosses": "lemmas definition examples",
    "pairs/stackexchange_qa/train": "title body answer score",
    "pairs/medquad/train": "question answer",
}
EVALUATED = ("squad_v11_dev", "scifact", "cacm", "cisi", "time", "adi", "wikiqa_test")


def write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ("\n".join(lines) + "\n").encode("utf-8")
    path.write_bytes(zstandard.ZstdCompressor().compress(content) if path.suffix == ".zst" else content)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:  # Any: whatever JSON holds
    write(path, [json.dumps(row) for row in rows])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every file that the script reads, with a line or two that can be told by its name."""
    folder = tmp_path / "data"
    for name, columns in TSV.items():
        names = columns.split()
        cells = [f"Some {name.replace('/', ' ')} {column} of a row in this file" for column in names]
        rows = ["\t".join(names), "\t".join(cells)]
        if name == "sts/stsb/test":
            rows.append(f"{MEASURED}.\tA fox.\t3")
        if name == "pairs/arxiv_title_abstract/train":
            rows.append("A Paper To Test With\tIts abstract is not among the texts.\tcs\t1")
        write(folder / (name + (".tsv" if name.startswith("sts") else ".tsv.zst")), rows)
    articles = [
        {
            "id": str(i),
            "title": f"Article {i}",
            "text": f"Article {i} speaks of thing {i}. It says much more of it.",
        }
        for i in range(40)
    ]
    articles.append(
        {"id": "x", "title": "Foxes", "text": f"Foxes are small animals. {MEASURED.upper()}! They do."}
    )
    write_jsonl(folder / "text/simplewiki.jsonl.zst", articles)
    write_jsonl(folder / "text/enwiki.jsonl.zst", articles[:2])
    for split in ("train", "test"):
        images = [{"image_id": 1, "captions": [f"Caption {i} of a {split} image" for i in range(5)]}]
        write_jsonl(folder / f"pairs/coco_captions/{split}.jsonl.zst", images)
    for name in (*EVALUATED, "squad_v11_train", "scitldr"):
        place = folder / "retrieval" / name
        documents = [
            {"_id": split, "title": f"Title {name}", "text": f"A document of {name} {split}"}
            for split in "tdv"
        ]
        if name == "scitldr":
            documents[1]["title"] = "A paper to test with"
        write_jsonl(place / "corpus.jsonl.zst", documents)
        write_jsonl(
            place / "queries.jsonl.zst",
            [{"_id": f"{d['_id']}-0", "text": f"Ask {name} {d['_id']}"} for d in documents],
        )
    head = "query-id\tcorpus-id\tscore"
    for split, doc in (("train", "t"), ("dev", "d"), ("test", "v")):
        write(folder / f"retrieval/scitldr/qrels/{split}.tsv", [head, f"{doc}-0\t{doc}\t1"])
    write(folder / "retrieval/squad_v11_train/qrels/train.tsv.zst", [head, "t-0\tt\t1"])
    return folder


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
