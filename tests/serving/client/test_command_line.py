"""`embedkit search URL` and `embedkit encode --server URL`: the output is that of the commands without a server."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("starlette")

from cli.main import app
from embedkit.data.reading import read_documents
from embedkit.encoding.job import EncodeOptions, encode_to_file
from embedkit.errors import EmbedkitError, RecordError, ServerError
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.client.connection import Address, Client
from embedkit.serving.client.encoding import ServedEncoder
from embedkit.serving.http.access import Access
from tests.cli.index.test_index import invoke
from tests.serving.indexes.served_indexes import build, numbered, serving
from tests.tiny_cross_encoder import write_tiny_cross_encoder

TEXTS = ("the dog runs", "", "cat " * 40, "the dog runs", "a red horse", "Ωμέγα")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    made = tmp_path_factory.mktemp("client")
    build(made / "docs.index", numbered(40, tag="old"), tiny_model)
    build(made / "news.index", numbered(20, tag="new"), tiny_model)
    write_tiny_cross_encoder(made / "reranker")
    (made / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": f"the girl {n}"}) + "\n" for n in range(20))
    )
    (made / "texts.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": TEXTS[n % 6]}) + "\n" for n in range(1500))
    )
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    reranker = CrossEncoder.load(folder / "reranker", precision="fp32")
    with serving(
        folder / "docs.index", folder / "news.index", rerankers={str(folder / "reranker"): reranker}
    ) as found:
        yield found


def run(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def same_rows(first: str, second: str) -> None:
    """Compare JSON lines; a command that answers one query computes by what starts fastest, which rounds otherwise."""
    one, other = ([json.loads(line) for line in text.splitlines()] for text in (first, second))
    assert len(one) == len(other) > 0
    for row, like in zip(one, other, strict=True):
        assert row.keys() == like.keys()
        for name in row:
            if name == "scores" or name == "score":
                assert row[name] == pytest.approx(like[name], abs=1e-5)
            else:
                assert row[name] == like[name]


@pytest.mark.parametrize(
    "more",
    [
        ("--mode", "dense"),
        ("--mode", "text", "-k", "3"),
        ("--where", "number > 10", "--group"),
        ("--rerank={reranker}", "--candidates", "8"),
        ("--fusion", "ranks", "--min-score", "0.03"),
    ],
)
def test_search_prints_what_it_prints_locally(folder: Path, address: str, more: Sequence[str]) -> None:
    options = [each.format(reranker=folder / "reranker") for each in more]
    local = run("search", folder / "docs.index", "the girl plays", *options, "--json")
    served = run("search", f"{address}/docs", "the girl plays", *options, "--json")
    same_rows(served.stdout, local.stdout)
    local = run("search", folder / "docs.index", "the girl plays", *options, "--all")
    served = run("search", f"{address}/docs", "the girl plays", *options, "--all")
    assert served.stdout == local.stdout
    assert served.stdout.count("\n") > 1
    # The models, which a server calls by the last part of their path, and what was left out.
    assert served.stderr == re.sub(r"(model|reranked by) \S*/", r"\1 ", local.stderr)


def test_many_queries_and_runs(folder: Path, address: str, tmp_path: Path) -> None:
    queries = ("--queries", folder / "queries.jsonl", "-k", 4)
    assert (
        run("search", f"{address}/docs", *queries).stdout
        == run("search", folder / "docs.index", *queries).stdout
    )
    for where, name in ((f"{address}/docs", "served"), (folder / "docs.index", "local")):
        result = run("search", where, *queries, "--mode", "dense", "--run", tmp_path / f"{name}.trec")
        assert result.exit_code == 0
    local, served = ((tmp_path / f"{name}.trec").read_text().split() for name in ("local", "served"))
    assert len(served) == 20 * 4 * 6
    assert [each for number, each in enumerate(served) if number % 6 != 4] == [
        each for number, each in enumerate(local) if number % 6 != 4
    ]


def test_all_indexes_of_a_server(address: str) -> None:
    rows = [
        json.loads(line)
        for line in run("search", address, "the girl", "--json", "-k", 30).stdout.splitlines()
    ]
    assert {row["index"] for row in rows} == {"docs", "news"}
    assert "news: " in run("search", address, "the girl", "-k", 30, "--all").stdout


def test_what_a_search_finds_nothing_for_and_what_is_refused(address: str) -> None:
    assert "no document has a word" in run("search", f"{address}/docs", "qqq", "--mode", "text").stderr
    assert "cut to the 32 tokens" in run("search", f"{address}/docs", "girl " * 60).stderr
    for arguments, reason in (
        ((f"{address}/doc", "a"), "no index 'doc' is served here; there is docs, news"),
        ((f"{address}/docs", "a", "--where", "nope = 1"), "no document has the field 'nope'"),
        ((f"{address}/docs", "a", "--rerank=big"), "no reranker 'big'"),
    ):
        result = run("search", *arguments)
        assert isinstance(result.exception, ServerError), (arguments, result.output)
        assert reason in str(result.exception)
    assert run("search", f"{address}/docs", "a", "--model", "m").exit_code == 2


def test_encode_by_a_server_writes_the_same_bits(folder: Path, address: str, tmp_path: Path) -> None:
    """On one thread and with texts in windows of other sizes, the vectors of the numpy runtime and of torch may differ in a last bit."""
    for role in ((), ("--role", "query"), ("--prompt", "the ")):
        local, served = (
            tmp_path / f"local{len(role)}{role[:1]}.npy",
            tmp_path / f"served{len(role)}{role[:1]}.npy",
        )
        texts = folder / "texts.jsonl"
        one = run("encode", texts, "-o", local, "--json", "--model", _model(address), *role)
        two = run("encode", texts, "-o", served, "--json", "--server", address, *role)
        assert (one.exit_code, two.exit_code) == (0, 0), two.exception
        np.testing.assert_allclose(np.load(served), np.load(local), atol=2e-7)
        assert served.with_suffix(".ids.txt").read_text() == local.with_suffix(".ids.txt").read_text()
        first, second = json.loads(one.stdout), json.loads(two.stdout)
        assert first.keys() == second.keys()
        for name in (
            "texts",
            "truncated",
            "empty",
            "unknown",
            "duplicates",
            "dimension",
            "precision",
            "model",
        ):
            assert first[name] == second[name], name
    printed = run("encode", folder / "texts.jsonl", "--server", address).stdout.splitlines()
    assert [json.loads(line)["id"] for line in printed] == [str(n) for n in range(1500)]


def _model(address: str) -> str:
    with Client(Address.of(address)) as client:
        return ServedEncoder(client).name


def test_what_a_server_gives_is_not_rounded(folder: Path, address: str) -> None:
    with Client(Address.of(address)) as client:
        served = ServedEncoder(client)
        (window,) = list(served.encode_role_windows(["a dog"], role=None, prompt=None, on_truncate="ok"))
    from embedkit.encoding.encoder import Encoder

    own = Encoder.load(served.name).encode(["a dog"])
    assert window.embeddings.dtype == np.float32
    np.testing.assert_array_equal(window.embeddings, own)


def test_an_encoding_job_by_a_server_is_resumed(folder: Path, address: str, tmp_path: Path) -> None:
    client = Client(Address.of(address))
    encoder = ServedEncoder(client)
    whole, parts = tmp_path / "whole.npy", tmp_path / "parts.npy"
    list(encode_to_file(encoder, read_documents([str(folder / "texts.jsonl")]), whole, EncodeOptions()))
    started = encode_to_file(encoder, read_documents([str(folder / "texts.jsonl")]), parts, EncodeOptions())
    assert [next(started).texts for _ in range(2)] == [0, 512]
    started.close()  # type: ignore[attr-defined] # a generator
    reports = list(
        encode_to_file(encoder, read_documents([str(folder / "texts.jsonl")]), parts, EncodeOptions())
    )
    assert reports[0].resumed_at == 512
    assert reports[-1].texts == 1500
    assert parts.read_bytes() == whole.read_bytes()
    client.close()


def test_what_encode_refuses_names_the_text(folder: Path, address: str) -> None:
    result = run("encode", folder / "texts.jsonl", "--server", address, "--on-truncate", "error")
    assert isinstance(result.exception, RecordError)
    assert "texts.jsonl:3: the text 'cat cat" in str(result.exception)
    result = run("encode", folder / "texts.jsonl", "--server", address, "--on-empty", "error")
    assert "texts.jsonl:2: the text is empty" in str(result.exception)
    assert run("encode", folder / "texts.jsonl", "--server", address, "--truncate-dim", 8).exit_code == 2
    result = run("encode", folder / "texts.jsonl", "--server", address, "--model", "big")
    assert "no embedding model 'big' is served here" in str(result.exception)
    result = run("encode", folder / "texts.jsonl", "--server", address, "--prompt-name", "x")
    assert "no prompt named 'x'" in str(result.exception)


def test_keys(folder: Path) -> None:
    with serving(folder / "docs.index", access=Access(keys=("k1",))) as address:
        for more, reason in (((), "wants an API key"), (("--api-key", "k2"), "does not know this API key")):
            result = run("search", address, "girl", *more)
            assert reason in str(result.exception)
            assert "$EMBEDKIT_API_KEY" in str(result.exception)
        assert run("search", address, "girl", "--api-key", "k1").exit_code == 0
        result = CliRunner().invoke(app, ["search", address, "girl"], env={"EMBEDKIT_API_KEY": "k1"})
        assert result.exit_code == 0


@contextmanager
def stub(answer: Callable[[int], tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as it is told; yields its address and the requests it got."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append(self.path)
            status, headers, content = answer(len(asked))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            if headers.get("x-drop"):
                self.close_connection = True

        do_POST = do_GET  # noqa: N815 (as http.server wants it)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy = json.dumps({"error": {"message": "full", "status": 429}}).encode()

    def answer(number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 1:
            return 429, {"retry-after": "3"}, busy
        return (503, {}, busy) if number == 2 else (200, {}, b'{"done": true}')

    waited: list[float] = []
    with stub(answer) as (address, asked):
        with Client(Address.of(address), sleep=waited.append) as client:
            assert client.ask("GET", "/x") == {"done": True}
        assert (waited, len(asked)) == ([3.0, 1.0], 3)
    with stub(lambda number: (429, {"retry-after": "3"}, busy)) as (address, asked):
        impatient = Client(Address.of(address), patience_seconds=2, sleep=waited.append)
        with impatient, pytest.raises(ServerError, match=r"http://127.0.0.1:\d+: full"):
            impatient.ask("GET", "/x")
        assert len(asked) == 1


def test_a_connection_that_was_dropped_is_made_again() -> None:
    with stub(lambda number: (200, {"x-drop": "1"} if number == 1 else {}, b"{}")) as (address, asked):
        with Client(Address.of(address)) as client:
            assert client.ask("GET", "/a") == {}
            assert client.ask("GET", "/b") == {}
        assert asked == ["/a", "/b"]


@pytest.mark.parametrize(
    ("status", "headers", "content", "reason"),
    [
        (
            200,
            {"content-type": "text/html"},
            b"<html>",
            "this is no embedkit server (it answered 200, text/html)",
        ),
        (404, {"content-type": "application/json"}, b'{"detail": "Not Found"}', "this is no embedkit server"),
        (308, {"location": "https://elsewhere"}, b"", "it points to https://elsewhere"),
        (200, {}, b'{"hits": []}', "its answer is not that of a search"),
    ],
)
def test_another_server_is_told_from_ours(
    status: int, headers: dict[str, str], content: bytes, reason: str
) -> None:
    with stub(lambda number: (status, headers, content)) as (address, _):
        result = run("search", address, "girl")
        assert isinstance(result.exception, EmbedkitError)
        assert reason in str(result.exception)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1/docs", "the connection was refused: no server listens there"),
        ("http://no.such.host.invalid", "there is no host 'no.such.host.invalid'"),
        ("http://:8080", "no address of a server"),
        ("http://host:port", "no address of a server"),
        ("http://me:secret@host", "keys go into --api-key"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, reason: str) -> None:
    result = run("search", address, "girl")
    assert isinstance(result.exception, ServerError)
    assert reason in str(result.exception)


def test_tls_where_there_is_none(address: str) -> None:
    result = run("search", address.replace("http:", "https:"), "girl")
    assert "no TLS connection" in str(result.exception)


def test_addresses() -> None:
    assert Address.of("https://[::1]/a%20b/c/") == Address(True, "::1", 443, "a b/c")
    assert str(Address.of("http://[::1]:8080")) == "http://[::1]:8080"
    assert invoke("search", "--help").count("http://localhost:8080/docs") == 1
