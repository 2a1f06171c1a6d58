"""Adding documents over HTTP, and deleting them: an index is then as the command line would have made it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.serving.http.access import Access
from indexes import Index
from tests.serving.indexes.served_indexes import ask, build, numbered, serving

LONG = " ".join(f"the girl number {number} plays the guitar." for number in range(40))
NEW: list[dict[str, Any]] = [
    {"id": "a/new one", "title": "Music", "text": LONG, "metadata": {"tag": "new", "year": 2020}},
    {"id": "blank", "text": "  "},
    {"id": "short", "text": "a horse"},
]


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path) -> Path:
    return build(
        tmp_path / "docs.index", numbered(10), tiny_model, "--chunk-tokens", 16, "--chunk-overlap", 4
    )


@pytest.fixture
def address(here: Path) -> Iterator[str]:
    with serving(here, writable=True) as found:
        yield found


def test_what_is_added_is_what_a_build_makes(
    here: Path, address: str, tmp_path: Path, tiny_model: Path
) -> None:
    status, content = ask(address, "POST", "/documents", {"documents": NEW})
    assert status == 200
    assert content == {"added": 3, "replaced": 0, "unchanged": 0, "empty": 1, "passages": content["passages"]}
    assert content["passages"] > 10
    rows = [{name: row[name] for name in row if name != "metadata"} | row.get("metadata", {}) for row in NEW]
    other = build(
        tmp_path / "other.index",
        [*numbered(10), *rows],
        tiny_model,
        "--chunk-tokens",
        16,
        "--chunk-overlap",
        4,
    )
    with Index.open(here) as one, Index.open(other) as two:
        for row in NEW:
            (hits, vectors), (like, expected) = one.passages(str(row["id"])), two.passages(str(row["id"]))
            assert [(h.text, h.passage, h.start, h.stop, h.title, h.metadata) for h in hits] == [
                (h.text, h.passage, h.start, h.stop, h.title, h.metadata) for h in like
            ]
            np.testing.assert_allclose(vectors, expected, atol=1e-6)
    status, found = ask(address, "POST", "/search", {"query": "girl number 7", "mode": "text", "k": 1})
    assert found["hits"][0]["id"] == "a/new one"
    again = ask(address, "POST", "/documents", {"documents": NEW})[1]
    assert again == {"added": 0, "replaced": 0, "unchanged": 3, "empty": 0, "passages": 0}
    changed = [NEW[2] | {"text": "a dog"}]
    assert ask(address, "POST", "/documents", {"documents": changed})[1]["replaced"] == 1
    assert ask(address, "GET", "/documents/short")[1]["text"] == "a dog"


def test_deleting(address: str) -> None:
    path = f"/documents/{quote('old/3', safe='')}"
    assert ask(address, "DELETE", path) == (200, {"deleted": 1, "missing": []})
    assert ask(address, "DELETE", path) == (200, {"deleted": 0, "missing": ["old/3"]})
    assert ask(address, "GET", path)[0] == 404
    assert ask(address, "DELETE", "/documents/old/3?index=nope")[0] == 404


def test_while_somebody_else_writes_it_is_refused_with_the_reason(here: Path, address: str) -> None:
    with Index.open(here, writable=True):
        for method, path, body in (
            ("POST", "/documents", {"documents": NEW}),
            ("DELETE", "/documents/old/1", None),
        ):
            status, content = ask(address, method, path, body)
            assert status == 409
            assert "is writing to this index" in content["error"]["message"]
        assert ask(address, "POST", "/search", {"query": "girl"})[0] == 200
    assert ask(address, "POST", "/documents", {"documents": NEW})[0] == 200


def test_writers_of_one_server_take_turns(here: Path, address: str) -> None:
    answers: list[tuple[int, Any]] = []

    def add(number: int) -> None:
        documents = [{"id": f"{number} {each}", "text": f"girl {each}"} for each in range(5)]
        answers.append(ask(address, "POST", "/documents", {"documents": documents}))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(status, content["added"]) for status, content in answers] == [(200, 5)] * 6
    with Index.open(here) as index:
        assert index.count_documents() == 40


@pytest.mark.parametrize(
    ("documents", "status", "reason"),
    [
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], 422, "the id 'a' stands there again"),
        ([{"id": "", "text": "x"}], 422, "documents[0]: the id is ''"),
        ([{"id": "a\nb", "text": "x"}], 422, "nor hold tabs, line ends or NUL"),
        ([{"id": "a\0b", "text": "x"}], 422, "the id is 'a\\x00b'"),
        ([{"id": "a", "txt": "x"}], 400, "text"),
        ([{"id": "a", "text": "x", "more": 1}], 400, "there is no field 'documents[0].more'"),
        ([{"id": "a", "text": 3}], 400, "Expected `str`"),
    ],
)
def test_bad_documents_are_refused_and_nothing_is_written(
    here: Path, address: str, documents: list[Any], status: int, reason: str
) -> None:
    found, content = ask(address, "POST", "/documents", {"documents": documents})
    assert found == status
    assert reason in content["error"]["message"]
    with Index.open(here) as index:
        assert index.count_documents() == 10


def test_a_server_that_is_not_writable_has_no_such_routes(here: Path) -> None:
    with serving(here, access=Access(keys=("k",))) as address:
        assert ask(address, "POST", "/documents", {"documents": NEW}, authorization="Bearer k")[0] in (
            404,
            405,
        )
        assert ask(address, "DELETE", "/documents/old/1", authorization="Bearer k")[0] == 405
        assert ask(address, "GET", "/indexes", authorization="Bearer k")[1]["writable"] is False


def test_whole_numbers_of_more_than_64_bits_come_back_as_they_are(here: Path, address: str) -> None:
    metadata = {"n": 2**70, "deep": {"list": [-(10**30), 0.5, None]}}
    ask(
        address, "POST", "/documents", {"documents": [{"id": "big", "text": "a zebra", "metadata": metadata}]}
    )
    status, content = ask(address, "GET", "/documents/big")
    assert (status, content["metadata"]) == (200, metadata)
    status, content = ask(address, "POST", "/search", {"query": "zebra", "mode": "text"})
    assert (status, [hit["metadata"] for hit in content["hits"]]) == (200, [metadata])
