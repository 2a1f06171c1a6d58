from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.qrels import ranking
from embedkit.data.records import Query
from embedkit.data.trec import read_qrels, read_run, read_topics, write_run
from embedkit.errors import EvaluationError, OutputError, RecordError

BEIR = "query-id\tcorpus-id\tscore\n1\td 1\t2\n1\td2\t0\n2\td1\t-1\n"
TREC = "1 0 d1 2\n1 0 d2 0\n\n2\t0\td1\t-1\n"
JUDGEMENTS = {"1": {"d1": 2, "d2": 0}, "2": {"d1": -1}}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_one(text: str) -> Path:
        path = tmp_path / "file.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write_one


def test_beir_judgements_with_header_and_spaces_in_ids(write: Callable[[str], Path]) -> None:
    assert read_qrels(write(BEIR)) == {"1": {"d 1": 2, "d2": 0}, "2": {"d1": -1}}


def test_beir_judgements_without_header(write: Callable[[str], Path]) -> None:
    assert read_qrels(write(BEIR.split("\n", 1)[1])) == {"1": {"d 1": 2, "d2": 0}, "2": {"d1": -1}}


def test_trec_judgements(write: Callable[[str], Path]) -> None:
    assert read_qrels(write(TREC)) == JUDGEMENTS


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_judgements(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"test.tsv{ending}"
    if ending == ".gz":
        path.write_bytes(gzip.compress(TREC.encode()))
    else:
        zstandard = pytest.importorskip("zstandard", reason="the extra zstd is not installed")
        path.write_bytes(zstandard.compress(TREC.encode()))
    assert read_qrels(path) == JUDGEMENTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 d1 2\n1 0 d2\n", r"file.txt:2: the level is 'd2'; it must be a whole number"),
        ("1 0 d1 2 9\n", r"file.txt:1: 5 columns; a judgement has 4 .* or 3 with tabs"),
        ("1\td1\t0.5\n", r"file.txt:1: the level is '0.5'; it must be a whole number"),
        ("a Q0 d1 1 0.5 tag\n", r"file.txt:1: 6 columns"),
        (
            "1 0 d 1\n2 0 d 1\n1 0 d 0\n",
            r"file.txt:3: document 'd' is judged 0 for query '1' here and 1 before",
        ),
        ("query-id\tcorpus-id\tscore\n", r"file.txt: there is no judgement in it"),
        ("", r"file.txt: there is no judgement in it"),
    ],
)
def test_judgements_that_cannot_be_read(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_qrels(write(text))


def test_the_same_judgement_twice_does_no_harm(write: Callable[[str], Path]) -> None:
    assert read_qrels(write("1 0 d 1\n1 0 d 1\n")) == {"1": {"d": 1}}


def test_a_folder_or_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r": a folder; this must be one file"):
        read_qrels(tmp_path)
    with pytest.raises(RecordError, match=r"none.tsv: there is no such file"):
        read_qrels(tmp_path / "none.tsv")


RUN = "1 Q0 d1 1 0.9 me\n2 Q0 d1 1 7 me\n1 Q0 d2 2 0.5 me\n"


def test_a_run_may_mix_its_queries(write: Callable[[str], Path]) -> None:
    assert read_run(write(RUN)) == {"1": {"d1": 0.9, "d2": 0.5}, "2": {"d1": 7.0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Q0 d1 1 0.9\n", r"file.txt:1: 5 columns; a line of a run has 6"),
        ("1 Q0 d 1 2 t\n1 Q0 d 2 1 t\n", r"file.txt:2: document 'd' occurs twice for query '1'"),
        ("1 Q0 d 1 high t\n", r"file.txt:1: the score is 'high'; it must be a number"),
        ("1 Q0 d 1 nan t\n", r"file.txt:1: the score is nan; it must be a finite 32-bit float"),
        ("1 Q0 d 1 -inf t\n", r"file.txt:1: the score is -inf; it must be a finite"),
        ("1 Q0 d 1 1e39 t\n", r"file.txt:1: the score is 1e39; it must be a finite"),
        ("1 Q0 a one 1 t\n", r"file.txt:1: the rank is 'one'; it must be a whole number"),
        ("1 Q0 a 1 2 t\n1 Q0 b 1 1 t\n", r"file.txt:2: rank 1 of query '1' stands in line 1 already"),
        (
            "1 Q0 a 2 5 t\n1 Q0 b 1 3 t\n",
            r"file.txt:1: rank 2 of query '1' has the score 5.0, rank 1 the lower 3.0. Higher must be better",
        ),
        ("\n", r"file.txt: there is no hit in it"),
    ],
)
def test_runs_that_cannot_be_read(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_run(write(text))


def test_ranks_may_be_left_out_of_account(write: Callable[[str], Path]) -> None:
    path = write("1 Q0 a 0 5 t\n1 Q0 b 0 3 t\n")
    with pytest.raises(RecordError, match=r"rank 0 of query '1'"):
        read_run(path)
    assert read_run(path, check_ranks=False) == {"1": {"a": 5.0, "b": 3.0}}


IDS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=4)
FINITE = st.floats(-3e38, 3e38, allow_nan=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all examples of a test."""
    return tmp_path_factory.mktemp("run")


@given(st.dictionaries(IDS, st.dictionaries(IDS, FINITE, min_size=1, max_size=8), min_size=1, max_size=5))
def test_a_written_run_reads_back_bit_by_bit(place: Path, run: dict[str, dict[str, float]]) -> None:
    path = place / "run.txt"
    path.unlink(missing_ok=True)
    write_run(path, run)
    assert read_run(path) == run


def test_a_written_run_ranks_as_the_metrics_do(tmp_path: Path) -> None:
    scores = {"a": 0.1 + 0.2, "b": 0.9, "c": 0.9}
    write_run(tmp_path / "run.txt", {"q": scores}, tag="me")
    assert (tmp_path / "run.txt").read_text(encoding="utf-8") == (
        "q Q0 c 1 0.9 me\nq Q0 b 2 0.9 me\nq Q0 a 3 0.30000000000000004 me\n"
    )
    assert ranking(scores) == ["c", "b", "a"]


def test_a_run_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    with pytest.raises(EvaluationError, match=r"the document id 'd 1' is empty or holds white space"):
        write_run(path, {"q": {"d 1": 1.0}})
    with pytest.raises(EvaluationError, match=r"the query id '' is empty"):
        write_run(path, {"": {"d": 1.0}})
    with pytest.raises(EvaluationError, match=r"the tag 'my run' is empty or holds white space"):
        write_run(path, {}, tag="my run")
    with pytest.raises(EvaluationError, match=r"the score of document 'd' is nan"):
        write_run(path, {"q": {"d": math.nan}})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/run.txt: cannot be written \(No such file or directory\)"):
        write_run(tmp_path / "none" / "run.txt", {"q": {"d": 1.0}})


def test_topics_as_trec_writes_them(write: Callable[[str], Path]) -> None:
    topics = """
<top>
<num> Number: 301
<title> International
 Organized Crime
<desc> Description:
Identify organizations.
</top>

<top>
<num>302</num>
<title>Topic: Polio &amp; more</title>
</top>
"""
    assert read_topics(write(topics)) == [
        Query("301", "International Organized Crime"),
        Query("302", "Polio & more"),
    ]


def test_topics_with_tabs(write: Callable[[str], Path]) -> None:
    assert read_topics(write("1\tfirst one\n\n2\ta < b\n")) == [Query("1", "first one"), Query("2", "a < b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 first\n", r"file.txt:1: no tab in the line; a query is its id, a tab and its text"),
        ("1\ta\n1\tb\n", r"file.txt:2: the query id '1' occurs twice"),
        ("1\t \n", r"file.txt:1: the topic '1' has no text"),
        ("\n<top>\n<title> x\n</top>\n", r"file.txt:2: the topic '' has no number"),
        ("<top>\n<num> 7\n</top>\n", r"file.txt:1: the topic '7' has no text"),
        ("\n\n", r"file.txt: there is no topic in it"),
    ],
)
def test_topics_that_cannot_be_read(write: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        read_topics(write(text))
