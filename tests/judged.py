"""A small judged test set, written by hand."""

from __future__ import annotations

import json
from pathlib import Path

DOCUMENTS = {
    "d1": "the dog runs and the cat sleeps",
    "d2": "a girl sings a song with a guitar",
    "d3": "the horse eats an apple",
    "d4": "a man plays the piano and sings",
    "d5": "red and blue water on the beach",
}
QUERIES = {"q1": "dog runs", "q2": "sings a song", "q3": "piano", "q4": "never judged"}
# q1: its document is first by words; q2: a graded pair; q3: one document.
QRELS = {"q1": {"d1": 1}, "q2": {"d2": 2, "d4": 1}, "q3": {"d4": 1}}


def write_judged_set(folder: Path) -> Path:
    """Write the set as a BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    write_lines(folder / "corpus.jsonl", DOCUMENTS)
    write_lines(folder / "queries.jsonl", QUERIES)
    lines = [f"{query}\t{doc}\t{level}\n" for query, judged in QRELS.items() for doc, level in judged.items()]
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8"
    )
    return folder


def write_lines(path: Path, texts: dict[str, str]) -> None:
    rows = ({"_id": key, "title": "", "text": text} for key, text in texts.items())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_self_asking_set(folder: Path) -> Path:
    """Write a set as ArguAna is: the queries are documents, and each is answered by another one."""
    write_judged_set(folder)
    write_lines(folder / "queries.jsonl", {key: DOCUMENTS[key] for key in ("d1", "d2")})
    (folder / "qrels" / "test.tsv").write_text("d1\td3\t1\nd2\td4\t1\n", encoding="utf-8")
    return folder
