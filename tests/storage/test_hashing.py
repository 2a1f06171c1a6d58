from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from embedkit.errors import RecordError
from embedkit.storage.hashing import canonical_json, file_hash, json_digest


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(
        RecordError, match=r"none: cannot be read \(No such file or directory\)\. Check the path"
    ):
        file_hash(tmp_path / "none")


def test_json_is_known_by_its_content_and_not_by_the_order_of_its_keys() -> None:
    assert canonical_json({"b": [1, None], "a": "ü"}) == '{"a":"ü","b":[1,null]}'
    assert json_digest({"b": 1, "a": 2}) == json_digest({"a": 2, "b": 1})
    assert json_digest([1]) == hashlib.sha256(b"[1]").hexdigest()
