"""`embedkit search --shard http://…` and `index join`: two servers searched as one index."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("starlette")

from cli.main import app
from cli.shared.options import shard_servers
from embedkit.errors import IndexFileError, IndexMismatchError, ServerError
from indexes import GatherOptions, Index, ShardedIndex, ShardsFile, join_shards
from tests.cli.index.test_index import invoke
from tests.cli.search.test_search_shards import hits, refused
from tests.conftest import REPOSITORY
from tests.serving.indexes.served_indexes import build, numbered

KEY = "of-the-team"


@contextmanager
def server(*indexes: Path) -> Iterator[str]:
    """Start `embedkit serve`, in a process of its own; yields its address."""
    command = [sys.executable, "-c", "from cli.main import run; run()", "serve", *map(str, indexes)]
    command += ["--reranker", "none", "--port", "0", "--json", "--api-key", KEY, "--precision", "fp32"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, cwd=REPOSITORY, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, native_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("servers")
    rows = [{**row, "id": f"d{row['number']}"} for row in numbered(60)]
    build(folder / "one.index", rows, native_model)
    for number in range(3):
        build(folder / f"p{number}.index", rows[number * 20 : number * 20 + 20], native_model)
    return folder


@pytest.fixture(scope="module")
def addresses(made: Path) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [f"{stack.enter_context(server(made / f'p{number}.index'))}/p{number}" for number in range(2)]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_API_KEY", KEY)


@pytest.fixture(scope="module")
def other(made: Path, native_model: Path) -> Path:
    """Another index p1, of a model that reads less of each text."""
    shutil.copytree(native_model, made / "other-model")
    config = made / "other-model/sentence_bert_config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"max_seq_length": 24}), "utf-8")
    rows = [{**row, "id": f"o{row['number']}"} for row in numbered(20)]
    return build(made / "other.index", rows, made / "other-model")


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return hits without what differs for good: the coverage, and which file they are of."""
    left_out = ("coverage", "source", "where", "place")
    return [{name: value for name, value in hit.items() if name not in left_out} for hit in found]


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
@pytest.mark.parametrize("way", ["a folder and two servers", "a server first", "joined"])
def test_servers_answer_as_one_index(
    made: Path, addresses: list[str], tmp_path: Path, mode: str, way: str
) -> None:
    asked = ["the girl and a horse", "--mode", mode, "--where", "number > 3", "-k", 20]
    first, second = addresses
    third = made / "p2.index"
    if way == "joined":
        invoke("index", "join", tmp_path / "big.index", first, second, third)
        file = ShardsFile.read(tmp_path / "big.index")
        assert [each.documents for each in file.shards] == [20, 20, 20]
        words: list[object] = [tmp_path / "big.index", *asked]
    elif way == "a server first":
        words = [first, *asked, "--shard", second, "--shard", third]
    else:
        words = [third, *asked, "--shard", first, "--shard", second]
    found = hits(*words)
    assert {hit["coverage"] for hit in found} == {"3/3"}
    assert plain(found) == plain(hits(made / "one.index", *asked))


def test_servers_alone_need_no_index_here(made: Path, addresses: list[str]) -> None:
    found = hits("horse", "--mode", "text", "--shard", addresses[0], "--shard", addresses[1])
    assert found
    assert {hit["coverage"] for hit in found} == {"2/2"}


def test_a_server_that_is_gone_is_told_or_refused(made: Path, addresses: list[str]) -> None:
    gone = "http://127.0.0.1:9/p9"
    words = ["search", "horse", "--mode", "text", "--json", "--shard", addresses[0], "--shard", gone]
    result = CliRunner().invoke(app, words)
    assert {json.loads(line)["coverage"] for line in result.stdout.splitlines()} == {"1/2"}
    assert f"coverage: 1/2 shards; {gone} failed (http://127.0.0.1:9: the connection was refused" in (
        result.stderr.replace("\n", "")
    )
    assert "every shard is required" in refused(*words, "--require-all")
    words = ["search", "horse", "--mode", "text", "--shard", gone, "--shard", f"{gone}9"]
    assert "no server of a shard answers: http://127.0.0.1:9: the connection" in refused(*words)


def test_a_wrong_key_and_an_index_of_another_encoder_are_refused(
    made: Path, other: Path, addresses: list[str], tmp_path: Path
) -> None:
    words = ["search", "horse", "--mode", "text", "--shard", addresses[0], "--api-key", "wrong"]
    assert "does not know this API key" in refused(*words)
    with server(other) as address:
        words = ["search", str(made / "p2.index"), "horse", "--shard", f"{address}/other"]
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, IndexMismatchError), result.output
        assert "was built by another encoder: max_seq_length is 24 there and 32 here" in str(result.exception)
        with pytest.raises(IndexMismatchError, match="was built by another encoder"):
            join_shards(tmp_path / "big.index", [str(made / "p2.index"), str(other)])


def test_an_index_of_another_encoder_that_takes_the_place_of_a_shard_gives_no_answers(
    made: Path, other: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "p1.index", tmp_path / "p1.index")
    shutil.copytree(other, tmp_path / "other.index")
    with server(tmp_path / "p1.index") as address:
        gathering = GatherOptions(connect=shard_servers(KEY), more=[str(made / "p2.index")])
        with ShardedIndex.open(f"{address}/p1", gathering=gathering) as index:
            assert len(index.search_text(["horse"], k=60)[0]) > 0
            assert index.take_coverage() is not None
            (tmp_path / "p1.index").rename(tmp_path / "old.index")
            (tmp_path / "other.index").rename(tmp_path / "p1.index")
            index.search_text(["horse"], k=60)
            coverage = index.take_coverage()
            assert coverage is not None
            assert str(coverage) == "1/2"
            assert "'p1' is another index than was asked before" in coverage.explained()


def test_what_cannot_be_joined_is_refused(made: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.index"
    part = str(made / "p1.index")
    with pytest.raises(IndexFileError, match="is named twice: its documents would be found twice"):
        join_shards(big, [part, str(made / "." / "p1.index")])
    shutil.copytree(part, tmp_path / "again.index")
    with pytest.raises(IndexFileError, match=r"again\.index: its document 'd\d+' is in a shard before it"):
        join_shards(big, [part, str(tmp_path / "again.index")])
    with pytest.raises(IndexFileError, match="there is no index"):
        join_shards(big, [str(tmp_path)])
    with pytest.raises(ServerError, match="no server listens there"):
        join_shards(big, ["http://127.0.0.1:9/p9"], shard_servers(KEY))
    assert not big.exists()
    with pytest.raises(IndexFileError, match="there is an index already"):
        join_shards(made / "one.index", [part])
    with (
        ShardedIndex.open(part, gathering=GatherOptions(more=[str(tmp_path / "again.index")])) as index,
        pytest.raises(IndexFileError, match=r"the document 'd\d+' is in two shards"),
    ):
        index.search_text(["horse"])


def test_joined_shards_can_be_moved_together(made: Path, tmp_path: Path) -> None:
    for number in range(2):
        shutil.copytree(made / f"p{number}.index", tmp_path / f"here/p{number}.index")
    join_shards(tmp_path / "here/big.index", [str(tmp_path / f"here/p{number}.index") for number in range(2)])
    (tmp_path / "here").rename(tmp_path / "there")
    with ShardedIndex.open(tmp_path / "there/big.index") as index, Index.open(made / "p1.index") as part:
        assert index.count_documents() == 20 + part.count_documents()
