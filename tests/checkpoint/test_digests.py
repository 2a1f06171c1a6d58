"""Digests of weights: those of the bytes, remembered for as long as the file is the same."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from embedkit.checkpoint.digests import weights_digest
from embedkit.storage.hashing import file_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was written some time ago."""
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    later = time.time() + 10
    monkeypatch.setattr(time, "time", lambda: later)
    return path


def test_the_digest_is_that_of_the_bytes_also_the_second_time(file: Path, cache: Path) -> None:
    wanted = hashlib.sha256(b"abc").hexdigest()
    assert [file_digest(file), file_digest(file)] == [wanted, wanted]
    (note,) = (cache / "digests").iterdir()
    assert note.read_text(encoding="utf-8") == wanted
    assert weights_digest([file, file]) == hashlib.sha256(bytes.fromhex(wanted) * 2).hexdigest()


def test_other_bytes_have_another_digest_even_with_the_old_size_and_time(file: Path) -> None:
    file_digest(file)
    status = file.stat()
    file.write_bytes(b"xyz")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    assert file_digest(file) == hashlib.sha256(b"xyz").hexdigest()


def test_a_file_that_was_just_written_is_not_remembered(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = file.stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: now + 1)
    file_digest(file)
    assert not cache.exists()


def test_a_damaged_note_is_not_believed(file: Path, cache: Path) -> None:
    file_digest(file)
    (note,) = (cache / "digests").iterdir()
    note.write_text("abc", encoding="utf-8")
    assert file_digest(file) == hashlib.sha256(b"abc").hexdigest()
