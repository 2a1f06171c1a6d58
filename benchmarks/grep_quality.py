"""How well `embedkit grep` finds lines that answer a question: by meaning, by words (BM25), hybrid, and reranked.

    python -m benchmarks.grep_quality search [--collections stdlib topics manual] [--rerank MODEL]
    python -m benchmarks.grep_quality prefixes [--collections stdlib]
    python -m benchmarks.grep_quality weights

All take --work DIR, to keep the indexes, and --output FILE

The questions are those of `benchmarks/questions`. A hit is right if it is in a file of the answer and shares a line with it.

search: hits@1, hits@5 and MRR@10, of the half for choosing and of the test, with the difference of each system in MRR to hybrid
search, and the probability that it is chance (randomisation test). "hidden" are right answers among the first five
hybrid hits that the command line would not show, because they are taken for no answer.

prefixes: what stands before the text of a passage when it is embedded: nothing, the file's path (as grep does), the names that
enclose it (`class Walker › list`), or both. BM25 reads the path and the passage in all cases.

weights: hybrid search with several weights of words, that of meaning being 1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from benchmarks.questions.asked import Question
from benchmarks.questions.derive import COLLECTIONS
from benchmarks.questions.scoring import Answered, K, right_rank, tables
from benchmarks.timing import report
from embedkit.data.places import place_of
from embedkit.data.records import Document, titled_text
from embedkit.models import RERANKER
from embedkit.pipelines.grep.folder import Folder
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.judging import strong_hits
from embedkit.pipelines.searching import open_search
from embedkit.retrieval.options import FOLDER_TEXT_WEIGHT, SearchOptions
from embedkit.types import Computing
from indexes.maintenance import build as building
from indexes.storage.documents import Passage

SHOWN = 5
SYSTEMS = {
    "dense": SearchOptions(mode="dense", k=K),
    "text (BM25)": SearchOptions(mode="text", k=K),
    "hybrid": SearchOptions(mode="hybrid", k=K, text_weight=FOLDER_TEXT_WEIGHT),
}
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
RERANKED = "hybrid + rerank"
WEIGHED = "hybrid, words by {:g}"
AS_IT_IS = "path (as it is)"
PREFIXES: dict[str, Callable[[str, str], str]] = {
    "nothing": lambda path, names: "",
    AS_IT_IS: lambda path, names: path,
    "names": lambda path, names: names,
    "path, names": lambda path, names: f"{path} {names}".strip(),
}


def index(root: Path, home: Path, name: str) -> Folder:
    """Build the index of a collection as grep does."""
    place = Home(home, root.resolve())
    place.make()
    folder = Folder(place, Computing())
    last = list(folder.refresh())[-1]
    if last.problems:
        raise SystemExit("\n".join(last.problems))
    print(
        f"{name}: {last.files:,} files, {last.passages:,} passages, embedded in {last.seconds:.0f} s",
        flush=True,
    )
    return folder


def search(
    folder: Folder, questions: Sequence[Question], options: SearchOptions, rerank: str | None = None
) -> list[int | None]:
    """Return the rank of the right hit for each question; None where it is not among the first."""
    # All at once, with the models for many queries: what `Folder.search` does for one.
    with open_search(folder.home.index, options, folder.computing, rerank=rerank) as opened:
        found = opened.retriever.search([each.text for each in questions], options)
    return [right_rank(each, hits) for each, hits in zip(questions, found, strict=True)]


def count_hidden(folder: Folder, questions: Sequence[Question], options: SearchOptions) -> int:
    """Return how many questions lose their only right hits among the first to the rule of what is no answer."""
    hidden = 0
    with folder.open(options) as opened:
        found = opened.retriever.search([each.text for each in questions], options)
        for each, hits in zip(questions, found, strict=True):
            if right_rank(each, hits[:SHOWN]) is not None:
                hidden += right_rank(each, strong_hits(opened, each.text, hits[:SHOWN], options)) is None
    return hidden


def compare_systems(collection: str, folder: Path, rerank: str | None) -> Answered:
    questions = COLLECTIONS[collection](folder / collection)
    home = index(folder / collection, folder / f"{collection}.home", collection)
    answered = Answered(questions)
    systems: list[tuple[str, SearchOptions, str | None]] = [
        (name, options, None) for name, options in SYSTEMS.items()
    ]
    if rerank is not None:
        systems.append((RERANKED, SYSTEMS["hybrid"], rerank))
    for system, options, model in systems:
        started = time.perf_counter()
        answered.ranks[system] = search(home, questions, options, model)
        spent = (time.perf_counter() - started) / len(questions)
        print(f"{collection}, {system}: {1000 * spent:.0f} ms a question", flush=True)
    hidden = count_hidden(home, questions, SYSTEMS["hybrid"])
    print(f"{collection}: {hidden} of {len(questions)} hidden", flush=True)
    return answered


def compare_prefixes(collection: str, folder: Path) -> Answered:
    """Return the ranks under "MODE, PREFIX"."""
    questions = COLLECTIONS[collection](folder / collection)
    answered = Answered(questions)
    for number, (prefix, make) in enumerate(PREFIXES.items()):
        embed_after(make)
        place = folder / (f"{collection}.home" if prefix == AS_IT_IS else f"{collection}.{number}.home")
        home = index(folder / collection, place, f"{collection}, {prefix}")
        for mode in ("dense", "hybrid"):
            answered.ranks[f"{mode}, {prefix}"] = search(home, questions, SYSTEMS[mode])
    return answered


def compare_weights(collection: str, folder: Path) -> Answered:
    """Return the ranks under "text weight W"."""
    questions = COLLECTIONS[collection](folder / collection)
    home = index(folder / collection, folder / f"{collection}.home", collection)
    answered = Answered(questions)
    for weight in WEIGHTS:
        options = replace(SYSTEMS["hybrid"], text_weight=weight)
        answered.ranks[WEIGHED.format(weight)] = search(home, questions, options)
    return answered


def embed_after(make: Callable[[str, str], str]) -> None:
    """Let `build` embed passages after what `make` makes of path and names; they are cut so that it has room."""

    def prefix(document: Document, start: int, stop: int) -> str:
        place = place_of(document.marks, document.text, start, stop)
        return make(document.title, " › ".join(place.headings) if place is not None else "")

    def text_of(document: Document, passage: Passage) -> str:
        stop = len(document.text) if passage.stop == -1 else passage.stop
        return titled_text(prefix(document, passage.start, stop), document.text[passage.start : stop])

    def spans(self: building._Build, document: Document, split: building.Split) -> list[tuple[int, int]]:
        text = document.text
        borders = [0, *(at for at in document.parts if 0 < at < len(text)), len(text)]
        return [
            (first + start, first + stop)
            for first, last in pairwise(borders)
            for start, stop in split(prefix(document, first, last), text[first:last])
        ]

    building._text_of = text_of
    building._Build._spans = spans  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("search", "prefixes", "weights"))
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS)
    parser.add_argument(
        "--rerank", default=RERANKER, metavar="MODEL", help=f"a cross-encoder, maxsim or none ({RERANKER})"
    )
    parser.add_argument(
        "--work", type=Path, help="keep collections and indexes here, and take those that are here"
    )
    parser.add_argument("--output", type=Path, help="also write the table as JSON")
    given = parser.parse_args()
    collections = given.collections or (["stdlib"] if given.what == "prefixes" else list(COLLECTIONS))
    rerank = None if given.rerank == "none" else given.rerank
    bases = {
        "search": ["hybrid"],
        "prefixes": [f"{mode}, {AS_IT_IS}" for mode in ("dense", "hybrid")],
        "weights": [WEIGHED.format(1.0)],
    }[given.what]
    measure: dict[str, Callable[[str, Path], Answered]] = {
        "search": lambda name, work: compare_systems(name, work, rerank),
        "prefixes": compare_prefixes,
        "weights": compare_weights,
    }
    total = Answered()
    with tempfile.TemporaryDirectory(prefix="embedkit-questions-") as temporary:
        work = given.work or Path(temporary)
        for name in collections:
            made = measure[given.what](name, work)
            report(name, tables(made, bases), output=None)
            total.add(made)
    report(given.what, tables(total, bases), output=given.output)


if __name__ == "__main__":
    main()
