"""`embedkit evaluate`: what is measured, what is kept in the cache, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.trec import read_run
from embedkit.encoding.encoder import Encoder
from embedkit.errors import EvaluationError, IndexMismatchError, RecordError
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.results import load_evaluation
from embedkit.evaluation.retrieval import evaluate_retrieval
from tests.judged import DOCUMENTS, QRELS, QUERIES, write_judged_set, write_lines, write_self_asking_set
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

Run = Any  # click's result, whose module is not to be imported


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    return write_judged_set(tmp_path / "mini")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMBEDKIT_MODEL", raising=False)
    return tmp_path / "cache"


def evaluate(*arguments: object) -> Run:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def rows_of(result: Run) -> dict[str, Any]:
    assert result.exit_code == 0, (result.output, result.exception)
    return {row["system"]: row for row in map(json.loads, result.stdout.splitlines())}


def test_a_model_is_measured_with_bm25_beside(judged: Path, tiny_model: Path) -> None:
    rows = rows_of(evaluate("retrieval", judged, "-m", tiny_model, "--device", "cpu"))
    name = f"{tiny_model.parent.name}/model"
    assert list(rows) == ["BM25", name]
    # Each query's words stand in its documents: the best is first. q2 has d2 before d4.
    assert rows["BM25"]["values"]["ndcg@10"] == pytest.approx(1.0)
    encoder = Encoder.load(tiny_model, device="cpu")
    cosines = encoder.encode(list(QUERIES.values())[:3]) @ encoder.encode(list(DOCUMENTS.values())).T
    run = {
        query: dict(zip(DOCUMENTS, row.tolist(), strict=True))
        for query, row in zip(QUERIES, cosines, strict=False)
    }
    wanted = evaluate_retrieval(QRELS, run, [Metric("ndcg", 10), Metric("mrr", 10)])
    for metric in ("ndcg@10", "mrr@10"):
        assert rows[name]["values"][metric] == pytest.approx(wanted.means[metric])
    provenance = rows[name]["provenance"]
    assert len(provenance["data"]) == 3
    assert len(provenance["fingerprint"]) == 64
    assert provenance["versions"].keys() >= {"python", "torch", "numpy"}
    assert rows["BM25"]["provenance"]["fingerprint"] == ""


def test_several_models_sets_and_modes_stand_in_one_table(
    judged: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    second = write_judged_set(tmp_path / "second")
    result = evaluate(
        *("retrieval", judged, second, "-m", tiny_model, "-m", other, "--mode", "dense", "--mode", "hybrid"),
        *("--device", "cpu", "--markdown"),
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    name = f"{tiny_model.parent.name}/model"
    assert lines[0] == "| system | mini ndcg@10 | second ndcg@10 |"
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["BM25", name, f"{name} hybrid", "other", "other hybrid"]
    assert all(line.count("|") == 4 and "  |" not in line for line in lines[2:])


def test_hybrid_search_is_measured_with_several_weights_of_words(judged: Path, tiny_model: Path) -> None:
    command = ("retrieval", judged, "-m", tiny_model, "--device", "cpu", "--json")
    result = evaluate(
        *command, "--mode", "hybrid", "--text-weight", 1, "--text-weight", 1e6, "--text-weight", 0
    )
    rows = {row["system"]: row["values"] for row in map(json.loads, result.stdout.splitlines())}
    name = f"{tiny_model.parent.name}/model"
    assert list(rows) == [
        "BM25",
        f"{name} hybrid",
        f"{name} hybrid (words 1e+06)",
        f"{name} hybrid (words 0)",
    ]
    by_meaning = json.loads(evaluate(*command).stdout.splitlines()[1])["values"]
    assert rows[f"{name} hybrid (words 0)"] == by_meaning
    assert rows[f"{name} hybrid (words 1e+06)"]["success@1"] == rows["BM25"]["success@1"]
    for option in (("--text-weight", 2), ("--fusion", "ranks")):
        refused = evaluate(*command, *option)
        assert refused.exit_code == 2
        assert "are for --mode hybrid" in refused.output


def written(index: Path) -> dict[Path, int]:
    """When each file was last written; a reader makes SQLite's own -shm and -wal again."""
    files = (path for path in index.rglob("*") if path.is_file() and "sqlite-" not in path.name)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_collection_is_encoded_once_and_a_changed_one_is_noticed(
    judged: Path, tiny_model: Path, cache: Path
) -> None:
    command = ("retrieval", judged, "-m", tiny_model, "--device", "cpu")
    first = evaluate(*command)
    indexes = list((cache / "collections").glob("mini-*.index"))
    assert len(indexes) == 1
    before = written(indexes[0])
    second = evaluate(*command)
    assert rows_of(second)["BM25"]["values"] == rows_of(first)["BM25"]["values"]
    after = written(indexes[0])
    assert after == before
    write_lines(judged / "corpus.jsonl", DOCUMENTS | {"d1": "dog runs dog runs"})
    third = evaluate(*command)
    assert "differs from what was cached as 'mini' before; it is read again" in third.stderr
    assert len(list((cache / "collections").glob("mini-*.index"))) == 2
    name = f"{tiny_model.parent.name}/model"
    assert rows_of(third)[name]["provenance"]["data"] != rows_of(first)[name]["provenance"]["data"]


def test_an_unfinished_cache_is_finished_rather_than_believed(
    judged: Path, tiny_model: Path, cache: Path
) -> None:
    from indexes import Index

    command = ("retrieval", judged, "-m", tiny_model, "--device", "cpu", "--metric", "recall@100")
    whole = rows_of(evaluate(*command))
    (path,) = (cache / "collections").glob("mini-*.index")
    path.with_suffix(".json").unlink()
    with Index.open(path, writable=True) as index:
        index.delete(["d4", "d2"])
    again = rows_of(evaluate(*command))
    assert {name: row["values"] for name, row in again.items()} == {
        name: row["values"] for name, row in whole.items()
    }
    with Index.open(path) as index:
        assert len(index) == len(DOCUMENTS)


def test_topics_judgements_and_an_index_are_a_set_too(judged: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "topics.txt").write_text(
        "".join(f"<top>\n<num> Number: {key}\n<title> {text}\n</top>\n" for key, text in QUERIES.items()),
        encoding="utf-8",
    )
    qrels = tmp_path / "qrels.txt"
    qrels.write_text(
        "".join(f"{q} 0 {d} {level}\n" for q, of in QRELS.items() for d, level in of.items()),
        encoding="utf-8",
    )
    corpus = judged / "corpus.jsonl"
    built = CliRunner().invoke(
        app,
        [
            "index",
            "build",
            str(corpus),
            "-i",
            str(tmp_path / "mini.index"),
            "-m",
            str(tiny_model),
            "--device",
            "cpu",
        ],
    )
    assert built.exit_code == 0, built.output
    shared = ("retrieval", "--queries", tmp_path / "topics.txt", "--qrels", qrels, "--device", "cpu")
    by_index = rows_of(evaluate(*shared, "--index", tmp_path / "mini.index"))
    by_corpus = rows_of(evaluate(*shared, "--corpus", corpus, "-m", tiny_model))
    assert by_index["mini.index"]["values"] == by_corpus[f"{tiny_model.parent.name}/model"]["values"]
    other = write_tiny_model(tmp_path / "other", seed=1)
    refused = evaluate(*shared, "--index", tmp_path / "mini.index", "-m", other)
    assert isinstance(refused.exception, IndexMismatchError)
    without = evaluate(*shared)
    assert without.exit_code == 2
    assert "name the collection with --corpus" in without.output


def test_results_and_runs_are_saved_and_measure_the_same(
    judged: Path, tiny_model: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    rows = rows_of(evaluate("retrieval", judged, "-m", tiny_model, "--device", "cpu", "--save", saved))
    evaluation = load_evaluation(saved / "mini.BM25.json")
    assert evaluation.values == rows["BM25"]["values"]
    assert set(read_run(saved / "mini.BM25.trec")) == set(QRELS)
    again = rows_of(
        evaluate("run", judged / "qrels" / "test.tsv", saved / "mini.BM25.trec", "--metric", "ndcg@10")
    )
    assert again["mini.BM25.trec"]["values"] == {"ndcg@10": evaluation.values["ndcg@10"]}
    followed = evaluate("trend", *saved.glob("*.json"), "--metric", "mrr@10")
    found = {row["system"]: row for row in map(json.loads, followed.stdout.splitlines())}
    assert found["BM25"]["value"] == evaluation.values["mrr@10"]
    assert len(found) == 2


def test_a_query_that_is_a_document_does_not_find_itself_and_that_is_said(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder, saved = write_self_asking_set(tmp_path / "argu"), tmp_path / "saved"
    shared = (folder, "-m", tiny_model, "--device", "cpu", "--metric", "success@1", "--metric", "recall@100")
    result = evaluate("retrieval", *shared, "--save", saved)
    rows = rows_of(result)
    note = "hits with the id of their query do not count: the queries are documents of the collection"
    assert note in result.stderr
    for row in rows.values():
        assert row["counts"]["identical ids ignored"] == 2
    run = read_run(saved / "argu.BM25.trec")
    assert not any(query_id in hits for query_id, hits in run.items())
    (dense,) = saved.glob("argu.*model*.trec")
    assert {query_id: len(hits) for query_id, hits in read_run(dense).items()} == {"d1": 4, "d2": 4}
    kept = evaluate("retrieval", *shared, "--keep-identical-ids", "--save", saved / "kept")
    assert note not in kept.stderr
    assert all("identical ids ignored" not in row["counts"] for row in rows_of(kept).values())
    qrels, own = folder / "qrels" / "test.tsv", saved / "kept" / dense.name
    assert next(iter(read_run(own)["d1"])) == "d1"
    measured = evaluate("run", qrels, own, dense, "--metric", "mrr@10")
    assert (
        f"note: test.tsv ({own.parent.name}/{own.name}): 2 of 2 queries have the document of their own id as first hit"
        in (measured.stderr)
    )
    ignoring = rows_of(evaluate("run", qrels, own, dense, "--metric", "mrr@10", "--ignore-identical-ids"))
    first, second = ignoring.values()
    assert first["values"] == second["values"]


def test_ids_that_meet_by_chance_count(judged: Path) -> None:
    write_lines(judged / "queries.jsonl", {"d1": "sings a song", "q2": "piano"})
    (judged / "qrels" / "test.tsv").write_text("d1\td2\t1\nq2\td4\t1\n", encoding="utf-8")
    kept = rows_of(evaluate("retrieval", judged, "--mode", "text"))["BM25"]
    assert "identical ids ignored" not in kept["counts"]
    asked = evaluate("retrieval", judged, "--mode", "text", "--ignore-identical-ids")
    assert "do not count (--ignore-identical-ids)" in asked.stderr
    assert rows_of(asked)["BM25"]["counts"]["identical ids ignored"] == 0


def test_ids_that_no_run_can_hold_are_refused_before_the_search(
    judged: Path, tmp_path: Path, cache: Path
) -> None:
    write_lines(judged / "queries.jsonl", {"a b": "piano"})
    (judged / "qrels" / "test.tsv").write_text("a b\td4\t1\n", encoding="utf-8")
    refused = evaluate("retrieval", judged, "--mode", "text", "--save", tmp_path / "saved")
    assert "the query id 'a b' is empty or holds white space" in str(refused.exception)
    assert not cache.exists()
    assert evaluate("retrieval", judged, "--mode", "text").exit_code == 0


def test_reranking_stands_beside_the_first_stage_with_its_cost(
    judged: Path, tiny_model: Path, tmp_path: Path
) -> None:
    reranker = write_tiny_cross_encoder(tmp_path / "second-stage")
    rows = rows_of(evaluate("reranking", judged, "--rerank", reranker, "--candidates", 3, "--device", "cpu"))
    assert list(rows) == ["BM25", "BM25 + second-stage"]
    values = rows["BM25 + second-stage"]["values"]
    assert {"map@100", "mrr@10", "ndcg@10", "ms/query", "pairs/s"} == set(values)
    assert values["pairs/s"] > 0
    assert rows["BM25 + second-stage"]["kind"] == "reranking"
    name = f"{tiny_model.parent.name}/model"
    modes = ("--mode", "hybrid", "--mode", "text")
    both = evaluate("reranking", judged, *modes, "-m", tiny_model, "--rerank", reranker, "--device", "cpu")
    assert set(rows_of(both)) == {
        "BM25",
        "BM25 + second-stage",
        f"{name} hybrid",
        f"{name} hybrid + second-stage",
    }
    by_tokens = rows_of(
        evaluate("retrieval", judged, "-m", tiny_model, "--rerank", "maxsim", "--device", "cpu")
    )
    assert list(by_tokens) == ["BM25", name, f"{name} + maxsim"]
    assert by_tokens[f"{name} + maxsim"]["counts"]["reranked pairs"] == 3 * len(DOCUMENTS)


def test_words_alone_encode_nothing(judged: Path, tiny_model: Path, cache: Path) -> None:
    command = ("retrieval", judged, "-m", tiny_model, "--mode", "text", "--device", "cpu")
    assert list(rows_of(evaluate(*command))) == ["BM25"]
    (path,) = (cache / "collections").glob("*.index")
    from indexes import Index

    with Index.open(path) as index:
        assert index.settings.dimension == 1
    again = rows_of(evaluate(*command, "--rerank", "maxsim"))
    assert list(again) == ["BM25", "BM25 + maxsim"]


def test_judgements_that_point_nowhere_are_counted_and_named(judged: Path) -> None:
    path = judged / "qrels" / "test.tsv"
    good = path.read_text(encoding="utf-8")
    path.write_text(good + "q9\td1\t1\nq1\td99\t1\n", encoding="utf-8")
    result = evaluate("retrieval", judged, "--mode", "text")
    assert result.exit_code == 0, result.output
    assert "note: mini: 1 judged queries are unknown and count as 0: 'q9'" in result.stderr
    assert (
        "note: mini: 1 judged documents are not in the collection and cannot be found: 'd99'" in result.stderr
    )
    path.write_text("query-id\tcorpus-id\tscore\nq1\td99\t1\n", encoding="utf-8")
    nothing = evaluate("retrieval", judged, "--mode", "text")
    assert isinstance(nothing.exception, EvaluationError)
    assert "none of the 1 judged relevant documents is known: 'd99'" in str(nothing.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a FOLDER, or --queries and --qrels"),
        (("--queries", "q.txt"), "--queries and --qrels go together"),
        (("mini", "--corpus", "c.jsonl"), "--corpus goes with --queries and --qrels"),
        (("mini", "mini"), "two test sets have one name: mini, mini"),
        (("mini", "--mode", "text", "--json", "--markdown"), "--json and --markdown exclude each other"),
    ],
)
def test_wrong_usage_exits_with_2(
    judged: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(judged.parent)
    result = evaluate("retrieval", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_similarity_tells_the_kind_of_file_by_its_columns(tiny_model: Path, tmp_path: Path) -> None:
    sts, pairs, triplets = (tmp_path / name for name in ("sts.tsv", "pairs.tsv", "triplets.tsv"))
    sts.write_text(
        "sentence1\tsentence2\tscore\nthe dog\ta dog\t4\nred\tpiano\t1\nhorse\thorse\t5\n", encoding="utf-8"
    )
    pairs.write_text("sentence1\tsentence2\tlabel\nhorse\thorse\t1\nred\tpiano\t0\n", encoding="utf-8")
    triplets.write_text("anchor\tpositive\tnegative\ndog\tdog\tpiano\n", encoding="utf-8")
    result = evaluate("similarity", sts, pairs, triplets, "-m", tiny_model, "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = {row["dataset"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert found["sts.tsv"]["kind"] == "similarity"
    assert found["sts.tsv"]["values"]["spearman"] > 0
    assert found["pairs.tsv"]["values"]["ap"] == 1.0
    assert found["triplets.tsv"]["values"] == {"accuracy": 1.0}
    named = evaluate(
        *("similarity", sts, "-m", tiny_model, "--device", "cpu"),
        *("--task", "sts", "--columns", "sentence2,sentence1,score"),
    )
    value = json.loads(named.stdout)["values"]["spearman"]
    assert value == pytest.approx(found["sts.tsv"]["values"]["spearman"])


def test_similarity_files_without_the_columns_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("question\tanswer\na\tb\n", encoding="utf-8")
    result = evaluate("similarity", path, "-m", tiny_model)
    assert isinstance(result.exception, RecordError)
    assert "x.tsv:2: columns here: question, answer; wanted those of one of sentence1" in str(
        result.exception
    )
    for columns, message in (
        ("a,b", "--columns is 'a,b'; it must be 3 names"),
        ("a,b,c", "--columns goes with --task"),
    ):
        task = ("--task", "sts") if columns == "a,b" else ()
        usage = evaluate("similarity", path, "-m", tiny_model, "--columns", columns, *task)
        assert usage.exit_code == 2
        assert message in " ".join(usage.output.split())


def test_clustering_measures_agreement_with_the_labels(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = ["dog dog"] * 3 + ["piano song"] * 3
    rows = [{"text": text, "label": text[0]} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = evaluate("clustering", path, "-m", tiny_model, "--device", "cpu")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert row["values"]["v-measure"] == pytest.approx(1.0)
    assert row["counts"] == {"texts": 6, "labels": 2}


def test_how_to_rerank_is_refused_only_where_nothing_reranks(tmp_path: Path) -> None:
    weight = [str(tmp_path / "none"), "--rerank-weight", "0.5"]
    refused = CliRunner().invoke(app, ["evaluate", "retrieval", *weight])
    assert refused.exit_code == 2
    assert "--rerank-weight goes with --rerank" in refused.output
    taken = CliRunner().invoke(app, ["evaluate", "reranking", *weight])  # which has a reranker of its own
    assert "there is no such folder" in str(taken.exception)
