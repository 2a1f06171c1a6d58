"""`embedkit search`: one query, many, filters, modes, and what goes wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.text import Text
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.records import Hit
from embedkit.errors import EmbedkitError, RecordError
from embedkit.retrieval.retriever import Retriever
from tests.cli.index.test_index import ROWS, invoke
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("search")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    invoke("index", "build", corpus, "--index", folder / "my.index", "--model", tiny_model)
    return folder / "my.index"


def hits(*arguments: object, stdin: str | None = None) -> list[dict[str, object]]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json", stdin=stdin).splitlines()]


def test_a_document_finds_itself_with_cosine_one(index: Path) -> None:
    row = ROWS[1]
    found = hits(index, f"{row['title']} {row['text']}", "--top-k", 1, "--mode", "dense")
    assert found[0]["id"] == "dog"
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert found[0]["metadata"] == {"year": 2022}


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_every_mode_finds_the_horse_and_no_more_hits_than_documents(index: Path, mode: str) -> None:
    found = hits(index, "a man walks with a horse", "--mode", mode, "--top-k", 50)
    assert found[0]["id"] == "horse"
    assert 1 <= len(found) <= 3
    assert [hit["rank"] for hit in found] == list(range(1, len(found) + 1))


def test_a_filter_and_a_least_score_leave_hits_out(index: Path) -> None:
    assert {hit["id"] for hit in hits(index, "horse", "--where", "year > 2020")} == {"dog", "horse"}
    assert hits(index, "horse", "--min-score", "2") == []


def test_queries_from_a_pipe_and_a_file_and_a_trec_run(index: Path, tmp_path: Path) -> None:
    lines = '{"_id": "q1", "text": "horse"}\n{"_id": "q2", "text": "guitar"}\n'
    from_pipe = hits(index, "--mode", "text", stdin=lines)
    assert [(hit["query_id"], hit["id"]) for hit in from_pipe] == [("q1", "horse"), ("q2", "guitar")]
    (tmp_path / "q.jsonl").write_text(lines, encoding="utf-8")
    invoke("search", index, "--queries", tmp_path / "q.jsonl", "--run", tmp_path / "out.trec", "--top-k", 2)
    rows = [line.split() for line in (tmp_path / "out.trec").read_text(encoding="utf-8").splitlines()]
    assert [(row[0], row[3]) for row in rows] == [("q1", "1"), ("q1", "2"), ("q2", "1"), ("q2", "2")]


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_a_run_has_as_many_documents_as_are_asked_for_and_not_their_passages(
    tmp_path: Path, tiny_model: Path, mode: str
) -> None:
    """The long document has dozens of passages, each of which is nearer than all other documents."""
    rows = [{"_id": "long", "text": "a man walks with a horse. " * 60}]
    rows += [{"_id": f"short{number}", "text": f"the horse of {number} sings a song"} for number in range(4)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "q.jsonl").write_text('{"_id": "q", "text": "a man walks with a horse"}\n', encoding="utf-8")
    build = ["index", "build", tmp_path / "c.jsonl", "-i", tmp_path / "i", "-m", tiny_model]
    invoke(*build, "--chunk-tokens", 12, "--chunk-overlap", 0)
    ask = ["search", tmp_path / "i", "--queries", tmp_path / "q.jsonl", "--mode", mode, "--top-k", 3]
    invoke(*ask, "--candidates", 5, "--run", tmp_path / "out.trec")
    found = [line.split()[2] for line in (tmp_path / "out.trec").read_text(encoding="utf-8").splitlines()]
    assert len(found) == len(set(found)) == 3
    assert found[0] == "long"


def test_a_file_of_queries_is_read_by_its_own_keys_and_refused_without_options_that_search_lacks(
    index: Path, tmp_path: Path
) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "1", "query": "horse"}\n', encoding="utf-8")
    (first,) = hits(index, "--queries", tmp_path / "q.jsonl", "--top-k", "1")
    assert (first["query_id"], first["id"]) == ("1", "horse")
    (tmp_path / "q.jsonl").write_text('{"id": "1", "words": "horse"}\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["search", str(index), "--queries", str(tmp_path / "q.jsonl")])
    assert isinstance(result.exception, RecordError)
    assert str(result.exception).endswith("missing key 'text'; keys here: id, words. Rename one of them")
    classes = write_tiny_cross_encoder(tmp_path / "classes", labels=("no", "yes"))
    result = CliRunner().invoke(app, ["search", str(index), "horse", "--rerank", str(classes)])
    assert str(result.exception).endswith("Rerank with a model of one label")
    result = CliRunner().invoke(app, ["index", "build", str(tmp_path / "q.jsonl"), "-i", str(tmp_path / "i")])
    assert str(result.exception).endswith("Rename one of them, or pass --text-field NAME")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("1", "1"), r"q\.jsonl:2: the query id '1' occurs twice"),
        (("1", "a b"), r"the query id 'a b' is empty or holds white space"),
    ],
)
def test_query_ids_that_a_run_cannot_hold_are_refused_before_anything_is_searched(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: tuple[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("q.jsonl").write_text(
        "".join(json.dumps({"_id": each, "text": "horse"}) + "\n" for each in ids), encoding="utf-8"
    )
    monkeypatch.setattr(Retriever, "search_ids", None)  # whoever searches fails otherwise
    arguments = ["search", str(index), "--queries", "q.jsonl", "--run", "out.trec"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, EmbedkitError)
    assert re.search(message, str(result.exception))


def test_a_document_id_that_a_run_cannot_hold_is_refused_at_its_first_hit(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "my notes", "text": "horse"}\n', encoding="utf-8")
    invoke("index", "build", tmp_path / "c.jsonl", "--index", tmp_path / "i", "--model", tiny_model)
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "horse"}\n', encoding="utf-8")
    arguments = ["search", tmp_path / "i", "--queries", tmp_path / "q.jsonl", "--run", tmp_path / "out.trec"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert "the document id 'my notes' is empty or holds white space" in str(result.exception)


def test_rerank_reads_what_search_prints_of_many_queries(index: Path, tmp_path: Path) -> None:
    lines = '{"_id": "q1", "text": "horse"}\n{"_id": "q2", "text": "guitar"}\n'
    printed = invoke("search", index, "--top-k", 2, stdin=lines)  # JSON lines, as of many queries
    model = write_tiny_cross_encoder(tmp_path / "reranker")
    reranked = [json.loads(line) for line in invoke("rerank", "-m", model, stdin=printed).splitlines()]
    assert [(row["query_id"], row["query"]) for row in reranked] == [("q1", "horse"), ("q2", "guitar")]
    found = [json.loads(line) for line in printed.splitlines()]
    for row in reranked:
        assert {hit["id"] for hit in row["candidates"]} == {
            hit["id"] for hit in found if hit["query_id"] == row["query_id"]
        }


def test_a_run_holds_what_the_hits_say_with_filters_too(index: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"_id": "q1", "text": "horse"}\n{"_id": "q2", "text": "a song"}\n', encoding="utf-8"
    )
    for extra in (
        (),
        ("--where", "year > 2015"),
        ("--min-score", "0.2"),
        ("--mode", "hybrid", "--fusion", "ranks"),
    ):
        shown = hits(index, "--queries", tmp_path / "q.jsonl", *extra)
        invoke("search", index, "--queries", tmp_path / "q.jsonl", "--run", tmp_path / "out.trec", *extra)
        rows = [line.split() for line in (tmp_path / "out.trec").read_text(encoding="utf-8").splitlines()]
        assert [(row[0], row[2]) for row in rows] == [(hit["query_id"], hit["id"]) for hit in shown], extra
        assert [float(row[4]) for row in rows] == pytest.approx([hit["score"] for hit in shown])


def test_the_first_stage_can_be_left_a_say(index: Path, tmp_path: Path) -> None:
    model = write_tiny_cross_encoder(tmp_path / "reranker")
    alone = [hit["id"] for hit in hits(index, "the dog")]
    assert [hit["id"] for hit in hits(index, "the dog", "--rerank", model, "--rerank-weight", 0)] == alone
    both = hits(index, "the dog", "--rerank", model, "--rerank-weight", 0.5)
    assert [hit["score"] for hit in both] == sorted((hit["score"] for hit in both), reverse=True)  # type: ignore[type-var] # JSON
    assert all(0 <= hit["score"] <= 1 for hit in both)  # type: ignore[operator] # JSON


def test_reranking_orders_the_candidates_by_the_rerankers_scores(index: Path, tmp_path: Path) -> None:
    cross_encoder = write_tiny_cross_encoder(tmp_path / "reranker")
    for choice in (cross_encoder, "maxsim"):
        found = hits(index, "the dog", "--rerank", choice, "--candidates", 3)
        assert len(found) == 3
        scores = [hit["scores"]["rerank"] for hit in found]  # type: ignore[index] # JSON
        assert scores == sorted(scores, reverse=True)
        assert [hit["score"] for hit in found] == scores
    within = hits(index, "the dog", "--rerank", cross_encoder, "--rerank-budget", "2s")
    assert len(within) == 3


def test_another_model_is_refused(index: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    result = CliRunner().invoke(app, ["search", str(index), "dog", "--model", str(other)])
    assert result.exit_code == 1
    assert "weights is" in str(result.exception)


def test_a_filter_with_sql_in_it_is_an_error_and_harms_nothing(index: Path) -> None:
    result = CliRunner().invoke(
        app, ["search", str(index), "dog", "--where", "year > 2020; DROP TABLE documents"]
    )
    assert result.exit_code == 1
    assert len(hits(index, "dog")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dog", "--queries", "q.jsonl"), "exclude each other"),
        (("dog", "--run", "out.trec"), "--run goes with --queries"),
        (("dog", "--rerank-budget", "soon"), "not a time budget"),
        (("dog", "--dense-weight", "0", "--text-weight", "0"), "are both 0"),
        (("dog", "--min-score", "nan"), "'nan' is not a number"),
        (("dog", "--rerank-budget", "200ms"), "--rerank-budget goes with --rerank"),
        (("dog", "--rerank-weight", "0.5"), "--rerank-weight goes with --rerank"),
    ],
)
def test_wrong_usage_is_exit_code_2(index: Path, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["search", str(index), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two notes with its default index, in which we are."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "dog.txt").write_text("the dog runs", encoding="utf-8")
    (notes / "horse.md").write_text("# Horses\n\n```sh\n# a comment\nwalk\n```\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    invoke("index", ".", "--model", tiny_model)
    return tmp_path


@pytest.mark.parametrize("place", [".", "./", ".embedkit", "notes/..", None])
def test_a_folder_stands_for_its_default_index(folder: Path, place: str | None) -> None:
    path = str(folder) if place is None else place
    assert hits(path, "dog", "-k", 1, "--mode", "text")[0]["id"] == "notes/dog.txt"
    assert json.loads(invoke("index", "stats", path))["documents"] == 2


def test_a_path_that_is_no_index_is_not_taken_for_a_query(folder: Path) -> None:
    def refusal(*words: str) -> str:
        result = CliRunner().invoke(app, ["search", *words])
        assert isinstance(result.exception, EmbedkitError), result.output
        return str(result.exception)

    default = folder / ".embedkit" / "index"
    assert refusal("./notes", "dog") == (
        f"./notes: there is no index here. Leave it out to search {default}, or make one with: "
        "embedkit index build notes --index notes.index"
    )
    assert refusal("notes/dog.txt", "dog") == "notes/dog.txt: this is a file, not an index. Leave it out"
    assert "Build it with: embedkit index build INPUT --index my.index" in refusal("my.index", "dog")


def test_without_an_index_a_query_is_told_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["search", "heating"])
    assert str(result.exception).startswith("no index: 'heating' is none, and neither this folder nor")
    assert str(result.exception).endswith("Make one with: embedkit index .")


def test_a_query_of_another_script_is_searched_by_its_words_and_said(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The tokenizer has one token for all it does not know, so that unlike texts have one vector, and the cosine 1."""
    corpus = tmp_path / "a.txt"
    corpus.write_text("the dog runs\nสุนัขวิ่งเร็ว\nวันนี้อากาศดีมาก\n", encoding="utf-8")
    index = tmp_path / "i"
    built = CliRunner().invoke(
        app,
        ["index", "build", str(corpus), "--text-unit", "line", "--index", str(index), "-m", str(tiny_model)],
    )
    assert "warning: 2 passages made of nothing that this model knows, as of another script. " in built.stderr
    found = CliRunner().invoke(app, ["search", str(index), "สุนัข", "--json"])
    assert [json.loads(line)["text"] for line in found.stdout.splitlines()] == ["สุนัขวิ่งเร็ว"]
    assert "warning: 1 query made of nothing that this model knows" in found.stderr
    assert "only their words were searched" in found.stderr
    assert hits(index, "สุนัข", "--mode", "dense") == []


def test_blank_lines_among_queries_find_nothing(index: Path) -> None:
    assert {hit["query_id"] for hit in hits(index, stdin="\n \nhorse\n")} == {"stdin:3"}


def test_a_comment_of_code_is_no_heading(folder: Path) -> None:
    from cli.search.hits import _folded, _is_markdown

    def shown(text: str, *, markdown: bool) -> list[str]:
        lines = [Text(line) for line in text.split("\n")]
        return [line.plain for line in _folded(lines, 80, markdown=markdown)]

    code = "# Horses\n```sh\n# a comment\n```\n## Feeding ##"
    assert shown(code, markdown=True) == ["Horses", "```sh", "# a comment", "```", "Feeding"]
    assert shown("# a comment", markdown=False) == ["# a comment"]
    assert [
        _is_markdown(Hit("a", 0.5, source=name)) for name in ("/n/a.md", "/n/a.MD.gz", "/n/a.py", "")
    ] == [*(True, True, False, False)]
