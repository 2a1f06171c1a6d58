from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.errors import EvaluationError, OutputError, RecordError
from embedkit.evaluation.results import (
    Evaluation,
    Provenance,
    collect_provenance,
    load_evaluation,
    save_evaluation,
    tabulate,
    to_markdown,
)
from embedkit.storage.hashing import file_hash

FIXTURE = Path(__file__).parent / "fixtures" / "evaluation-v1.json"
# SHA-256 of the three bytes "abc", from FIPS 180-2.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

EXAMPLE = Evaluation(
    kind="retrieval",
    system="tiny",
    dataset="mini",
    values={"ndcg@10": 0.1 + 0.2, "mrr@10": 0.5},
    counts={"queries": 2},
    notes=("1 of 2 judged queries have no hits in the run and count as 0: 'é'",),
    per_query={"ndcg@10": {"é": 0.0, "q": 0.6000000000000001}},
    provenance=Provenance(
        command=("embedkit", "evaluate", "retrieval", "mini"),
        created="2025-01-02T03:04:05+00:00",
        data={"mini/corpus.jsonl": ABC},
        fingerprint="f00d",
        versions={"python": "3.11.0", "embedkit": "0.1.0"},
    ),
)


def test_an_evaluation_reads_back_as_written(tmp_path: Path) -> None:
    save_evaluation(tmp_path / "result.json", EXAMPLE)
    assert load_evaluation(tmp_path / "result.json") == EXAMPLE
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_version_1_loads_forever() -> None:
    assert load_evaluation(FIXTURE) == EXAMPLE


def test_provenance_has_hashes_versions_and_the_time(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"abc")
    found = collect_provenance(command=["embedkit", "bench"], data=[path], fingerprint="f00d")
    assert found.data == {path.as_posix(): ABC}
    assert found.command == ("embedkit", "bench")
    assert {"python", "numpy"} <= set(found.versions)
    assert found.created.endswith("+00:00")
    with pytest.raises(RecordError, match=r"none: cannot be read \(No such file or directory\)"):
        file_hash(tmp_path / "none")


def test_a_value_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(
        EvaluationError, match=r"a value of 'tiny' on 'mini' is not finite; nothing was written"
    ):
        save_evaluation(path, replace(EXAMPLE, values={"map": math.nan}))
    assert not path.exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/result.json: cannot be written"):
        save_evaluation(tmp_path / "none" / "result.json", EXAMPLE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"format version 2; this embedkit reads version 1. Upgrade it"),
        ({"format": "other"}, r"no 'embedkit evaluation' file"),
        ({"system": 7}, r"system is int; it must be str"),
        ({"values": [1]}, r"values is list; it must be dict"),
        ({"values": {"map": "high"}}, r"the value of map is 'high'; it must be a number"),
        ({"kind": "taste"}, r"kind is 'taste'; it must be one of retrieval, reranking, similarity"),
        ({"mood": 1}, r"missing nothing; unknown mood"),
        (
            {"provenance": {}},
            r"provenance: missing command, created, data, fingerprint, versions; unknown nothing",
        ),
    ],
)
def test_another_content_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(
        json.dumps({**json.loads(FIXTURE.read_text(encoding="utf-8")), **change}), encoding="utf-8"
    )
    with pytest.raises(RecordError, match=message):
        load_evaluation(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path, whole = tmp_path / "result.json", FIXTURE.read_bytes().rstrip()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RecordError, match=r"result.json: not JSON"):
        load_evaluation(path)


def test_a_table_has_systems_by_sets_and_metrics_and_marks_the_best() -> None:
    other = replace(EXAMPLE, system="BM25", values={"ndcg@10": 0.5})
    second = replace(EXAMPLE, dataset="big", values={"ndcg@10": 0.25})
    table = tabulate([EXAMPLE, other, second], ["ndcg@10", "mrr@10"])
    assert to_markdown(table) == (
        "| system | mini ndcg@10 | mini mrr@10 | big ndcg@10 |\n"
        "|---|---:|---:|---:|\n"
        "| tiny | 0.3000 | **0.5000** | **0.2500** |\n"
        "| BM25 | **0.5000** |  |  |\n"
    )


def test_the_best_is_the_least_where_less_is_better() -> None:
    values = [{"perplexity": 9.0, "rougeL": 0.5}, {"perplexity": 8.0, "rougeL": 0.4}]
    results = [replace(EXAMPLE, system=f"s{i}", values=each) for i, each in enumerate(values)]
    table = tabulate(results, ["perplexity", "rougeL"], digits=1)
    assert to_markdown(table).splitlines()[2:] == ["| s0 | 9.0 | **0.5** |", "| s1 | **8.0** | 0.4 |"]


def test_names_cannot_break_a_table() -> None:
    text = to_markdown(tabulate([replace(EXAMPLE, system="a|b\n\\c")], ["mrr@10"], digits=2))
    assert text.splitlines()[-1] == "| a\\|b \\\\c | 0.50 |"


def test_two_values_for_one_cell_are_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"'tiny' has two values of ndcg@10 on 'mini'"):
        tabulate([EXAMPLE, EXAMPLE], ["ndcg@10"])
