"""Search by words in the world's scripts: what is found, and size and speed of the text index, in each format version.

    python benchmarks/scripts.py [--articles 20000] [--texts FILE.jsonl.zst]

`scripts.json` has a few documents in each script, and queries with the documents that hold the word. "Found" is the share of these that a
query brings, "wrong" counts all others that it brings. Sizes are those of the words alone; seconds are the processor's, without the
embedding, which takes far longer. Version 1 is what indexes were before the words of all scripts could be found; they still are read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from timing import data_folder

from embedkit.data.reading import read_documents
from embedkit.data.records import Document
from indexes import Index, Settings
from indexes.search.text import find_terms, match_expression
from indexes.storage.schema import FORMAT_VERSION, TEXT_SCHEMA

HERE = Path(__file__).parent
OLD_TABLE = (
    "CREATE VIRTUAL TABLE text_index USING fts5(title, text, content='passage_texts', content_rowid='row', "
    "tokenize='porter unicode61 remove_diacritics 2')"
)
COMMIT = 4096


def indexed(folder: Path, documents: Iterator[Document]) -> Index:
    """Make an index whose vectors are of no importance."""
    index = Index.create(folder, Settings(dimension=1))
    while some := list(islice(documents, COMMIT)):
        index.add(some, np.ones((len(some), 1), np.float32))
    return index


def fill(index: Index, version: int) -> tuple[float, float]:
    """Fill the text index of a version from the documents; return seconds and megabytes."""
    database = index.database
    started = time.process_time()
    with database.transaction():
        if version == 1:
            database.execute("DROP TABLE text_index")
            database.execute("DROP VIEW passage_words")
            database.execute(OLD_TABLE)
            database.execute("INSERT INTO text_index (text_index) VALUES ('rebuild')")
            database.set_meta("format_version", 1)
        else:
            database.execute("DROP TABLE text_index")
            for statement in TEXT_SCHEMA:
                database.execute(statement)
            database.set_meta("format_version", FORMAT_VERSION)
            database.rebuild_text_index()
    seconds = time.process_time() - started
    database.execute("INSERT INTO text_index (text_index) VALUES ('optimize')")
    size = database.execute("SELECT sum(length(block)) FROM text_index_data").fetchone()[0]
    return seconds, size / 1e6


def search(index: Index, query: str) -> set[str]:
    expression = match_expression(find_terms(query, index.database.version))
    found = index.database.execute(
        "SELECT doc_id FROM text_index JOIN passages ON row = text_index.rowid JOIN documents USING (doc_key) "
        "WHERE text_index MATCH ?",
        (expression,),
    )
    return {doc_id for (doc_id,) in found} if expression else set()


def hits(index: Index, script: str, queries: dict[str, Sequence[int]]) -> tuple[int, int, int]:
    """Return how many documents are to be found, are found, and are found wrongly in one script."""
    wanted = found = wrong = 0
    for query, numbers in queries.items():
        right = {f"{script} {number}" for number in numbers}
        brought = {doc_id for doc_id in search(index, query) if doc_id.startswith(f"{script} ")}
        wanted, found, wrong = wanted + len(right), found + len(right & brought), wrong + len(brought - right)
    return wanted, found, wrong


def print_hits(folder: Path) -> None:
    scripts = json.loads((HERE / "scripts.json").read_text(encoding="utf-8"))
    documents = (
        Document(f"{script} {number}", text)
        for script, content in scripts.items()
        for number, text in enumerate(content["documents"])
    )
    table = {}
    with indexed(folder, documents) as index:
        for version in (1, FORMAT_VERSION):
            fill(index, version)
            table[version] = [hits(index, script, content["queries"]) for script, content in scripts.items()]
    print(
        "| script | to be found | found before | found now | wrong before | wrong now |\n|---|---:|---:|---:|---:|---:|"
    )
    for script, before, now in zip(scripts, table[1], table[FORMAT_VERSION], strict=True):
        print(f"| {script} | {now[0]} | {before[1]} | {now[1]} | {before[2]} | {now[2]} |")


def print_costs(folder: Path, name: str, documents: Iterator[Document]) -> None:
    with indexed(folder, documents) as index:
        texts = index.database.execute(
            "SELECT sum(length(CAST(text AS BLOB))) / 1e6 FROM documents"
        ).fetchone()[0]
        titles = [
            title
            for (title,) in index.database.execute("SELECT title FROM documents WHERE title != '' LIMIT 500")
        ]
        for version in (1, FORMAT_VERSION):
            seconds, size = fill(index, version)
            started = time.process_time()
            for title in titles:
                index.search_text([title])
            searched = time.process_time()
            for title in titles:
                index.text_limits([title])
            costs = [
                1000 * (end - start) / max(len(titles), 1)
                for start, end in pairwise((started, searched, time.process_time()))
            ]
            print(
                f"| {name} | {version} | {texts:.1f} | {seconds:.1f} | {size:.1f} | {costs[0]:.2f} | {costs[1]:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--articles", type=int, default=20_000, help="how many of simplewiki")
    parser.add_argument(
        "--texts", nargs="*", type=Path, default=[], help="other collections to measure, as JSON lines"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedkit-scripts-") as temporary:
        print_hits(Path(temporary) / "scripts")
        print(
            "\n| texts | version | MB of text | seconds to index | MB of words | ms per search | ms per limit |"
            "\n|---|---:|---:|---:|---:|---:|---:|"
        )
        wiki = data_folder() / "text/simplewiki.jsonl.zst"
        for path in [wiki, *asked.texts]:
            name = path.name.split(".")[0]
            print_costs(Path(temporary) / name, name, islice(read_documents([str(path)]), asked.articles))


if __name__ == "__main__":
    main()
