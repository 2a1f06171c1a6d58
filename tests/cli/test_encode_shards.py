"""`embedkit encode --shards`: the bytes of a job in one piece, whatever was stopped, failed or changed on the way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.distributed.layout import receipt_path, shard_path
from embedkit.errors import EmbedkitError, IndexMismatchError, OutputError
from embedkit.extras import has_extra
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.cli.index.test_index import invoke
from tests.distributed import write_texts, written_at
from tests.distributed.test_kinds import NATIVE
from tests.tiny import write_static_model
from tests.tiny_multi_vector import write_tiny_multi_vector


@pytest.fixture(scope="module")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_static_model(tmp_path_factory.mktemp("static") / "model")


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Two files, 300 documents; texts that stand twice, an empty one, and an id that stands twice, which vectors may have."""
    paths = [write_texts(tmp_path / "a.jsonl", 220), write_texts(tmp_path / "b.jsonl", 80, start=220, seed=1)]
    with paths[1].open("a", encoding="utf-8") as stream:
        stream.write('{"id": "doc-1", "text": "the dog runs"}\n{"id": "again", "text": "the dog runs"}\n')
        stream.write('{"id": "blank", "text": ""}\n')
    return paths


def words(corpus: list[Path], model: Path, output: Path, *more: object) -> list[object]:
    return ["encode", *corpus, "-m", model, "-o", output, "--precision", "fp32", "--json", *more]


def encoded(*given: Any) -> dict[str, Any]:
    return json.loads(invoke(*words(*given)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("ending", "options"), [(".npy", ()), (".jsonl", ("--role", "document", "--truncate-dim", 4))]
)
def test_shards_make_the_file_of_a_job_in_one_piece(
    tmp_path: Path, corpus: list[Path], static_model: Path, ending: str, options: tuple[object, ...]
) -> None:
    one, many = tmp_path / f"one{ending}", tmp_path / f"many{ending}"
    expected = encoded(corpus, static_model, one, *options)
    found = encoded(corpus, static_model, many, *options, "--shards", 5, "--workers", 2)
    assert found["exact"]
    assert found["shards"] == found["done"] == 5
    for name in ("texts", "tokens", "truncated", "empty", "unknown", "duplicates", "nonfinite", "dimension"):
        assert found[name] == expected[name], name
    assert many.read_bytes() == one.read_bytes()
    if ending == ".npy":
        assert (tmp_path / "many.ids.txt").read_bytes() == (tmp_path / "one.ids.txt").read_bytes()
    assert {path.name for path in tmp_path.glob("many*")} == {f"many{ending}"} | (
        {"many.ids.txt"} if ending == ".npy" else set()
    )


@pytest.fixture(scope="module", params=["multi-vector", "sparse"])
def other_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives each text vectors, or weights of terms, of its own number."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    if request.param == "sparse":
        return write_tiny_sparse(folder, heads=2)  # of 16, which the native kernels compute
    return write_tiny_multi_vector(folder)


@pytest.mark.skipif(not NATIVE, reason="without the kernels bits depend on the cut")
@pytest.mark.parametrize("ending", [".npz", ".jsonl"])
def test_shards_of_other_kinds_make_the_file_of_a_job_in_one_piece(
    tmp_path: Path, corpus: list[Path], other_model: Path, ending: str
) -> None:
    one, many = tmp_path / f"one{ending}", tmp_path / f"many{ending}"
    options = ("--role", "document", "--max-seq-length", 16)
    expected = encoded(corpus, other_model, one, *options)
    found = encoded(corpus, other_model, many, *options, "--shards", 3)
    assert found["exact"]
    own = {"vectors"} if "vectors" in expected else {"terms", "terms_per_text"}
    for name in ("texts", "tokens", "truncated", "empty", "unknown", "duplicates", "nonfinite", *own):
        assert found[name] == expected[name], name
    assert found["truncated"]
    assert all(found[name] for name in own)
    assert many.read_bytes() == one.read_bytes()
    assert {path.name[4:] for path in tmp_path.glob("many*")} == {
        path.name[3:] for path in tmp_path.glob("one*")
    }


def test_a_damaged_archive_is_found_and_its_shard_made_again(
    tmp_path: Path, corpus: list[Path], other_model: Path
) -> None:
    given = (corpus, other_model, tmp_path / "many", "--role", "document", "--shards", 2)
    encoded(*given)
    archive = shard_path(tmp_path / "many", 1, ".vectors") / "vectors.npz"
    before = archive.read_bytes()
    archive.write_bytes(before[: len(before) // 2])
    found = encoded(*given)
    assert found["done_before"] == 1
    assert "cannot be read" in found["built_again"]["00001"]
    assert archive.read_bytes() == before


def test_a_folder_of_shards_lists_its_files_in_order(
    tmp_path: Path, corpus: list[Path], static_model: Path
) -> None:
    encoded(corpus, static_model, tmp_path / "one.npy")
    encoded(corpus, static_model, tmp_path / "many", "--shards", 3)
    listed = json.loads((tmp_path / "many/vectors.json").read_text("utf-8"))
    parts = [np.load(tmp_path / "many" / each["vectors"]) for each in listed["shards"]]
    ids = [
        line
        for each in listed["shards"]
        for line in (tmp_path / "many" / each["ids"]).read_text("utf-8").splitlines()
    ]
    assert listed["rows"] == sum(each["rows"] for each in listed["shards"]) == len(ids) == 303
    np.testing.assert_array_equal(np.concatenate(parts), np.load(tmp_path / "one.npy"))
    assert ids == (tmp_path / "one.ids.txt").read_text("utf-8").splitlines()


def test_what_has_a_receipt_is_not_done_again(tmp_path: Path, corpus: list[Path], static_model: Path) -> None:
    given = (corpus, static_model, tmp_path / "many", "--shards", 4)
    encoded(*given)
    before = [written_at(tmp_path / "many", number) for number in range(4)]
    receipt_path(tmp_path / "many", 1).unlink()  # a stop between the shard and its receipt
    shutil.rmtree(shard_path(tmp_path / "many", 2, ".vectors"))
    vectors = shard_path(tmp_path / "many", 3, ".vectors") / "vectors.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    found = encoded(*given)
    assert found["done_before"] == 1
    assert "there is a receipt, but no vectors" in found["built_again"]["00002"]
    assert "the receipt says content hash" in found["built_again"]["00003"]
    after = [written_at(tmp_path / "many", number) for number in range(4)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False, False]
    encoded(corpus, static_model, tmp_path / "one.npy")
    parts = [np.load(shard_path(tmp_path / "many", each, ".vectors") / "vectors.npy") for each in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), np.load(tmp_path / "one.npy"))


def refused(*given: Any) -> EmbedkitError:
    result = CliRunner().invoke(app, [str(each) for each in words(*given)])
    assert isinstance(result.exception, EmbedkitError), result.output
    return result.exception


def test_other_options_another_input_and_what_is_there_are_refused(
    tmp_path: Path, corpus: list[Path], static_model: Path
) -> None:
    folder = tmp_path / "many"
    given = (corpus, static_model, folder, "--shards", 3)
    encoded(*given)
    why = refused(*given, "--role", "document")
    assert isinstance(why, IndexMismatchError)
    assert "was planned with other options: vectors was" in str(why)
    with corpus[0].open("a", encoding="utf-8") as stream:
        stream.write('{"id": "more", "text": "a horse"}\n')
    assert "the input is not what was planned" in str(refused(*given))
    (tmp_path / "there.npy").touch()
    why = refused(corpus, static_model, tmp_path / "there.npy", "--shards", 2)
    assert isinstance(why, OutputError)
    assert "already exists" in str(why)
    for more, reason in (
        (("--server", "http://localhost:9"), "--shards and --server exclude each other"),
        (("--gpus-per-worker", 1), "--gpus-per-worker is of --executor ray"),
    ):
        command = words(corpus, static_model, tmp_path / "x.npy", "--shards", 2, *more)
        result = CliRunner().invoke(app, [str(each) for each in command])
        assert result.exit_code == 2
        assert reason in " ".join(result.output.replace("│", "").split())


def test_a_text_that_cannot_be_read_fails_its_shard_and_no_file_is_made(
    tmp_path: Path, corpus: list[Path], static_model: Path
) -> None:
    """Every text has its row, so nothing is set aside; mended, the same command does what is missing."""
    with corpus[1].open("a", encoding="utf-8") as stream:
        stream.write('{"id": "bad", "text": 3}\n')
    command = words(corpus, static_model, tmp_path / "v.npy", "--shards", 3)
    result = CliRunner().invoke(app, [str(each) for each in command])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    ((shard, reason),) = found["failed"].items()
    assert shard == "00002"
    assert "b.jsonl:84" in reason
    assert found["done"] == 2
    assert not (tmp_path / "v.npy").exists()
    assert (tmp_path / "v.npy.partial").is_dir()


@pytest.mark.ray
@pytest.mark.skipif(not has_extra("ray"), reason="Ray is not installed")
def test_ray_workers_make_the_same_file(tmp_path: Path, corpus: list[Path], static_model: Path) -> None:
    os.environ.pop("RAY_ADDRESS", None)
    encoded(corpus, static_model, tmp_path / "one.npy")
    given = ("--shards", 4, "--executor", "ray", "--address", "local", "--workers", 2)
    assert encoded(corpus, static_model, tmp_path / "many.npy", *given)["done"] == 4
    assert (tmp_path / "many.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
