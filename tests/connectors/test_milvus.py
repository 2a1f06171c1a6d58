"""Milvus beyond what the suite asks of every store: its limits, files, and who else is there."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.store import Hnsw
from embedkit.data.records import Document
from embedkit.errors import StoreError
from indexes import Index
from tests.conftest import REPOSITORY
from tests.connectors.conftest import Target
from tests.connectors.test_conformance import content, make, push_all
from tests.indexes.fakes import create, embed

pytestmark = pytest.mark.stores


@pytest.fixture(autouse=True)
def client() -> Any:  # Any: a module that may be missing
    pytest.importorskip("milvus_lite", reason="needs: pip install 'embedkit[milvus]'")
    return pytest.importorskip("pymilvus", reason="needs: pip install 'embedkit[milvus]'")


def at(path: Path, name: str = "docs") -> Target:
    url = f"milvus://{path / 'milvus.db'}?collection={name}"
    return Target("milvus", lambda: open_store(url), url)


def test_a_missing_server_is_said_without_the_password() -> None:
    with (
        closing(open_store("milvus://me:secret@127.0.0.1:1?collection=docs")) as store,
        pytest.raises(
            StoreError, match=r"me@127.0.0.1:1\?collection=docs: Milvus says: .*Check that the server runs"
        ) as caught,
    ):
        store.read_info()
    assert "secret" not in str(caught.value)


def test_a_file_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a file of Milvus Lite ends in \.db"):
        open_store(f"milvus://{tmp_path / 'x'}?collection=docs")


def test_nothing_is_made_before_a_push(tmp_path: Path) -> None:
    with closing(at(tmp_path / "no").open()) as store:
        assert store.read_info() is None
    assert not (tmp_path / "no").exists()


def test_what_milvus_cannot_hold_is_said(tmp_path: Path) -> None:
    for name, document, message in (
        (
            "long",
            Document("x", "word " * 20_000),
            "the text of passage 0 of 'x' has 100,000 bytes; Milvus holds 65,535",
        ),
        (
            "many",
            Document("x", "text", "", {"n": list(range(5000))}),
            "has 5,00. values and items; Milvus holds 4,096",
        ),
    ):
        with create(tmp_path / name) as index:
            index.add([document], embed(["x"]))
            with pytest.raises(StoreError, match=message):
                push_all(index, at(tmp_path, name))


def test_collections_of_somebody_else_stay_as_they_are(client: Any, tmp_path: Path) -> None:
    other = client.MilvusClient(str(tmp_path / "milvus.db"))
    for name in ("docs", "other_embedkit"):
        other.create_collection(name, dimension=4)
    other.close()
    with make(tmp_path / "a") as index:
        for name, named in (("docs", "'docs'"), ("other", "'other_embedkit'")):
            with pytest.raises(StoreError, match=f"a collection {named} that embedkit did not make"):
                push_all(index, at(tmp_path, name))


def test_the_graph_is_made_as_asked_for(client: Any, tmp_path: Path) -> None:
    def kind() -> str:
        other = client.MilvusClient(str(tmp_path / "milvus.db"))
        with closing(other):
            return str(other.describe_index("docs", "embedding")["index_type"])

    with make(tmp_path / "a", 5) as index:
        push_all(index, at(tmp_path), hnsw=Hnsw(m=8, ef_construction=40))
        assert kind() == "HNSW"
        push_all(index, at(tmp_path), hnsw=Hnsw(m=0))
        assert kind() == "FLAT"
        push_all(index, at(tmp_path), hnsw=Hnsw(m=8, ef_construction=40))
        assert kind() == "HNSW"


def test_a_file_is_read_and_written_by_other_processes(tmp_path: Path) -> None:
    """Milvus Lite opens a file with no collection loaded, and its server lives as long as its process."""
    target = at(tmp_path)
    with make(tmp_path / "a", 5) as index:
        push_all(index, target)
        expected = content(index)
    for words in (
        ["pull", target.url, str(tmp_path / "b")],
        ["push", str(tmp_path / "a"), target.url],
        ["pull", target.url, str(tmp_path / "c")],
    ):
        release(tmp_path)
        command = [sys.executable, "-m", "cli", "index", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for pulled in ("b", "c"):
        with Index.open(tmp_path / pulled) as index:
            assert content(index) == expected


def test_the_graph_holds_what_was_pushed_last(client: Any, tmp_path: Path) -> None:
    """Without it Milvus Lite compares a query with every vector."""
    with make(tmp_path / "a", 20) as index:
        push_all(index, at(tmp_path))
        files = list((tmp_path / "milvus.db/collections/docs").rglob("*hnsw*"))
        assert files


def release(path: Path) -> None:
    """End this process's server of the file, as it is one process's at a time."""
    manager = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    manager.release_server(str(path / "milvus.db"))
