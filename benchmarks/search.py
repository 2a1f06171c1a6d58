"""Compare the search speed of each kind of index with plain FAISS on the same file, hnswlib and usearch.

    python benchmarks/sentences.py sentences.txt
    embedkit index build sentences.txt --text-unit line --chunk-tokens 0 --index wiki.index --model FOLDER
    python benchmarks/search.py wiki.index --work DIR [--rows 1000000] [--kinds hnsw] [--peers]

The queries are 1,000 stored sentences that are left out of the index. At recall@10 of .95 and .99 against exact search, it
measures a batch of all queries and single queries with
    ids    `Index.search_ids`: ids and scores, as an evaluation run needs them
    hits   `Index.search`: the same with texts, titles and metadata, all read from the database and verified
    faiss  the file ann-*.faiss, opened by faiss alone, with the same knobs; for flat an IndexFlatIP, and for IVF-PQ an
           IndexRefine over the same file, which rescores its hits with the stored vectors, as we do
and reports how much more time `ids` and `hits` take than `faiss`. Everything is kept in DIR: the collection, the exact
answers, each ANN index as soon as it is built, and the figures of each kind. The same command resumes an interrupted run and
rebuilds whatever was removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import search_peers
from timing import in_turn, report

from indexes import Index, Settings, build_ann, compact, tune
from indexes.maintenance.ann_build import stream_vectors
from indexes.storage.documents import read_documents

K = 10
NUM_QUERIES = 1000
TARGETS = (0.95, 0.99)
CHUNK = 65_536
KINDS = ("flat", "hnsw", "ivf-flat", "ivf-pq")
Search = Callable[[np.ndarray], Any]


class Work:
    """The folder that keeps intermediate results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the result of `make`, which is called once and kept in DIR/name.json."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            print(f"{name} …", file=sys.stderr, flush=True)
            made = json.dumps(make(), indent=1)
            temporary = path.with_suffix(".new")
            temporary.write_text(made + "\n", encoding="utf-8")
            temporary.replace(path)
        return json.loads(path.read_text(encoding="utf-8"))

    @cached_property
    def queries(self) -> np.ndarray:
        return np.load(self.folder / "queries.npy")

    @cached_property
    def truth(self) -> np.ndarray:
        return np.load(self.folder / "truth.npy")

    @cached_property
    def vectors(self) -> np.ndarray:
        with Index.open(self.folder / "base.index") as index:
            return np.concatenate([vectors for _, vectors in stream_vectors(index.snapshot)])

    def recall(self, found: Sequence[Sequence[Any]]) -> float:
        """Return the recall@10 of positions, given as numbers or as our ids."""
        pairs = zip(found, self.truth.tolist(), strict=True)
        return statistics.fmean(len({int(one) for one in some} & set(true)) / K for some, true in pairs)

    def make_base(self, source: Path, rows: int) -> dict[str, Any]:
        """Copy `rows` documents with their vectors to a new index, with their positions as ids."""
        path = self.folder / "base.index"
        shutil.rmtree(path, ignore_errors=True)
        start = time.perf_counter()
        with Index.open(source) as index:
            total = min(rows + NUM_QUERIES, index.database.count("documents"))
            chosen = np.zeros(total, np.bool_)
            chosen[np.random.default_rng(0).choice(total, NUM_QUERIES, replace=False)] = True
            kept: list[np.ndarray] = []
            with Index.create(path, Settings(dimension=index.settings.dimension)) as base:
                for first, documents, vectors in _read(index, total):
                    here = chosen[first : first + len(documents)]
                    kept.append(vectors[here])
                    numbered = [
                        replace(documents[at], doc_id=str(len(base) + number))
                        for number, at in enumerate(np.flatnonzero(~here).tolist())
                    ]
                    base.add(numbered, vectors[~here])
                list(compact(base))
        np.save(self.folder / "queries.npy", np.concatenate(kept))
        with Index.open(path) as base:
            truth = base.search_ids(self.queries, k=K, exact=True)
        np.save(self.folder / "truth.npy", np.array([[int(one) for one, _ in some] for some in truth]))
        made = {"source": str(source.resolve()), "asked": rows, "rows": total - NUM_QUERIES}
        return made | {"seconds": round(time.perf_counter() - start)}

    def build(self, kind: str) -> dict[str, Any]:
        """Build one kind of index on a copy of the collection; the segments are linked, not copied."""
        path = self.folder / f"{kind}.index"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(
            self.folder / "base.index",
            path,
            copy_function=lambda a, b: os.link(a, b) if a.endswith(".vectors") else shutil.copy2(a, b),
        )
        if kind == "flat":
            (segment,) = path.glob("segments/*")
            return {"build s": 0.0, "MB": round(segment.stat().st_size / 1e6)}
        with Index.open(path, writable=True) as index:
            *_, last = build_ann(index, kind)  # type: ignore[arg-type]  # argparse checked it
            return {"build s": round(last.seconds, 1), "MB": round(last.num_bytes / 1e6)}

    def measure(self, kind: str, built: Mapping[str, Any]) -> list[dict[str, Any]]:
        with Index.open(self.folder / f"{kind}.index", writable=True) as index:
            if index.ann is None:
                faster: list[Mapping[str, int]] = [{}]
            else:
                if not index.ann.info.curve:
                    *_, _ = tune(index, queries=self.queries[:200])
                curve = sorted(index.ann.info.curve, key=lambda point: -float(point["queries_per_second"]))
                faster = [point["knobs"] for point in curve if point["recall"] > TARGETS[0] - 0.02]
            rows = []
            for target in TARGETS if index.ann is not None else (1.0,):
                row = {"kind": f"embedkit {kind}", **built, "target": target, "setting": "not reached"}
                for knobs in faster:
                    found = index.search_ids(self.queries, k=K, knobs=knobs or None)
                    recall = self.recall([[one for one, _ in some] for some in found])
                    if recall >= target:
                        row |= {"setting": name_of(knobs), "recall@10": round(recall, 4)}
                        row |= self.compare(index, kind, knobs)
                        break
                rows.append(row)
        return rows

    def compare(self, index: Index, kind: str, knobs: Mapping[str, int]) -> dict[str, Any]:
        """Time our two calls and plain faiss alternately."""
        bare = self.bare(index, kind, knobs)
        calls: dict[str, Search] = {
            "ids": lambda some: index.search_ids(some, k=K, knobs=knobs or None),
            "hits": lambda some: index.search(some, k=K, knobs=knobs or None),
            "faiss": bare,
        }
        offset = 1 if kind in ("hnsw", "ivf-flat") else 0  # rows are numbered from 1
        row: dict[str, Any] = {"faiss recall": round(self.recall(bare(self.queries)[1] - offset), 4)}
        batch, one = times(calls, self.queries)
        for name in ("ids", "hits"):
            row[f"{name}/s"] = round(NUM_QUERIES / batch[name])
            row[f"{name} %"] = round(100 * (batch[name] / batch["faiss"] - 1), 1)
        row["faiss/s"] = round(NUM_QUERIES / batch["faiss"])
        row |= {f"{name} ms": round(1000 * one[name], 2) for name in calls}
        return row | {"hits +ms": round(1000 * (one["hits"] - one["faiss"]), 2)}

    def bare(self, index: Index, kind: str, knobs: Mapping[str, int]) -> Search:
        import faiss

        if kind == "flat":
            flat = faiss.IndexFlatIP(self.vectors.shape[1])
            flat.add(self.vectors)
            return lambda some: flat.search(some, K)
        assert index.ann is not None
        structure = faiss.read_index(str(index.ann.path))
        if kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=knobs["efSearch"])
            return lambda some: structure.search(some, K, params=parameters)
        parameters = faiss.SearchParametersIVF(nprobe=min(knobs["nprobe"], structure.nlist))
        if kind == "ivf-flat":
            return lambda some: structure.search(some, K, params=parameters)
        flat = faiss.IndexFlatIP(self.vectors.shape[1])
        flat.add(self.vectors)
        lists = structure.invlists
        for number in range(structure.nlist):  # rows are numbered from 1, but a refining index counts from 0
            rows = faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))
            rows -= 1
        refined = faiss.IndexRefine(structure, flat)
        both = faiss.IndexRefineSearchParameters(k_factor=knobs["oversampling"], base_index_params=parameters)
        return lambda some: refined.search(some, K, params=both)

    def measure_peer(self, name: str) -> list[dict[str, Any]]:
        peer = search_peers.PEERS[name](self.folder, self.vectors)
        rows, targets = [], list(TARGETS)
        built = {"build s": round(peer.build_seconds, 1), "MB": round(peer.num_bytes / 1e6)}
        for effort in search_peers.EFFORTS:
            found = self.recall(peer.find(self.queries, K, effort))
            while targets and found >= targets[0]:
                batch, one = times({"ids": partial(peer.find, k=K, effort=effort)}, self.queries)
                row = {"kind": peer.name, **built, "target": targets.pop(0), "setting": f"effort {effort}"}
                row |= {"recall@10": round(found, 4), "ids/s": round(NUM_QUERIES / batch["ids"])}
                rows.append(row | {"ids ms": round(1000 * one["ids"], 2)})
        rest = {"kind": peer.name, **built, "setting": "not reached"}
        return rows + [rest | {"target": target} for target in targets]


def _read(index: Index, total: int) -> Iterator[tuple[int, list[Any], np.ndarray]]:
    """Yield the first `total` documents in chunks: (position of the first, documents, vectors)."""
    after, position = 0, 0
    while position < total:
        stored = read_documents(index.database, after, min(CHUNK, total - position))
        rows = [row for each in stored for row, _, _ in each.passages]
        if len(rows) != len(stored):
            sys.exit(f"{index.path}: some documents have several passages; build it with --chunk-tokens 0")
        yield position, [each.document for each in stored], index.snapshot.gather(np.asarray(rows, np.int64))
        after, position = stored[-1].doc_key, position + len(stored)


def times(calls: Mapping[str, Search], queries: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Return each call's best time for a batch, and its median over 100 single queries of the best of 3."""
    batch = in_turn({name: partial(call, queries) for name, call in calls.items()}, rounds=3)
    alone: dict[str, list[float]] = {name: [] for name in calls}
    for query in queries[:100]:
        for name, timing in in_turn(
            {name: partial(call, query[None]) for name, call in calls.items()}, rounds=3
        ).items():
            alone[name].append(timing.best)
    return {name: timing.best for name, timing in batch.items()}, {
        name: statistics.median(seconds) for name, seconds in alone.items()
    }


def name_of(knobs: Mapping[str, int]) -> str:
    return " ".join(f"{key} {value}" for key, value in knobs.items()) or "all vectors"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps intermediate results")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--peers", nargs="*", choices=list(search_peers.PEERS), default=list(search_peers.PEERS)
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    work = Work(arguments.work)
    base = work.kept("base", lambda: work.make_base(arguments.index, arguments.rows))
    if (base["source"], base["asked"]) != (str(arguments.index.resolve()), arguments.rows):
        sys.exit(
            f"{arguments.work}: holds {base['asked']:,} rows of {base['source']}, not {arguments.rows:,} of "
            f"{arguments.index}. Name another folder with --work"
        )
    rows: list[dict[str, Any]] = []
    for kind in arguments.kinds:
        built = work.kept(f"build-{kind}", partial(work.build, kind))
        rows += work.kept(f"measured-{kind}", partial(work.measure, kind, built))
    for peer in arguments.peers:
        rows += work.kept(f"measured-{peer}", partial(work.measure_peer, peer))
    name = f"Search over {base['rows']:,} × {work.queries.shape[1]}, {NUM_QUERIES:,} queries"
    report(name, rows, output=arguments.output)


if __name__ == "__main__":
    main()
