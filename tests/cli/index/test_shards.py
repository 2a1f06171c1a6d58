"""`embedkit index build --shards`: what a user sees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.shared.sharded_view import described
from cli.shared.sharding import parse_bytes
from embedkit.distributed.driver import Status
from embedkit.errors import IndexFileError
from indexes import Index, ShardsFile
from tests.distributed import hashes, write_texts
from tests.tiny import write_static_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_static_model(tmp_path_factory.mktemp("shards") / "model")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "corpus.jsonl", 120)


def build(*words: object, exit_code: int = 0) -> tuple[str, str]:
    """Run `index build` and return what it printed, and what it said."""
    result = CliRunner().invoke(app, ["index", "build", *map(str, words)])
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result.stdout, result.stderr + str(result.exception or "")


@dataclass(frozen=True)
class Made:
    """An index in three shards, which tests leave as it is; the words of the command, and what it printed and said."""

    folder: Path
    words: tuple[object, ...]
    printed: str
    said: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Made:
    folder = tmp_path_factory.mktemp("made")
    texts = write_texts(folder / "corpus.jsonl", 120)
    words = (texts, "--index", folder / "big", "-m", model, "--shards", 3)
    return Made(folder / "big", words, *build(*words))


def test_an_index_in_shards_is_made_and_found_done_by_the_same_command(made: Made, model: Path) -> None:
    assert made.printed == ""
    assert "1 file," in made.said
    assert "3 of 3 shards, 0 done before; 120 documents" in made.said
    summary = json.loads(build(*made.words, "--json")[0])
    assert (summary["shards"], summary["done"], summary["done_before"]) == (3, 3, 3)
    assert (summary["documents"], summary["precision"], summary["backend"], summary["exact"]) == (
        120,
        "fp32",
        "numpy",
        True,
    )
    assert summary["failed"] == {}
    found = ShardsFile.read(made.folder)
    assert found.plan == summary["plan"]
    assert [shard.location for shard in found.shards] == [f"shards/{number:05d}.index" for number in range(3)]
    assert [shard.content_hash for shard in found.shards] == hashes(made.folder)
    assert sum(shard.documents for shard in found.shards) == 120
    assert found.model_path == str(model)


def test_an_id_in_two_shards_stays_in_the_first_and_is_named(
    tmp_path: Path, corpus: Path, model: Path
) -> None:
    other = write_texts(tmp_path / "other.jsonl", 30, start=100, seed=4)
    words = (corpus, other, "--index", tmp_path / "big", "-m", model, "--shards", 4, "--json")
    summary = json.loads(build(*words, exit_code=1)[0])
    assert (summary["documents"], summary["duplicates"], summary["quarantined"]) == (130, 20, 20)
    lines = (tmp_path / "big" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == [f"doc-{number}" for number in range(100, 120)]
    assert all("stands there again; it was at" in line and "other.jsonl" in line for line in lines)
    with Index.open(tmp_path / "big" / "shards" / "00003.index") as index:
        assert index.document("doc-100") is None
        assert index.document("doc-129") is not None
    before = hashes(tmp_path / "big")
    again = json.loads(build(*words, exit_code=1)[0])
    assert (again["done_before"], again["duplicates"]) == (4, 20)
    assert hashes(tmp_path / "big") == before
    _, said = build(
        corpus, other, "--index", tmp_path / "strict", "-m", model, "--shards", 4, "--strict", exit_code=1
    )
    assert "stands there again; it was at" in said
    assert not (tmp_path / "strict" / "shards.json").exists()


def test_an_id_that_comes_twice_in_one_shard_is_named_too(tmp_path: Path, corpus: Path, model: Path) -> None:
    corpus.write_text(corpus.read_text(encoding="utf-8") * 2, encoding="utf-8")
    summary = json.loads(
        build(corpus, "--index", tmp_path / "big", "-m", model, "--shards", 1, "--json", exit_code=1)[0]
    )
    assert (summary["documents"], summary["duplicates"]) == (120, 120)


def test_texts_that_cannot_be_read_go_to_the_quarantine_file(
    tmp_path: Path, corpus: Path, model: Path
) -> None:
    with corpus.open("a", encoding="utf-8") as stream:
        stream.write('{"id": 5.5, "text": "x"}\nno\n{"id": "last", "text": "the dog"}\n')
    _, said = build(corpus, "--index", tmp_path / "big", "-m", model, "--shards", 2, exit_code=1)
    assert "121 documents" in said
    assert "not read: 2 texts, named in" in said
    entries = [json.loads(line) for line in (tmp_path / "big" / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["shard"] for entry in entries] == ["00001", "00001"]
    assert f"{corpus}:121: 'id' is a number" in entries[0]["reason"]
    assert f"{corpus}:122: not JSON" in entries[1]["reason"]


def test_a_shard_that_fails_twice_is_told_and_the_others_are_built(
    tmp_path: Path, corpus: Path, model: Path
) -> None:
    """Its part of the input has other bytes, which only the workers read, since the file has its old size and time."""
    import os

    words = (corpus, "--index", tmp_path / "big", "-m", model, "--shards", 3)
    build(*words)
    before = hashes(tmp_path / "big")
    for name in ("00001.json", "00002.json"):
        (tmp_path / "big" / "receipts" / name).unlink()
    raw, status = corpus.read_bytes(), corpus.stat()
    corpus.write_bytes(raw[:-200] + b"x" * 100 + raw[-100:])
    os.utime(corpus, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, said = build(*words, exit_code=1)
    assert "2 of 3 shards, 1 done before" in said
    assert "shard 00002 was tried again:" in said
    assert "shard 00002 failed:" in said
    assert "are not those that were planned" in said
    assert "1 shard missing; the same command tries them again:" in said
    assert not (tmp_path / "big" / "shards.json").exists()
    corpus.write_bytes(raw)
    os.utime(corpus, ns=(status.st_atime_ns, status.st_mtime_ns))
    build(*words)
    assert hashes(tmp_path / "big") == before


def test_receipts_that_do_not_hold_are_told(made: Made) -> None:
    (made.folder / "receipts" / "00001.json").write_text("{", encoding="utf-8")
    _, said = build(*made.words)
    assert "warning: shard 00001 was built again: the receipt is damaged" in said
    assert "3 of 3 shards, 2 done before" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2"], "--workers needs --shards N"),
        (["--executor", "ray"], "--executor needs --shards N"),
        (["--shards", "2", "--target-recall", "0.9"], "--target-recall is of one index"),
        (["--shards", "2", "--sync"], "--sync is of one index"),
        (["--shards", "2", "--gpus-per-worker", "1"], "--gpus-per-worker is of --executor ray"),
        (["--shards", "2", "--memory-per-worker", "much"], "'much' is no size; write it as 512M or 8G"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    tmp_path: Path, corpus: Path, model: Path, words: list[str], message: str
) -> None:
    _, said = build(corpus, "--index", tmp_path / "big", "-m", model, *words, exit_code=2)
    assert message in " ".join(said.replace("│", " ").split())


def test_an_index_in_shards_is_not_built_in_one_piece(made: Made) -> None:
    *words, _, _ = made.words  # without --shards 3
    _, said = build(*words, exit_code=1)
    assert "is an index in shards" in said
    assert "--shards" in said


def test_sizes_are_read_as_people_write_them() -> None:
    assert [parse_bytes(text) for text in ("512M", "8g", "1GiB", "100", "2kb")] == [
        2**29,
        2**33,
        2**30,
        100,
        2048,
    ]


def test_the_live_line_says_who_is_slow() -> None:
    status = Status(
        64,
        seconds=10.0,
        passages=1000,
        tokens=50_000,
        rates={"worker 1": 9.0, "worker 2": 10.0, "worker 3": 1.0},
    )
    status.running = 2
    assert described(status) == "0/64 done  2 workers  100 texts/s  5,000 tokens/s  slow: worker 3"


def test_the_live_line_says_that_workers_start() -> None:
    assert described(Status(64, seconds=2.0, running=1)) == "0/64 done  1 worker  starting"


def test_a_damaged_shards_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"shards\.json: cannot be read"):
        ShardsFile.read(tmp_path)
    for text in ("", "{}", "[]", '{"format": 1, "digest": "x"}'):
        (tmp_path / "shards.json").write_text(text, encoding="utf-8")
        with pytest.raises(
            IndexFileError, match=r"shards\.json: .*The command that built the index writes it again"
        ):
            ShardsFile.read(tmp_path)
