"""`embedkit bench`: what is measured and in what form; never how fast, which depends on the machine."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.bench import Encodings, _Encoding, _measure_encoding, _print_tables
from cli.bench.search import Latency, latency, measure_index
from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.throughput import Throughput, texts_of_length
from embedkit.errors import DeviceError

SMALL = (
    "--device",
    "cpu",
    "--seconds",
    "0",
    "--length",
    "8",
    "--length",
    "16",
    "--batch",
    "1",
    "--batch",
    "4",
)


@pytest.fixture
def small_index(tiny_model: Path, tmp_path: Path) -> Path:
    corpus, index = tmp_path / "corpus.jsonl", tmp_path / "my.index"
    rows = [{"_id": f"d{i}", "text": f"the dog runs {i}"} for i in range(60)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    built = CliRunner().invoke(
        app, ["index", "build", str(corpus), "-i", str(index), "-m", str(tiny_model), "--device", "cpu"]
    )
    assert built.exit_code == 0, built.output
    return index


def bench(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each command once: a start takes seconds, and how many there are is no matter here."""
    monkeypatch.setattr("cli.bench.search.STARTS", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_start")
def test_encoding_search_and_starts_are_measured(tiny_model: Path, small_index: Path, tmp_path: Path) -> None:
    plot = tmp_path / "speed.png"
    result = bench("-m", tiny_model, "--index", small_index, "--precision", "fp32", *SMALL, "--plot", plot)
    assert result.exit_code == 0, (result.output, result.exception)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    encoding = [row for row in rows if row["what"] == "encode"]
    assert [(row["tokens"], row["batch"]) for row in encoding] == [(8, 1), (8, 4), (16, 1), (16, 4)]
    assert {(row["backend"], row["precision"]) for row in encoding} == {("torch", "fp32")}
    assert all(row["cosine_to_fp32"] == pytest.approx(1, abs=1e-6) for row in encoding)
    assert all(row["texts_per_second"] > 0 for row in encoding)
    rest = {row["what"]: row for row in rows if row["what"] != "encode"}
    assert list(rest) == [
        "search flat, 60 vectors",
        "search text (BM25)",
        "encode a query and search hybrid",
        "start: embedkit --version",
        "start: embedkit encode, one text",
        "start: embedkit search, one query",
    ]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in rest.values() if "start" not in row["what"])
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.usefixtures("one_start")
def test_every_kind_of_index_is_measured_where_none_is_named(tiny_model: Path) -> None:
    result = bench("-m", tiny_model, "--precision", "fp32", "--vectors", "2000", *SMALL, "--markdown")
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stdout.startswith(
        "| precision | backend | cosine to fp32 | tokens | batch | ms a call | texts/s | tokens/s |\n"
    )
    for kind in ("flat", "hnsw", "ivf-flat", "ivf-pq"):
        assert f"| search {kind}, 2,000 vectors |" in result.stdout


def test_an_index_that_is_there_is_measured_as_it_is(tiny_model: Path, small_index: Path) -> None:
    encoder = Encoder.load(tiny_model, device="cpu")
    found = list(islice(measure_index(encoder, small_index), 3))
    assert [each.what for each in found] == [
        "search flat, 60 vectors",
        "search text (BM25)",
        "encode a query and search hybrid",
    ]
    assert all(0 < each.p50 <= each.p95 for each in found)


def test_tables_are_printed_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    rates = [Throughput(length=16, batch=32, seconds=0.016, calls=3)]
    _print_tables(
        [_Encoding("bf16", "native", 0.99998, 0.9999, rates)],
        [Latency("search flat, 60 vectors", 0.5, 1.25)],
        as_markdown=True,
    )
    assert capsys.readouterr().out.splitlines() == [
        "| precision | backend | cosine to fp32 | tokens | batch | ms a call | texts/s | tokens/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        "| bf16 | native | 0.99998 | 16 | 32 | 16.0 | 2,000 | 32,000 |",
        "",
        "| what | p50 ms | p95 ms |",
        "|---|---:|---:|",
        "| search flat, 60 vectors | 0.50 | 1.25 |",
        "",
    ]


def test_a_precision_that_is_not_to_be_had_is_left_out_or_refused_where_it_was_asked_for(
    tiny_model: Path,
) -> None:
    few = ("-m", tiny_model, "--device", "cpu", "--seconds", "0")
    wanted = Encodings(device="cpu", length=[8], batch=[1], seconds=0.0)
    measured, exact = _measure_encoding(tiny_model, wanted)
    assert "fp32" in {each.precision for each in measured}
    assert "int8" not in {each.precision for each in measured}  # the tiny model's heads are of 8
    assert exact.precision == "fp32"
    refused = bench(*few, "--precision", "int8")
    assert isinstance(refused.exception, DeviceError)


def test_a_length_that_the_model_does_not_read_is_refused(tiny_model: Path) -> None:
    result = bench("-m", tiny_model, "--length", "64")
    assert result.exit_code == 2
    assert "--length is 64; the model reads 32 tokens" in " ".join(result.output.split())


def test_texts_have_the_tokens_that_were_asked_for(tiny_model: Path) -> None:
    encoder = Encoder.load(tiny_model, device="cpu")
    texts = texts_of_length(encoder, 20, 9)
    assert encoder.tokenizer.encode(texts).lengths.tolist() == [20] * 9
    assert len(set(texts)) == 9  # equal texts would be encoded once
    with pytest.raises(ValueError, match=r"texts of 33 tokens were asked for; this model reads 3 to 32"):
        texts_of_length(encoder, 33, 1)


def test_rates_follow_from_the_time_of_a_call() -> None:
    found = Throughput(length=10, batch=4, seconds=0.5, calls=3)
    assert (found.texts_per_second, found.tokens_per_second) == (8.0, 80.0)


def test_a_latency_is_of_measured_calls_alone() -> None:
    calls: list[int] = []
    found = latency("x", [lambda n=n: calls.append(n) for n in range(3)])  # type: ignore[misc] # a default binds it
    assert calls == [0, 0, 1, 2]
    assert found.p50 <= found.p95
