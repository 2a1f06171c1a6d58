"""The dev sets that choices are made by: rows of the varied kinds that are never trained on, and seven sets of other origin."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from sources import cut, rows
from varied import VARIED, VariedSet, held_out

DOCUMENTS, QUERIES, FEWEST_QUERIES, OTHER_QUERIES = 3000, 300, 20, 1000
OTHERS = {"cacm": None, "cisi": None, "time": None, "squad_v11_dev": None, "scitldr": "dev"}  # set -> split
SIMILARITY = {"stsb": "score", "sick": "score"}
Arrays = dict[str, NDArray[np.int32] | NDArray[np.float32]]


class DevSets:
    """Retrieval sets {q, d, rel} and similarity sets {a, b, s}, whose texts are numbered over all sets.

    q (Q,) and d (D,), a and b (N,): numbers of texts; rel (R, 3): place in q, place in d, gain; s (N,): scores.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.sets: dict[str, Arrays] = {}

    def add_retrieval(
        self, name: str, queries: list[str], documents: list[str], judged: list[tuple[int, int, int]]
    ) -> None:
        rel = np.array(judged, np.int32).reshape(-1, 3)
        self.sets[name] = {"q": self._numbers(queries), "d": self._numbers(documents), "rel": rel}

    def add_similarity(self, name: str, first: list[str], second: list[str], scores: list[float]) -> None:
        numbers = {"a": self._numbers(first), "b": self._numbers(second)}
        self.sets[name] = {**numbers, "s": np.array(scores, np.float32)}

    def _numbers(self, texts: list[str]) -> NDArray[np.int32]:
        return np.array([self.numbers.setdefault(cut(text), len(self.numbers)) for text in texts], np.int32)


def read_dev_sets(data: Path) -> DevSets:
    found = DevSets()
    for each in VARIED:
        if each.pair is not None:
            _add_varied(found, each, data)
    for name, split in OTHERS.items():
        _add_other(found, name, split, data)
    for name, score in SIMILARITY.items():
        pairs = list(rows(data / f"sts/{name}/dev.tsv"))
        first, second = ([row[column] for row in pairs] for column in ("sentence1", "sentence2"))
        found.add_similarity(name, first, second, [float(row[score]) for row in pairs])
    return found


def _add_varied(found: DevSets, each: VariedSet, data: Path) -> None:
    """Ask for the held-out rows; rows that were trained on only stand among the documents."""
    assert each.pair is not None
    query, document = each.pair
    read = [
        (row[query], row[document], held_out(row))
        for row in rows(each.path(data))
        if row[query] and row[document]
    ]
    Random(f"0 dev {each.name}").shuffle(read)
    read.sort(key=lambda row: not row[2])  # the held-out ones first
    documents = list(dict.fromkeys(cut(text) for _, text, _ in read[:DOCUMENTS]))
    places = {text: place for place, text in enumerate(documents)}
    answers = {
        cut(text): places[cut(answer)] for text, answer, kept in read if kept and cut(answer) in places
    }
    chosen = dict(list(answers.items())[:QUERIES])
    if len(chosen) >= FEWEST_QUERIES:
        judged = [(number, place, 1) for number, place in enumerate(chosen.values())]
        found.add_retrieval(f"v_{each.name}", list(chosen), documents, judged)


def _add_other(found: DevSets, name: str, split: str | None, data: Path) -> None:
    folder = data / "retrieval" / name
    judgements = folder / "qrels" / f"{split}.tsv" if split else min((folder / "qrels").iterdir())
    documents = {
        row["_id"]: f"{row.get('title', '')} {row['text']}".strip()
        for row in rows(folder / "corpus.jsonl.zst")
    }
    queries = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl.zst")}
    judged = [(row["query-id"], row["corpus-id"], int(row["score"])) for row in rows(judgements)]
    ids = list(dict.fromkeys(query for query, _, _ in judged))
    Random(0).shuffle(ids)
    asked = {query: place for place, query in enumerate(ids[:OTHER_QUERIES])}
    places = {document: place for place, document in enumerate(documents)}
    found.add_retrieval(
        name,
        [queries[query] for query in asked],
        list(documents.values()),
        [
            (asked[query], places[document], gain)
            for query, document, gain in judged
            if query in asked and document in places and gain > 0
        ],
    )
