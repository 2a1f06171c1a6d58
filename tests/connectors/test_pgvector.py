"""PostgreSQL with pgvector beyond what the suite asks of every store: errors of a real server, kills, the graph."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.pushing import PushOptions, push
from embedkit.connectors.store import Hnsw
from embedkit.data.records import Document
from embedkit.errors import FilterError, StoreError
from indexes import Index
from tests.conftest import REPOSITORY
from tests.connectors.conftest import Target
from tests.connectors.servers import Postgres, postgres
from tests.connectors.test_conformance import content, info_of, make, pull_all, push_all, searched
from tests.indexes.fakes import create, embed

pytestmark = pytest.mark.stores


def target_of(server: Postgres, table: str) -> Target:
    return Target("pgvector", lambda: open_store(server.url(table)), server.url(table))


def connected(server: Postgres) -> Any:  # Any: psycopg is not typed here
    import psycopg

    return psycopg.connect(server.url("x").partition("?")[0], autocommit=True)


def test_a_wrong_password_and_a_missing_database_are_said_without_the_password(
    postgres_server: Postgres,
) -> None:
    with pytest.raises(
        StoreError, match=r"password authentication failed.*Check user and password"
    ) as caught:
        open_store(postgres_server.url("docs", password="wrong"))
    assert "wrong" not in str(caught.value)
    with pytest.raises(StoreError, match=r'database "none" does not exist.*createdb'):
        open_store(postgres_server.url("docs", database="none"))
    with pytest.raises(StoreError, match=r"Connection refused\. Check that the server runs"):
        open_store("postgresql://me:secret@127.0.0.1:1/x?table=docs")


def test_a_table_of_somebody_else_stays_as_it_is(postgres_server: Postgres, tmp_path: Path) -> None:
    with connected(postgres_server) as connection:
        connection.execute("CREATE TABLE theirs (a int, b text)")
        connection.execute("CREATE TABLE other_embedkit (c int)")
        connection.execute("INSERT INTO other_embedkit VALUES (7)")
    with (
        make(tmp_path / "a") as index,
        pytest.raises(StoreError, match="'theirs' that embedkit did not make; its columns are a, b"),
    ):
        push_all(index, target_of(postgres_server, "theirs"))
    with (
        make(tmp_path / "b") as index,
        pytest.raises(StoreError, match="'other_embedkit' that embedkit did not make"),
    ):
        push_all(index, target_of(postgres_server, "other"))
    with connected(postgres_server) as connection:
        assert connection.execute("SELECT * FROM other_embedkit").fetchall() == [(7,)]


def test_a_server_that_goes_away_half_way(tmp_path: Path) -> None:
    with postgres() as server, make(tmp_path / "a", 4000) as index:
        target = target_of(server, "docs")
        with closing(target.open()) as store:
            reports = push(index, store, info_of(index), PushOptions())
            sent = next(report.sent for report in reports if report.step == "push")
            server.stop()
            with pytest.raises(StoreError, match="the same command goes on"):
                list(reports)
        server.start()
        report = push_all(index, target)
        assert 0 < sent == report.unchanged
        assert report.sent == 4007 - sent
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_a_killed_push_goes_on(postgres_server: Postgres, tmp_path: Path) -> None:
    target = target_of(postgres_server, "killed")
    with make(tmp_path / "a", 4000) as index, connected(postgres_server) as connection:
        with closing(target.open()) as store:
            store.create(info_of(index).layout, info_of(index).to_json())
        words = [sys.executable, "-m", "cli", "index", "push", str(tmp_path / "a"), target.url]
        index.close()
        process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, env=os.environ)
        count = "SELECT count(*) FROM killed"
        while not connection.execute(count).fetchone()[0]:
            assert process.poll() is None
        with connection.transaction():  # it cannot end before it is killed
            connection.execute("LOCK TABLE killed IN SHARE ROW EXCLUSIVE MODE")
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
        others = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"
        while connection.execute(others, (f"%process {process.pid} %",)).fetchone()[0]:
            time.sleep(0.01)
        there = connection.execute(count).fetchone()[0]
        assert 0 < there < 4007
    with Index.open(tmp_path / "a") as index:
        with closing(target.open()) as store:
            assert not json.loads(str(store.read_info()))["finished"]
        report = push_all(index, target)
        assert (report.unchanged, report.sent) == (there, 4007 - there)
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


def test_another_push_is_named(postgres_server: Postgres, tmp_path: Path) -> None:
    target = target_of(postgres_server, "two")
    with make(tmp_path / "a") as index:
        push_all(index, target)
        with (
            closing(target.open()) as first,
            first.writing(),
            pytest.raises(StoreError, match=f"process {os.getpid()} on "),
        ):
            push_all(index, target)


def test_the_graph_is_made_as_asked_for_and_used(postgres_server: Postgres, tmp_path: Path) -> None:
    target = target_of(postgres_server, "graph")
    options = "SELECT reloptions FROM pg_class WHERE relname = 'graph_embedkit_hnsw'"
    with make(tmp_path / "a", 3000) as index, connected(postgres_server) as connection:
        push_all(index, target, hnsw=Hnsw(m=8, ef_construction=32))
        assert connection.execute(options).fetchone() == (["m=8", "ef_construction=32"],)
        plan = connection.execute(
            "EXPLAIN SELECT doc_id FROM graph ORDER BY embedding <=> (SELECT embedding FROM graph LIMIT 1) LIMIT 5"
        ).fetchall()
        assert any("graph_embedkit_hnsw" in line for (line,) in plan)
        push_all(index, target, hnsw=Hnsw(m=12, ef_construction=32))
        assert connection.execute(options).fetchone() == (["m=12", "ef_construction=32"],)
        push_all(index, target, hnsw=Hnsw(m=0))
        assert connection.execute(options).fetchone() is None


def test_a_filter_that_lets_few_pass_finds_them_all_the_same(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    target = target_of(postgres_server, "few")
    with make(tmp_path / "a", 3000) as index:
        push_all(index, target)
    impatient = target.url + "&options=-c%20hnsw.max_scan_tuples%3D50%20-c%20enable_seqscan%3Doff"
    with searched(Target("", lambda: open_store(impatient))) as store:
        (hits,) = store.search(embed(["x"]), k=5, where="id like 'note-29_7'", group=False, bare=True)
    assert len(hits) == 5


def test_vectors_too_wide_for_a_graph_are_searched_exactly_and_that_is_said(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 2100)).astype(np.float32)
    with create(tmp_path / "a", dimension=2100) as index:
        index.add([Document(str(number), "text") for number in range(3)], vectors)
        target = target_of(postgres_server, "wide")
        report = push_all(index, target)
        assert "takes 2,000 dimensions of float32, and these vectors have 2,100" in report.notes[0]
        with searched(target) as store:
            assert store.search(vectors[1:2], k=1, where=None, group=False, bare=True)[0][0].doc_id == "1"


def test_words_in_another_language(postgres_server: Postgres, tmp_path: Path) -> None:
    with create(tmp_path / "a") as index:
        index.add([Document("x", "Die Häuser stehen am Wasser")], embed(["x"]))
        url = postgres_server.url("german") + "&language=german"
        target = Target("pgvector", lambda: open_store(url))
        push_all(index, target)
        with searched(Target("", lambda: open_store(postgres_server.url("german")))) as store:
            assert store.search_text(["Haus"], k=1, where=None, group=False, bare=True)[0]
        with (
            pytest.raises(StoreError, match="pushed as german, and language=english"),
            closing(open_store(postgres_server.url("german") + "&language=english")) as store_,
        ):
            store_.read_info()
        url = postgres_server.url("no_language") + "&language=klingon"
        with pytest.raises(StoreError, match="klingon"):
            push_all(index, target)


def test_what_postgresql_cannot_hold_is_said(postgres_server: Postgres, tmp_path: Path) -> None:
    for doc_id, message in (
        ("a\0b", "holds the character NUL"),
        ("".join(map(str, range(9000))), "shorter ids"),
    ):
        with create(tmp_path / str(len(doc_id))) as index:
            index.add([Document(doc_id, "text")], embed(["x"]))
            with pytest.raises(StoreError, match=message):
                push_all(index, target_of(postgres_server, f"bad_{len(doc_id)}"))


def test_a_regular_expression_is_refused(postgres_server: Postgres, tmp_path: Path) -> None:
    target = target_of(postgres_server, "regex")
    with make(tmp_path / "a", 3) as index:
        push_all(index, target)
        with searched(target) as store, pytest.raises(FilterError, match="are not Python's"):
            store.search(embed(["x"]), k=1, where="lang matches 'e'", group=False, bare=True)


def test_a_graph_that_outgrows_the_servers_memory_is_said_with_what_to_do(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    """1 MB holds the graph of fewer than 4,007 rows; PostgreSQL's own 64 MB hold it."""
    with make(tmp_path / "a", 4000) as index:
        assert push_all(index, target_of(postgres_server, "roomy")).notes == []
        url = postgres_server.url("narrow") + "&options=-c%20maintenance_work_mem=1MB"
        (note,) = push_all(index, Target("pgvector", lambda: open_store(url), url)).notes
        found = re.match(
            r"the server's maintenance_work_mem, 1MB, held the graph of ([\d,]+) rows alone", note
        )
        assert found is not None
        assert 0 < int(found[1].replace(",", "")) < 4007
        assert "options=-c%20maintenance_work_mem=2GB" in note
