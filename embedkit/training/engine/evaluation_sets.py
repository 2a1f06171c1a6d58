"""Held-out sets to measure a sentence encoder with while it is trained: similarity (Spearman) and retrieval (nDCG@10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.data.beir import folder_and_split, load_retrieval_set
from embedkit.data.qrels import Qrels, Run, find_unknown
from embedkit.data.reading import read_documents
from embedkit.data.records import Document, titled_text
from embedkit.errors import EvaluationError
from embedkit.evaluation.identical_ids import queries_are_documents, without_identical
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.evaluation.similarity import evaluate_similarity, read_scored_pairs
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.storage.hashing import file_hash

Floats = NDArray[np.float32]
Role = str  # "query" or "document"
Embed = Callable[[Sequence[str], Role], Floats]  # N texts -> (N, E)
NDCG = Metric("ndcg", 10)


class Find(Protocol):
    """Finds the `k` best documents of each query: a run as in TREC."""

    def __call__(
        self, queries: Mapping[str, str], documents: Mapping[str, str], *, k: int
    ) -> dict[str, dict[str, float]]: ...


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Scored pairs, or queries over documents with judgements.

    `files` are what was read, for hashes.
    """

    name: str
    files: tuple[Path, ...]
    pairs: Sequence[tuple[str, str, float]] = ()
    queries: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    qrels: Qrels = field(default_factory=dict)
    ignore_identical_ids: bool = False  # where the queries are documents

    @property
    def measure_name(self) -> str:
        return f"{self.name} {'spearman' if self.pairs else NDCG}"

    def texts(self) -> Iterable[str]:
        """Give every text of the set that a training set must not hold: both of a pair, the queries of a retrieval set."""
        for first, second, _ in self.pairs:
            yield first
            yield second
        yield from self.queries.values()

    def measure(self, embed: Embed) -> float:
        """Return Spearman's correlation, or the mean nDCG@10 of an exact search by cosine."""
        if self.pairs:
            return evaluate_similarity(self.pairs, lambda texts: embed(texts, "query")).spearman
        return self.measure_retrieval(partial(search, embed))

    def measure_retrieval(self, find: Find) -> float:
        """Return the mean nDCG@10 of an exact search."""
        run: Run = find(self.queries, self.documents, k=11 if self.ignore_identical_ids else 10)
        if self.ignore_identical_ids:
            run = without_identical(run)
        return evaluate_retrieval(self.qrels, run, (NDCG,)).means[str(NDCG)]


def load_evaluation_set(source: str) -> EvaluationSet:
    """Read a file of scored pairs (sentence1, sentence2, score), or a retrieval set FOLDER[:SPLIT] in BEIR's layout.

    Raises:
        RecordError, EvaluationError: a file is missing or holds something else.
    """
    folder, split = folder_and_split(source)
    if not Path(folder).is_dir():
        path = Path(source)
        name = f"{path.absolute().parent.name}/{path.name.partition('.')[0]}"
        return EvaluationSet(name=name, files=(path,), pairs=read_scored_pairs(path))
    found = load_retrieval_set(folder, split=split or "test")
    documents: dict[str, str] = {}
    own: dict[str, Document] = {}
    for document in read_documents([str(found.corpus)]):
        documents[document.doc_id] = titled_text(document.title, document.text)
        if document.doc_id in found.queries:
            own[document.doc_id] = document
    find_unknown(found.qrels, query_ids=found.queries, doc_ids=documents)
    return EvaluationSet(
        name=found.name if found.split == "test" else f"{found.name}/{found.split}",
        files=found.files,
        queries=found.queries,
        documents=documents,
        qrels=found.qrels,
        ignore_identical_ids=queries_are_documents(found.queries, found.qrels, own),
    )


def load_evaluation_sets(sources: Sequence[str]) -> list[EvaluationSet]:
    """Read several sets, each under a name of its own.

    Raises:
        RecordError, EvaluationError: as for one, or two have the same name.
    """
    sets = [load_evaluation_set(source) for source in sources]
    names = [each.measure_name for each in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(
            f"two evaluation sets are called {twice[0]!r}; give each folder or file a name of its own"
        )
    return sets


def evaluation_hashes(sets: Sequence[EvaluationSet]) -> dict[str, str]:
    return {each.measure_name: ",".join(file_hash(path)[:16] for path in each.files) for each in sets}


def search(
    embed: Embed, queries: Mapping[str, str], documents: Mapping[str, str], *, k: int = 10
) -> dict[str, dict[str, float]]:
    """Find the `k` nearest documents of each query, by cosine, exactly; returns a run as in TREC."""
    doc_ids = list(documents)
    vectors = normalize(embed(list(documents.values()), "document"))
    wanted = normalize(embed(list(queries.values()), "query"))
    query_ids = list(queries)
    run: dict[str, dict[str, float]] = {}
    for start in range(0, len(wanted), 256):  # 256 x N scores at a time
        scores = wanted[start : start + 256] @ vectors.T
        count = min(k, scores.shape[1])
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        for query_id, row, columns in zip(query_ids[start : start + 256], scores, best, strict=True):
            run[query_id] = {doc_ids[i]: float(row[i]) for i in columns}
    return run


def row_cosines(one: Floats, other: Floats) -> Floats:
    """Return the cosine of each row with its partner: (N, E), (N, E) -> (N,)."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    result: Floats = np.einsum("ne,ne->n", one, other) / np.maximum(lengths, 1e-12)
    return result


@dataclass(frozen=True)
class Overlap:
    """How many texts of an evaluation set stand in the training texts too, word for word."""

    name: str
    shared: int
    total: int
    example: str

    def warning(self) -> str:
        return (
            f"{self.name}: {self.shared:,} of its {self.total:,} texts ({self.shared / self.total:.1%}) are in the training data too, "
            f"such as {self.example[:60]!r}; its results will look better than they are"
        )


def find_overlaps(sets: Sequence[EvaluationSet], training: Iterable[str]) -> list[Overlap]:
    """Compare texts without regard to case and spacing; only sets that share some are returned."""
    wanted: list[dict[str, str]] = [{_plain(text): text for text in each.texts()} for each in sets]
    watched = set().union(*wanted) if wanted else set()
    seen = {plain for text in training if (plain := _plain(text)) in watched}
    found = []
    for each, texts in zip(sets, wanted, strict=True):
        shared = [texts[plain] for plain in texts if plain in seen]
        if shared:
            found.append(Overlap(each.name, len(shared), len(texts), shared[0]))
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
