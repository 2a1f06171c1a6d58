"""LanceDB beyond what the suite asks of every store: folders, kills, the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedkit.connectors.lancedb_filters import to_sql
from embedkit.connectors.opening import open_store
from embedkit.connectors.pulling import pull
from embedkit.connectors.store import Hnsw
from embedkit.errors import FilterError, StoreError
from indexes import Index
from indexes.search.syntax import parse_filter
from tests.conftest import REPOSITORY
from tests.connectors.conftest import Target
from tests.connectors.test_conformance import content, make, pull_all, push_all

pytestmark = pytest.mark.stores


@pytest.fixture(autouse=True)
def lancedb() -> Any:  # Any: not typed here, where it may be missing
    return pytest.importorskip("lancedb", reason="needs: pip install 'embedkit[lancedb]'")


def target_of(folder: Path) -> Target:
    url = f"lance://{folder}?table=docs"
    return Target("lancedb", lambda: open_store(url), url)


def test_a_table_of_somebody_else_stays_as_it_is(lancedb: Any, tmp_path: Path) -> None:
    lancedb.connect(str(tmp_path / "lance")).create_table("docs", [{"a": 1, "b": "x"}])
    with (
        make(tmp_path / "a") as index,
        pytest.raises(StoreError, match="'docs' that embedkit did not make; its columns are a, b"),
    ):
        push_all(index, target_of(tmp_path / "lance"))
    lancedb.connect(str(tmp_path / "other")).create_table("docs_embedkit", [{"c": 7}])
    with (
        make(tmp_path / "b") as index,
        pytest.raises(StoreError, match="'docs_embedkit' that embedkit did not make"),
    ):
        push_all(index, target_of(tmp_path / "other"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with make(tmp_path / "a") as index, pytest.raises(StoreError, match="file/lance"):
        push_all(index, target_of(tmp_path / "file" / "lance"))


def test_nothing_is_made_before_a_push(tmp_path: Path) -> None:
    with closing(target_of(tmp_path / "lance").open()) as store:
        assert store.read_info() is None
    assert not (tmp_path / "lance").exists()


def test_a_killed_push_goes_on(tmp_path: Path) -> None:
    target = target_of(tmp_path / "lance")
    make(tmp_path / "a", 4000).close()
    words = [sys.executable, "-m", "cli", "index", "push", str(tmp_path / "a"), target.url]
    process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, env=os.environ)
    data = tmp_path / "lance" / "docs.lance" / "data"
    while not list(data.glob("*.lance")):  # of the first batch
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Index.open(tmp_path / "a") as index:
        with closing(target.open()) as store, pytest.raises(StoreError, match="has not ended"):
            pull(store, tmp_path / "no")
        report = push_all(index, target)
        assert report.unchanged < 4007
        assert report.unchanged + report.sent == 4007
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_the_graph_is_made_as_asked_for(lancedb: Any, tmp_path: Path) -> None:
    target = target_of(tmp_path / "lance")

    def graph() -> list[dict[str, Any]]:  # Any: as above
        table = lancedb.connect(str(tmp_path / "lance")).open_table("docs")
        return [each.index_details["hnsw"] for each in table.list_indices() if each.columns == ["embedding"]]

    with make(tmp_path / "a", 1500) as index:
        push_all(index, target, hnsw=Hnsw(m=8, ef_construction=40))
        assert [(each["max_connections"], each["construction_ef"]) for each in graph()] == [(8, 40)]
        push_all(index, target, hnsw=Hnsw(m=12, ef_construction=40))
        assert [each["max_connections"] for each in graph()] == [12]
        push_all(index, target, hnsw=Hnsw(m=0))
        assert graph() == []


def test_filters_that_cannot_be_said_are_refused() -> None:
    for where in ("f matches 'x'", '"a\\b" = 1', "f contains 'a\\b'"):
        with pytest.raises(FilterError, match="embedkit index pull"):
            to_sql(parse_filter(where, ["f", "a\\b"]))
