"""Nobody but `embedkit.storage.files` puts a whole file or folder under its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

# What a writer of its own would need.
CALLS = {"fsync", "fdatasync", "rename", "renames", "mkstemp", "mkdtemp", "NamedTemporaryFile"}
# Files that grow, or that a transaction names: each flushes what it has added.
APPENDING = {
    "embedkit/encoding/draft.py",
    "embedkit/training/distillation/teacher.py",
    "embedkit/training/mining/mining.py",
    "indexes/storage/new_file.py",
}


# A file without any of these words holds no such call, and need not be parsed.
WORDS = re.compile(rf"\b({'|'.join(CALLS)}|os\s*\.\s*replace)\b")


def calls_of(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8")
    if not WORDS.search(source):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            of_os = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "os"
            if name in CALLS or (name == "replace" and of_os):
                yield name


def test_whole_files_are_written_in_one_place() -> None:
    found = {
        (path.relative_to(REPOSITORY).as_posix(), name)
        for package in ("embedkit", "indexes", "cli")
        for path in (REPOSITORY / package).rglob("*.py")
        for name in calls_of(path)
    }
    assert {path for path, name in found if name == "fsync"} == {"embedkit/storage/files.py", *APPENDING}
    assert {(path, name) for path, name in found if name != "fsync"} == set()
