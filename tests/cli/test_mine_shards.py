"""`embedkit mine --shards`: the bytes of `mine` in one process, whatever was stopped, failed or changed on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from embedkit.distributed.shard import ShardBuilder
from embedkit.errors import EmbedkitError, IndexMismatchError, OutputError, RecordError
from embedkit.extras import has_extra
from indexes import Index, join_shards
from tests.conftest import REPOSITORY
from tests.serving.indexes.served_indexes import build
from tests.tiny import write_static_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.training.contrastive_runs import rows_of, write_rows

ROWS = 520  # three windows


@pytest.fixture(scope="module")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_static_model(tmp_path_factory.mktemp("static") / "model")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Rows of which some share their query, far apart: what is right of it stands in another shard."""
    rows = rows_of("pairs", ROWS)
    for number in (5, 300, ROWS - 1):
        rows[number]["query"] = rows[0]["query"]
    return write_rows(tmp_path / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cross_encoder(tmp_path_factory.mktemp("judge") / "model")


def words(pairs: Path, model: Path, output: Path, *more: object) -> list[str]:
    given = ["mine", pairs, "-m", model, "-o", output, "--device", "cpu", "--precision", "fp32", *more]
    return [str(each) for each in given]


def invoke(*given: Any) -> Result:
    return CliRunner().invoke(app, words(*given))


def mined(*given: Any) -> dict[str, Any]:
    result = invoke(*given, "--json")
    assert result.exit_code == 0, result.exception or result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def refused(*given: Any) -> EmbedkitError:
    result = invoke(*given)
    assert isinstance(result.exception, EmbedkitError), result.output
    return result.exception


@pytest.mark.parametrize(
    "options",
    [
        ("--by", "both", "--relative-margin", 0.05, "--ranks", "1-30"),
        pytest.param(("--by", "text", "--no-margin", "--pick", "random"), marks=pytest.mark.slow),
    ],
)
def test_shards_make_the_file_of_one_process(
    tmp_path: Path, pairs: Path, static_model: Path, options: tuple[object, ...]
) -> None:
    expected = mined(pairs, static_model, tmp_path / "one.jsonl", *options)
    assert expected["negatives"] > ROWS
    for shards, workers in ((2, 1), (9, 2)):  # there are no more than three windows
        output = tmp_path / f"{shards}.jsonl"
        found = mined(pairs, static_model, output, *options, "--shards", shards, "--workers", workers)
        assert {name: found[name] for name in expected} == expected
        assert found["exact"]
        assert found["shards"] == found["done"] == min(shards, 3)
        assert output.read_bytes() == (tmp_path / "one.jsonl").read_bytes()
        assert {path.name for path in tmp_path.glob(f"{shards}.*")} == {
            output.name,
            f"{output.name}.index",
            f"{output.name}.mining.json",
        }
        said = (tmp_path / f"{output.name}.mining.json").read_bytes()
        assert said == (tmp_path / "one.jsonl.mining.json").read_bytes()


@pytest.mark.slow
def test_workers_search_an_index_in_shards_and_score_by_a_cross_encoder(
    tmp_path: Path, pairs: Path, static_model: Path, judge: Path
) -> None:
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    texts = sorted({row["positive"] for row in rows})
    documents = [{"id": f"d{number:03d}", "text": text} for number, text in enumerate(texts)]
    for name, part in (("p0", documents[:300]), ("p1", documents[300:])):
        build(tmp_path / f"{name}.index", part, static_model)
    join_shards(tmp_path / "big.index", [str(tmp_path / "p0.index"), str(tmp_path / "p1.index")])
    given = ("--index", tmp_path / "big.index", "--rerank", judge, "--ranks", "1-4")
    mined(pairs, static_model, tmp_path / "one.jsonl", *given)
    # torch, which computes this one, rounds as its threads are; tests have one.
    more = ("--shards", 3, "--threads-per-worker", 1)
    mined(pairs, static_model, tmp_path / "many.jsonl", *given, *more)
    assert (tmp_path / "many.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert not (tmp_path / "many.jsonl.index").exists()


# Python reads it when a process starts: ends worker and driver, as a kill does, when the second shard is to take its name.
KILLS = """
import os, signal, sys

def hook(event, values):
    if event == "os.rename" and str(values[1]).endswith("00001.mined"):
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(137)

sys.addaudithook(hook)
"""


def test_what_has_a_receipt_is_not_mined_again(tmp_path: Path, pairs: Path, static_model: Path) -> None:
    output, folder = tmp_path / "many.jsonl", tmp_path / "many.jsonl.partial"
    given = (pairs, static_model, output, "--shards", 3)
    (tmp_path / "kills").mkdir()
    (tmp_path / "kills/sitecustomize.py").write_text(KILLS, encoding="utf-8")
    killed = subprocess.run(
        [sys.executable, "-m", "cli", *words(*given)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'kills'}:{REPOSITORY}"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    receipt = json.loads((folder / "receipts/00000.json").read_text("utf-8"))
    assert receipt["documents"] == 256
    assert receipt["mined"]["negatives"] > 50
    assert not (folder / "receipts/00001.json").exists()
    found = mined(*given)
    assert (found["done_before"], found["done"]) == (1, 3)
    assert found["built_again"] == {}
    mined(pairs, static_model, tmp_path / "one.jsonl")
    assert output.read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_what_has_changed_since_the_plan_is_refused(tmp_path: Path, pairs: Path, static_model: Path) -> None:
    corpus, output = tmp_path / "corpus.jsonl", tmp_path / "many.jsonl"
    corpus.write_bytes(b"".join(b'{"id": "d%d", "text": "the dog %d"}\n' % (n, n) for n in range(300)))
    given = (pairs, static_model, output, "--corpus", corpus, "--shards", 3)
    output.with_name("many.jsonl.mining.json").mkdir()  # so that the end fails, and all else is done
    assert isinstance(refused(*given), OutputError)
    why = refused(*given, "--num-negatives", 2)
    assert isinstance(why, IndexMismatchError)
    assert "many.jsonl.partial: was planned with other options: mining was" in str(why)
    assert "computing was" in str(refused(*given, "--precision", "bf16"))
    before = corpus.read_bytes()
    corpus.write_bytes(before.replace(b"the dog 7", b"the cat 7"))
    assert "the input is not what was planned: " in str(refused(*given))
    corpus.write_bytes(before)
    rows = pairs.read_bytes()
    pairs.write_bytes(rows.replace(b"the", b"The", 1))
    why = refused(*given)
    assert isinstance(why, RecordError)
    assert f"the {ROWS} rows of" in str(why)
    assert f"are not the {ROWS} that were planned" in str(why)
    pairs.write_bytes(rows)
    index = tmp_path / "many.jsonl.index"
    with Index.open(index, writable=True) as opened:
        opened.delete(["d3"])
    why = refused(*given)
    assert isinstance(why, IndexMismatchError)
    assert "many.jsonl.index holds other documents than when mining was planned" in str(why)
    write_static_model(static_model.with_name("other"), seed=3)
    assert "model was" in str(refused(pairs, static_model.with_name("other"), *given[2:]))


@pytest.mark.slow
def test_another_cross_encoder_is_refused(
    tmp_path: Path, pairs: Path, static_model: Path, judge: Path
) -> None:
    own, output = tmp_path / "judge", tmp_path / "many.jsonl"
    shutil.copytree(judge, own)
    given = (pairs, static_model, output, "--rerank", own, "--ranks", "1-2", "--shards", 3)
    output.with_name("many.jsonl.mining.json").mkdir()  # so that the end fails, and all else is done
    assert isinstance(refused(*given), OutputError)
    shutil.rmtree(own)
    write_tiny_cross_encoder(own, seed=7)
    why = refused(*given)
    assert isinstance(why, IndexMismatchError)
    assert f"the cross-encoder in {own} is not the one that was planned" in str(why)


def test_a_worker_that_finds_other_rows_fails_its_shards(
    tmp_path: Path, pairs: Path, static_model: Path
) -> None:
    output = tmp_path / "many.jsonl"
    output.with_name("many.jsonl.mining.json").mkdir()
    refused(pairs, static_model, output, "--shards", 3)
    pairs.write_bytes(pairs.read_bytes().replace(b"the", b"The", 1))
    (tmp_path / "many.jsonl.partial/receipts/00001.json").unlink()
    builder = ShardBuilder(tmp_path / "many.jsonl.partial")
    builder.prepare()
    with pytest.raises(RecordError, match=f"are not the {ROWS} that were planned"):
        builder.build(1, lambda progress: None)


def test_wrong_usage_and_what_is_there_are_refused(tmp_path: Path, pairs: Path, static_model: Path) -> None:
    (tmp_path / "there.jsonl").touch()
    why = refused(pairs, static_model, tmp_path / "there.jsonl", "--shards", 2)
    assert isinstance(why, OutputError)
    assert "already exists" in str(why)
    assert "standard input cannot be cut" in str(
        refused(pairs, static_model, tmp_path / "m.jsonl", "--corpus", "-", "--shards", 2)
    )
    why = refused(pairs, static_model, tmp_path / "m.jsonl", "--by", "text", "--margin", 0.1, "--shards", 2)
    assert "margins compare scores of one measure" in str(why)
    for more, reason in (
        (("--workers", 2), "--workers needs --shards N"),
        (("--shards", 2, "--gpus-per-worker", 1), "--gpus-per-worker is of --executor ray"),
    ):
        result = invoke(pairs, static_model, tmp_path / "x.jsonl", *more)
        assert result.exit_code == 2
        assert reason in " ".join(result.output.replace("│", "").split())


@pytest.mark.ray
@pytest.mark.skipif(not has_extra("ray"), reason="Ray is not installed")
def test_ray_workers_make_the_same_file(tmp_path: Path, pairs: Path, static_model: Path) -> None:
    os.environ.pop("RAY_ADDRESS", None)
    mined(pairs, static_model, tmp_path / "one.jsonl")
    given = ("--shards", 3, "--executor", "ray", "--address", "local", "--workers", 2)
    assert mined(pairs, static_model, tmp_path / "many.jsonl", *given)["done"] == 3
    assert (tmp_path / "many.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
