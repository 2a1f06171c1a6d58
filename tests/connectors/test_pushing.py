"""Pushing where the store misbehaves, which one in memory does at will."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from embedkit.connectors.info import StoreInfo
from embedkit.connectors.pushing import PushOptions, check_pushable, push
from embedkit.connectors.store import Hnsw, StoreRow, Vectors
from embedkit.errors import IndexMismatchError, StoreError
from indexes import Index, Settings
from tests.connectors.memory import MemoryServer, MemoryStore
from tests.connectors.test_conformance import info_of, make


def run(index: Index, store: MemoryStore) -> int:
    *_, report = push(index, store, info_of(index), PushOptions())
    return report.sent


def test_a_server_that_goes_away_is_pushed_the_rest_alone(tmp_path: Path) -> None:
    server = MemoryServer()
    server.fail_after = 2500
    with make(tmp_path / "a", 4000) as index:
        with pytest.raises(StoreError, match="went away"):
            run(index, MemoryStore(server))
        sent = len(server.rows)
        assert not StoreInfo.from_json(str(server.info), "").finished
        assert not server.busy
        server.fail_after = None
        assert run(index, MemoryStore(server)) == 4007 - sent
        assert server.upserted == 4007  # nothing twice


@pytest.mark.parametrize(
    "settings",
    [
        Settings(dimension=4, storage="2-bit", kind="multi-vector"),
        Settings(dimension=4, storage="int8", metric="dot", kind="sparse"),
    ],
    ids=["multi-vector", "sparse"],
)
def test_an_index_of_another_kind_is_refused_and_nothing_written(tmp_path: Path, settings: Settings) -> None:
    server = MemoryServer()
    with make(tmp_path / "dense") as dense:
        info = info_of(dense)
    with Index.create(tmp_path / "a", settings) as index:
        wanted = f"is a {settings.kind} index; a store takes one vector a passage"
        with pytest.raises(IndexMismatchError, match=wanted):
            check_pushable(index)
        with pytest.raises(IndexMismatchError, match=wanted):
            push(index, MemoryStore(server), info, PushOptions())
    assert server.info is None
    assert not server.rows


class Forgetful(MemoryStore):
    """Loses the last row of each batch, and says nothing."""

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        super().upsert(rows[:-1], vectors[:-1], new=new)


class Rounding(MemoryStore):
    """Keeps fewer digits than it was given."""

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        super().upsert(rows, vectors.round(3), new=new)


def test_a_store_that_loses_or_rounds_is_found_out(tmp_path: Path) -> None:
    with make(tmp_path / "a", 20) as index:
        for kind, message in (
            (Forgetful, "holds 26 rows after the push; 27 were"),
            (Rounding, "is not what was sent"),
        ):
            server = MemoryServer()
            with pytest.raises(StoreError, match=message):
                run(index, kind(server))
            assert not StoreInfo.from_json(str(server.info), "").finished


def test_info_of_a_newer_version_or_damaged(tmp_path: Path) -> None:
    with make(tmp_path / "a") as index:
        info = info_of(index)
        assert StoreInfo.from_json(info.to_json(), "place") == info
        newer = info.to_json().replace('"format": 1', '"format": 2')
        with pytest.raises(
            StoreError, match="place: it was pushed in format 2; this embedkit reads format 1"
        ):
            StoreInfo.from_json(newer, "place")
        for text in ("", "[]", "{}", '{"format": 1}', info.to_json().replace("dimension", "dimensions")):
            with pytest.raises(StoreError, match="place: what embedkit wrote beside the data cannot be read"):
                StoreInfo.from_json(text, "place")


def test_an_index_with_fields_is_refused(tmp_path: Path) -> None:
    with (
        Index.create(tmp_path / "a", Settings(dimension=4, fields=2)) as index,
        pytest.raises(IndexMismatchError, match="its documents have fields"),
    ):
        info_of(index)


@pytest.mark.parametrize(("m", "ef"), [(1, 64), (101, 300), (16, 31), (16, 1001)])
def test_hnsw_out_of_range(m: int, ef: int) -> None:
    with pytest.raises(ValueError, match="must be from"):
        Hnsw(m=m, ef_construction=ef)
