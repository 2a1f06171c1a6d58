"""`embedkit search`, `evaluate` and `index merge` with an index in shards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import EmbedkitError
from tests.cli.index.test_index import invoke
from tests.indexes.sharded.joined import join
from tests.serving.indexes.served_indexes import build, numbered


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    rows = [{**row, "id": f"d{row['number']}"} for row in numbered(60)]
    build(folder / "one.index", rows, tiny_model)
    parts = [build(folder / f"p{n}.index", rows[n * 20 : n * 20 + 20], tiny_model) for n in range(3)]
    join(folder / "big.index", parts)
    return folder


def hits(*arguments: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json").splitlines()]


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(result.exception, EmbedkitError), result.output
    return str(result.exception)


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_an_index_in_shards_answers_as_one_index_and_says_its_coverage(made: Path, mode: str) -> None:
    asked = ("the girl and a horse", "--mode", mode, "--where", "number > 3", "-k", 20)
    found = hits(made / "big.index", *asked)
    assert {hit.pop("coverage") for hit in found} == {"3/3"}
    expected = hits(made / "one.index", *asked)
    for hit in [*found, *expected]:  # of which file they are differs
        del hit["source"], hit["where"], hit["place"]
    assert found == expected


@pytest.fixture
def broken(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "big.index", tmp_path / "big.index")
    shutil.rmtree(tmp_path / "big.index/shards/00001.index")
    return tmp_path / "big.index"


def test_a_shard_that_fails_is_told_in_each_answer_or_refused(broken: Path) -> None:
    result = CliRunner().invoke(app, ["search", str(broken), "horse", "--json", "--mode", "text"])
    assert {json.loads(line)["coverage"] for line in result.stdout.splitlines()} == {"2/3"}
    assert (
        "warning: coverage: 2/3 shards; 00001 failed (shards/00001.index: there is no index" in result.stderr
    )
    result = CliRunner().invoke(app, ["search", str(broken), "horse", "--mode", "text", "--all"])
    assert "coverage: 2/3 shards" in result.stderr
    why = refused("search", broken, "horse", "--mode", "text", "--require-all")
    assert "every shard is required (--require-all); coverage: 2/3 shards; 00001 failed" in why


def test_evaluation_takes_shards_and_wants_all_of_them(made: Path, broken: Path, tmp_path: Path) -> None:
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "qrels.tsv"
    queries.write_text('{"_id": "q1", "text": "horse"}\n', encoding="utf-8")
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n", encoding="utf-8")
    asked = ("--queries", queries, "--qrels", qrels, "--mode", "text", "--json")
    figures = [
        json.loads(invoke("evaluate", "retrieval", *asked, "--index", made / name).splitlines()[0])["values"]
        for name in ("one.index", "big.index")
    ]
    assert figures[0] == figures[1]
    assert "every shard is required" in refused("evaluate", "retrieval", *asked, "--index", broken)


def test_a_merge_makes_one_index_of_the_shards(made: Path, tmp_path: Path) -> None:
    invoke("index", "merge", tmp_path / "new.index", made / "big.index")
    invoke("index", "merge", tmp_path / "new.index", made / "big.index")  # nothing more to do
    asked = ("the girl and a horse", "-k", 60)
    found = hits(tmp_path / "new.index", *asked)
    assert [(hit["id"], hit["score"]) for hit in found] == [
        (hit["id"], hit["score"]) for hit in hits(made / "one.index", *asked)
    ]


def test_what_changes_one_index_refuses_shards(made: Path) -> None:
    why = refused("index", "delete", made / "big.index", "d1", "--yes")
    assert "this index lies in shards" in why
    assert "embedkit index merge NEW.index" in why
    assert "this index lies in shards" in refused("index", "stats", made / "big.index")
