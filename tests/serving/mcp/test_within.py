"""What `get` reads lies below the root, whatever the path says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedkit.errors import RecordError
from embedkit.serving.mcp.within import inner_parts, read_within


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.txt").write_bytes(b"inside\n")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.txt").write_bytes(b"secret\n")
    return root


def read(root: Path, path: str, max_bytes: int = 100) -> bytes:
    return read_within(root, inner_parts(root, path), max_bytes)


def test_a_path_is_taken_as_seen_from_the_root_or_whole(root: Path) -> None:
    for path in ("in/a.txt", "./in//a.txt", f"{root}/in/a.txt"):
        assert read(root, path) == b"inside\n"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("../secret/s.txt", "a path with .. is not followed"),
        ("in/../../secret/s.txt", "a path with .. is not followed"),
        ("/etc/passwd", "is not in .*root, which is all that is served"),
        ("", "names no file"),
        ("in/a\0.txt", "names no file"),
        ("in", "in: is no file"),
        ("in/b.txt", r"in/b.txt: cannot be read \(No such file or directory\)"),
        ("in/a.txt/x", r"cannot be read \(Not a directory\)"),
    ],
)
def test_what_leads_elsewhere_or_nowhere_is_refused(root: Path, path: str, wanted: str) -> None:
    with pytest.raises(RecordError, match=wanted):
        read(root, path)


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("in/link.txt", "../../secret/s.txt", "in/link.txt"),
        ("out", "../secret", "out/s.txt"),
        ("in/again.txt", "a.txt", "in/again.txt"),
        ("in/self", "self", "in/self"),
    ],
)
def test_links_are_not_followed_wherever_they_lead(root: Path, link: str, target: str, path: str) -> None:
    (root / link).symlink_to(target)
    with pytest.raises(RecordError, match="links are not followed"):
        read(root, path)


def test_a_pipe_is_no_file_and_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(RecordError, match="pipe: is no file"):
        read(root, "pipe")


def test_a_large_file_is_refused(root: Path) -> None:
    with pytest.raises(RecordError, match="are not served"):
        read(root, "in/a.txt", max_bytes=3)
