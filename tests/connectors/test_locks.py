"""The lease: held by one, given back, taken over from the dead alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedkit.connectors.locks import LEASE, Lease, file_lock
from embedkit.errors import StoreError

BEAT = 0.08  # seconds


class Box:
    """Notes in memory; away, it answers nothing."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.away = False

    def read_note(self, name: str) -> str | None:
        if self.away:
            raise StoreError("away")
        return self.notes.get(name)

    def write_note(self, name: str, text: str) -> None:
        if self.away:
            raise StoreError("away")
        self.notes[name] = text

    def remove_note(self, name: str) -> None:
        del self.notes[name]


def lease(box: Box) -> Lease:
    return Lease(box, "place", beat_seconds=BEAT)


def test_a_lease_is_held_by_one_and_given_back() -> None:
    box = Box()
    with lease(box).held() as check:
        with (
            pytest.raises(StoreError, match=f"place: process {os.getpid()} on .* is pushing to it"),
            lease(box).held(),
        ):
            pass
        check()
    assert box.notes == {}
    with lease(box).held():
        pass


def test_a_lease_of_a_process_that_has_gone_is_taken_over_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    box = Box()
    with lease(box).held():
        sign = json.loads(box.notes[LEASE])
    box.notes[LEASE] = json.dumps({**sign, "token": "another", "pid": process.pid})
    started = time.perf_counter()
    with lease(box).held():
        assert time.perf_counter() - started < 4 * BEAT


def test_a_lease_from_elsewhere_is_taken_over_when_it_gives_no_sign_of_life() -> None:
    box = Box()
    box.notes[LEASE] = json.dumps({"token": "another", "host": "elsewhere", "pid": 1, "beat": 7})
    started = time.perf_counter()
    with lease(box).held() as check:
        assert time.perf_counter() - started > 4 * BEAT
        check()


def test_who_has_lost_the_lease_is_told() -> None:
    box = Box()
    stolen = json.dumps({"token": "another", "host": "elsewhere", "pid": 3, "beat": 1})
    with lease(box).held() as check:

        def steal() -> None:
            for _ in range(100):
                box.notes[LEASE] = stolen
                time.sleep(BEAT)
                check()

        with pytest.raises(StoreError, match="process 3 on elsewhere is pushing to it"):
            steal()
    assert box.notes == {LEASE: stolen}


def test_a_store_that_is_away_for_a_while_keeps_the_lease() -> None:
    box = Box()
    with lease(box).held() as check:
        box.away = True
        time.sleep(2 * BEAT)
        box.away = False
        before = box.notes[LEASE]
        ended = time.monotonic() + 100 * BEAT
        while box.notes[LEASE] == before:
            assert time.monotonic() < ended
        check()


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(StoreError, match=r"place: .*file.*Check the folder"),
        file_lock(tmp_path / "file" / "x.embedkit-lock", "place"),
    ):
        pass
