"""`embedkit mine` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import IndexFileError, OutputError, RecordError
from embedkit.training.rows.reading import read_examples
from indexes import join_shards
from tests.serving.indexes.served_indexes import build
from tests.training.contrastive_runs import rows_of, write_rows

runner = CliRunner()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", rows_of("pairs", 40))


@pytest.mark.parametrize("by", ["dense", "text", "both"])
def test_negatives_are_found_by_vectors_and_by_words(
    pairs: Path, tiny_model: Path, tmp_path: Path, by: str
) -> None:
    output = tmp_path / "mined.jsonl"
    command = [
        "mine",
        str(pairs),
        "--by",
        by,
        "-o",
        str(output),
        "--num-negatives",
        "3",
        "--no-margin",
        "--device",
        "cpu",
    ]
    result = runner.invoke(app, [*command, "--model", str(tiny_model), "--json"])
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert report["rows"] == 40
    assert report["negatives"] > 40
    mined = read_examples(str(output))
    assert mined.negatives is not None
    assert mined.second is not None
    assert not (mined.negatives == mined.second[:, None]).any()
    again = runner.invoke(app, [*command, "--model", str(tiny_model)])
    assert isinstance(again.exception, OutputError)


def test_margins_leave_candidates_out_and_say_so(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = [
        "mine",
        str(pairs),
        "--model",
        str(tiny_model),
        "-o",
        str(tmp_path / "m.jsonl"),
        "--device",
        "cpu",
        "--json",
    ]
    result = runner.invoke(app, [*command, "--relative-margin", "0.05", "--ranks", "2-20", "--by", "both"])
    assert result.exit_code == 0, result.exception
    report = json.loads(result.stdout)
    assert report["too_near"] > 0
    assert len(report["suspects"]) == 3


def test_tables_without_a_header_are_read_with_any_separator(tmp_path: Path) -> None:
    table, output = tmp_path / "table.csv", tmp_path / "mined.jsonl"
    table.write_text("".join(f"the dog {n}^the cat {n}\n" for n in range(12)), encoding="utf-8")
    command = ["mine", str(table), "-o", str(output), "--by", "text", "--no-margin", "--json"]
    result = runner.invoke(app, [*command, "--no-header", "--delimiter", "^"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["rows"] == 12
    first = json.loads(output.read_text(encoding="utf-8").splitlines()[0])
    assert (first["query"], first["positive"]) == ("the dog 0", "the cat 0")


def test_wrong_usage_is_told(pairs: Path, tmp_path: Path) -> None:
    output = ["-o", str(tmp_path / "m.jsonl")]
    ranks = runner.invoke(app, ["mine", str(pairs), *output, "--by", "text", "--ranks", "ten"])
    assert ranks.exit_code == 2
    assert "--ranks is 'ten'; wanted FIRST-LAST" in ranks.output
    margin = runner.invoke(app, ["mine", str(pairs), *output, "--by", "text", "--margin", "nan"])
    assert margin.exit_code == 2  # no score is below it: nothing would be left out
    assert "'nan' is not a number" in " ".join(margin.output.split())
    maxsim = runner.invoke(app, ["mine", str(pairs), *output, "--by", "text", "--rerank", "maxsim"])
    assert maxsim.exit_code == 2
    assert "mining compares the scores of a cross-encoder" in maxsim.output
    texts = write_rows(tmp_path / "texts.jsonl", rows_of("texts"))
    wrong = runner.invoke(app, ["mine", str(texts), *output, "--by", "text"])
    assert isinstance(wrong.exception, RecordError)
    assert "they make texts rows; mining needs first + second or first + second + negatives" in str(
        wrong.exception
    )


@pytest.mark.parametrize("by", ["dense", "text", "both"])
def test_an_index_in_shards_gives_the_negatives_of_one_index(
    tiny_model: Path, tmp_path: Path, by: str
) -> None:
    rows = rows_of("pairs", 40)
    pairs = write_rows(tmp_path / "pairs.jsonl", rows)
    texts = sorted({text for row in rows for text in list(row.values())[:2]})
    documents = [{"id": f"d{number:03d}", "text": text} for number, text in enumerate(texts)]
    half = len(documents) // 2
    for name, part in (("one", documents), ("p0", documents[:half]), ("p1", documents[half:])):
        build(tmp_path / f"{name}.index", part, tiny_model)
    join_shards(tmp_path / "big.index", [str(tmp_path / "p0.index"), str(tmp_path / "p1.index")])
    mined = []
    for name in ("one", "big"):
        output = tmp_path / f"{name}.jsonl"
        words = [
            "mine",
            pairs,
            "--index",
            tmp_path / f"{name}.index",
            "--by",
            by,
            "-o",
            output,
            "--no-margin",
        ]
        result = runner.invoke(app, [*map(str, words), "--device", "cpu", "--precision", "fp32"])
        assert result.exit_code == 0, result.exception
        mined.append(output.read_text("utf-8"))
        assert not (tmp_path / f"{name}.jsonl.index").exists()
    assert mined[0] == mined[1]
    assert '"negatives": ["' in mined[0]


def test_an_index_and_a_corpus_exclude_each_other(pairs: Path, tmp_path: Path) -> None:
    words = ["mine", str(pairs), "-o", str(tmp_path / "m.jsonl"), "--index", "x.index", "--corpus", "y.jsonl"]
    result = runner.invoke(app, words)
    assert result.exit_code == 2
    result = runner.invoke(app, words[:-2])
    assert isinstance(result.exception, IndexFileError)
