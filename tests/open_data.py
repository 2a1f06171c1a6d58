"""Small files in the layout of the open data sets that the shipped models are trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

zstandard = pytest.importorskip(
    "zstandard", reason="the data sets are compressed: pip install 'embedkit[zstd]'"
)
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


def write_open_data(folder: Path) -> None:
    """Every file that the script reads, with a line or two that can be told by its name."""
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
