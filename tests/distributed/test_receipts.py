"""Receipts that are damaged or lie are found, and their shards built again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.distributed.building import find_done
from embedkit.distributed.layout import receipt_path, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.planning import planned
from embedkit.distributed.receipts import Receipt, verified
from embedkit.distributed.shard import ShardBuilder
from indexes import Index
from tests.distributed import hashes, request, write_corpus


@pytest.fixture
def built(tmp_path: Path, corpus: list[Path], static_model: Path) -> tuple[Path, ShardPlan]:
    """An index in two shards."""
    return build(tmp_path / "big", corpus, static_model)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, static_model: Path) -> tuple[Path, ShardPlan]:
    """An index in two shards, which tests leave as it was."""
    folder = tmp_path_factory.mktemp("kept")
    return build(folder / "big", write_corpus(folder), static_model)


@pytest.fixture
def receipt_file(kept: tuple[Path, ShardPlan]) -> Iterator[Path]:
    """The receipt of a kept shard, which is put back."""
    path = receipt_path(kept[0], 0)
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def build(folder: Path, corpus: list[Path], static_model: Path) -> tuple[Path, ShardPlan]:
    with planned(folder, request(corpus, static_model, shards=2)) as plan:
        builder = ShardBuilder(folder)
        for shard in range(2):
            builder.build(shard, lambda progress: None)
    return folder, plan


def no_signature(receipt: Receipt) -> Receipt:
    """Take away what lets a receipt be believed without reading the index."""
    return replace(receipt, files=())


def test_a_receipt_is_believed_of_the_very_files_it_was_made_of_and_proved_of_others(
    kept: tuple[Path, ShardPlan], tmp_path: Path
) -> None:
    folder, plan = kept
    receipt = verified(folder, 0, plan.digest)
    assert 100 < receipt.documents < 200
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)  # other inodes
    again = verified(copied, 0, plan.digest)
    assert again.content_hash == receipt.content_hash
    assert again.files != receipt.files
    assert Receipt.read(copied, 0).files == json.loads(
        json.dumps(again.files)
    )  # the next look is a short one


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("documents", 7, "the receipt says documents 7, and the index has"),
        ("passages", 7, "the receipt says passages 7, and the index has"),
        ("content_hash", "0" * 64, "the receipt says content hash 0000"),
        ("plan", "0" * 64, "of another plan or shard"),
    ],
)
def test_a_receipt_that_lies_is_found(
    kept: tuple[Path, ShardPlan], name: str, value: object, reason: str
) -> None:
    folder, plan = kept
    before = hashes(folder)
    no_signature(replace(Receipt.read(folder, 1), **{name: value})).write(folder)  # type: ignore[arg-type] # a parameter
    with pytest.raises(ValueError, match=reason):
        verified(folder, 1, plan.digest)
    ShardBuilder(folder).build(1, lambda progress: None)
    assert hashes(folder) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"digest": "x"}', "\xff"])
def test_a_damaged_receipt_is_found(kept: tuple[Path, ShardPlan], receipt_file: Path, text: str) -> None:
    folder, plan = kept
    receipt_file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="the receipt is"):
        verified(folder, 0, plan.digest)


def test_every_changed_byte_of_a_receipt_is_found(kept: tuple[Path, ShardPlan], receipt_file: Path) -> None:
    folder, plan = kept
    raw = receipt_file.read_bytes()
    for place in range(0, len(raw) - 1, 37):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        receipt_file.write_bytes(changed)
        with pytest.raises(ValueError, match="the receipt is"):
            verified(folder, 0, plan.digest)


def test_an_index_that_was_changed_is_found(built: tuple[Path, ShardPlan]) -> None:
    folder, plan = built
    before = hashes(folder)
    with Index.open(shard_path(folder, 0), writable=True) as index:
        index.delete(["doc-3"])
    with pytest.raises(ValueError, match=r"the receipt says documents \d+, and the index has \d+"):
        verified(folder, 0, plan.digest)
    segment = next((shard_path(folder, 1) / "segments").iterdir())
    raw = bytearray(segment.read_bytes())
    raw[-5] ^= 1
    segment.write_bytes(raw)
    with pytest.raises(ValueError, match="the index cannot be read"):
        verified(folder, 1, plan.digest)
    for shard in range(2):
        ShardBuilder(folder).build(shard, lambda progress: None)
    assert hashes(folder) == before


def test_a_receipt_without_its_index_is_none(built: tuple[Path, ShardPlan]) -> None:
    folder, plan = built
    shutil.rmtree(shard_path(folder, 0))
    with pytest.raises(ValueError, match="there is a receipt, but no index"):
        verified(folder, 0, plan.digest)


def test_many_shards_are_looked_at_at_once_and_each_is_told_under_its_number(
    kept: tuple[Path, ShardPlan],
) -> None:
    """Receipts of 600 shards are asked for, more than are looked at at once twice over; those of two are there."""
    folder, plan = kept
    steps = list(find_done(folder, plan, 600))
    assert len(steps) == 3
    found = {number: receipt for step in steps for number, receipt in step.items()}
    assert list(found) == list(range(600))
    for shard in range(2):
        assert found[shard] == verified(folder, shard, plan.digest)
    assert set(map(str, list(found.values())[2:])) == {"there is no receipt"}
