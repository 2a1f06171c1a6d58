"""`embedkit index`: what a user sees of building, changing and checking an index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.index import _cell
from cli.main import app
from indexes import Index
from tests.tiny import write_tiny_model

ROWS = [
    {"id": "guitar", "title": "Music", "text": "a girl plays the guitar on the beach", "year": 2020},
    {"id": "dog", "title": "Animals", "text": "the dog runs and the cat sleeps", "year": 2022},
    {"id": "horse", "title": "Animals", "text": "a man walks with a horse", "year": 2023},
]


def invoke(*arguments: object, exit_code: int = 0, stdin: str | None = None) -> str:
    """Run a command and return what it printed on standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result.stdout


def summary(*arguments: object) -> dict[str, object]:
    """Run a command with --json and return its one line."""
    parsed = json.loads(invoke(*arguments, "--json"))
    assert isinstance(parsed, dict)
    return parsed


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def index(tmp_path: Path, corpus: Path, tiny_model: Path) -> Path:
    path = tmp_path / "my.index"
    invoke("index", "build", corpus, "--index", path, "--model", tiny_model)
    return path


def test_the_same_build_again_embeds_nothing_and_a_changed_document_alone(corpus: Path, index: Path) -> None:
    found = summary("index", "build", corpus, "--index", index) | {"seconds": 0}
    assert (found.pop("precision"), found.pop("device")) == ("fp32", "cpu")
    model = (found.pop("model"), found.pop("backend"), found.pop("backend_reason"))
    assert all(isinstance(value, str) for value in model)
    assert found == {
        "index": str(index),
        "read": 3,
        "added": 0,
        "updated": 0,
        "unchanged": 3,
        "deleted": 0,
        "gone": 0,
        "empty": 0,
        "unknown": 0,
        "passages": 0,
        "truncated": 0,
        "left_out": {},
        "encodings": {},
        "failed": [],
        "vectors": 3,
        "seconds": 0,
    }
    corpus.write_text(corpus.read_text(encoding="utf-8").replace("a horse", "two cats"), encoding="utf-8")
    again = summary("index", "build", corpus, "--index", index)
    assert (again["updated"], again["unchanged"], again["passages"]) == (1, 2, 1)


def test_sync_deletes_documents_that_are_no_longer_in_the_input(corpus: Path, index: Path) -> None:
    corpus.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    assert summary("index", "build", corpus, "--index", index)["deleted"] == 0
    assert summary("index", "build", corpus, "--index", index, "--sync")["deleted"] == 2


def test_a_folder_gives_a_document_a_file_and_long_ones_are_cut_into_passages(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "short.md").write_text("# Dogs\n\nthe dog runs", encoding="utf-8")
    (folder / "long.txt").write_text("The cat sleeps on the red ball. " * 20, encoding="utf-8")
    report = summary("index", "build", folder, "--index", tmp_path / "i", "--model", tiny_model)
    assert report["added"] == 2
    assert isinstance(report["passages"], int)
    assert report["passages"] > 5
    assert report["truncated"] == 0  # the passages leave room for the special tokens


def test_a_folder_is_walked_as_git_and_people_see_it(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "run.py").write_text("the dog runs", encoding="utf-8")
    (folder / "old.txt").write_bytes("die Tür und das Öl für den Käufer".encode("cp1252"))
    (folder / "made.log").write_text("the cat", encoding="utf-8")
    (folder / ".hidden.md").write_text("a horse", encoding="utf-8")
    (folder / ".gitignore").write_text("*.log\n", encoding="utf-8")
    (folder / "x.bin").write_bytes(b"\0\1")
    model = ("--model", tiny_model)
    built = summary("index", "build", folder, "--index", tmp_path / "i", *model)
    assert (built["read"], built["failed"], built["encodings"]) == (2, [], {"cp1252": 1})
    assert built["left_out"] == {"*.bin": 1, "hidden files": 2, "files that ignore files name": 1}
    every = summary("index", "build", folder, "--index", tmp_path / "j", *model, "--no-ignore", "--hidden")
    assert every["read"] == 5
    hits = invoke("search", tmp_path / "i", "the dog runs", "--json", "-k", 1)
    assert json.loads(hits)["where"] == f"{folder}/run.py:1"
    assert json.loads(hits)["place"] == {"lines": [1, 1]}


def test_documents_without_text_are_counted_and_never_found(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, content in {
        "dog.md": "# Dog\nthe dog runs",
        "cat.md": "",
        "horse.html": "<p> </p>",
        "girl.txt": "",
        "man.txt": "  \n\n",
        "rows.jsonl": '{"text": ""}\n{"text": " ", "title": ""}\n',
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    path = tmp_path / "notes.index"
    built = summary("index", "build", folder, "--index", path, "--model", tiny_model, "--text-unit", "file")
    assert (built["read"], built["empty"], built["passages"], built["vectors"]) == (7, 6, 1, 1)
    for mode in ("dense", "text", "hybrid"):
        found = invoke("search", path, "cat horse girl man dog", "--mode", mode, "--json").splitlines()
        assert [json.loads(hit)["title"] for hit in found] == ["Dog"], mode


def test_ready_vectors_make_an_index_without_a_model(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    arguments = ("index", "build", "--vectors", tmp_path / "x.npy", "--ids", tmp_path / "ids.txt")
    assert summary(*arguments, "--index", tmp_path / "i")["vectors"] == 4
    result = CliRunner().invoke(app, ["search", str(tmp_path / "i"), "anything"])
    assert "which encoder made them is not known" in str(result.exception)


def test_another_model_is_refused_with_the_field_that_differs(
    tmp_path: Path, corpus: Path, index: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    result = CliRunner().invoke(
        app, ["index", "add", str(corpus), "--index", str(index), "--model", str(other)]
    )
    assert result.exit_code == 1
    assert "was built by another encoder: weights is" in str(result.exception)


def test_delete_by_id_by_filter_and_from_a_pipe(index: Path) -> None:
    deleted = summary("index", "delete", "--index", index, "guitar", "nobody")
    assert deleted == {"deleted": 1, "missing": ["nobody"]}
    assert summary("index", "delete", "--index", index, "--where", "year > 2022")["deleted"] == 1
    assert (
        "1 document deleted"
        in CliRunner().invoke(app, ["index", "delete", "-i", str(index), "-"], input="dog\n").output
    )
    assert json.loads(invoke("index", "stats", "--index", index))["documents"] == 0
    none = json.loads(invoke("index", "delete", "-i", index, "-", "--json", stdin=""))
    assert none == {"deleted": 0, "missing": []}  # a script's list may be empty


def test_verify_says_where_the_damage_is_and_repair_makes_it_clean(index: Path) -> None:
    invoke("index", "verify", "--index", index)
    segment = next((index / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(bytes(content))
    assert segment.name in invoke("index", "verify", "--index", index, exit_code=1)
    invoke("index", "repair", "--index", index)
    invoke("index", "verify", "--index", index)


def test_export_merge_compact_and_tune(tmp_path: Path, index: Path, tiny_model: Path) -> None:
    invoke("index", "export", "--index", index, "--output", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (3, 32)
    assert (tmp_path / "out.ids.txt").read_text(encoding="utf-8").split() == ["guitar", "dog", "horse"]
    more = tmp_path / "more.jsonl"
    more.write_text(
        "".join(json.dumps({"id": f"n{i}", "text": f"word {i} ball"}) + "\n" for i in range(60)),
        encoding="utf-8",
    )
    invoke("index", "build", more, "--index", tmp_path / "more", "--model", tiny_model, "--kind", "hnsw")
    tuned = summary(
        "index", "tune", "--index", tmp_path / "more", "--target-recall", "0.9", "--num-queries", "20"
    )
    assert tuned["reached"] is True
    invoke("index", "stats", "--index", tmp_path / "more", "--plot", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    invoke("index", "merge", tmp_path / "more", "--index", index)
    invoke("index", "delete", "--index", index, "n1", "n2")
    assert summary("index", "compact", "--index", index)["dropped"] == 2
    assert json.loads(invoke("index", "stats", "--index", index))["vectors"] == 61


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("index", "build", "--index", "i"), "name an INPUT"),
        (("index", "build", "--index", "i", "--vectors", "x.npy"), "--vectors and --ids go together"),
        (("index", "delete", "--index", "i"), "name ids"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2
    assert message in result.output


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["index", "stats", "--index", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "Make an index with: embedkit index build" in str(result.exception)


def test_parquet_metadata_of_every_kind_can_be_filtered_or_is_refused_by_its_place(
    tmp_path: Path, tiny_model: Path
) -> None:
    import datetime
    from decimal import Decimal

    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "text": ["a cat", "a dog"],
            "when": [datetime.datetime(2024, 1, 1), None],
            "price": [Decimal("1.50"), Decimal("12.00")],
            "tags": [["pets"], []],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    folder = tmp_path / "my.index"
    invoke("index", "build", tmp_path / "a.parquet", "--index", folder, "--model", tiny_model)
    where = "when < '2024-02' and price = 1.5 and 'pets' in tags"
    (line,) = invoke("search", folder, "cat", "--where", where, "--json").splitlines()
    assert json.loads(line)["metadata"] == {"when": "2024-01-01T00:00:00", "price": 1.5, "tags": ["pets"]}
    pyarrow.parquet.write_table(table.append_column("blob", [[b"x", b"y"]]), tmp_path / "b.parquet")
    arguments = [
        "index",
        "build",
        tmp_path / "b.parquet",
        "--index",
        tmp_path / "b.index",
        "--model",
        tiny_model,
    ]
    refused = CliRunner().invoke(app, list(map(str, arguments)))
    assert "b.parquet:1: the field 'blob' is of the type bytes" in str(refused.exception)


def test_export_to_parquet_and_to_faiss(tmp_path: Path, index: Path) -> None:
    import faiss
    import pyarrow.parquet

    invoke("index", "export", "--index", index, "--output", tmp_path / "all.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert (rows[0]["id"], json.loads(rows[0]["metadata"])) == ("guitar", {"year": 2020})
    assert len(rows[0]["vector"]) == 32
    invoke("index", "export", "--index", index, "--output", tmp_path / "plain.faiss")
    assert faiss.read_index(str(tmp_path / "plain.faiss")).ntotal == 3


def test_files_that_are_gone_are_counted_until_sync_takes_them_out(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(f"the {name} runs", encoding="utf-8")
    (tmp_path / "blank.txt").write_text("\n", encoding="utf-8")
    built = CliRunner().invoke(app, ["index", ".", "--model", str(tiny_model)])
    assert (
        "warning: 1 document without text, which no search can find; the first is blank.txt" in built.stderr
    )
    assert (tmp_path / ".embedkit" / ".gitignore").read_text(encoding="utf-8") == "*\n"
    (tmp_path / "a.txt").unlink()
    again = CliRunner().invoke(app, ["index", "."])
    first, second = again.stderr.splitlines()
    assert first.endswith(f"/.embedkit/index: 3 unchanged; 3 vectors, model {tiny_model}")
    assert second == "gone from these inputs, but still in the index: 1 document; delete with --sync"
    assert summary("index", ".")["gone"] == 1
    assert summary("index", "b.txt")["gone"] == 0  # who names a file says nothing of the others
    assert (summary("index", ".", "--sync")["deleted"], summary("index", ".")["gone"]) == (1, 0)


def test_a_document_is_deleted_by_the_path_that_its_hit_shows(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a file that is there was taken for that of an index."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("the dog runs", encoding="utf-8")
    invoke("index", ".", "--model", tiny_model)
    assert summary("index", "delete", "notes/a.txt") == {"deleted": 1, "missing": []}


def test_a_build_of_nothing_leaves_no_folder_behind(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("{}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["index", "a.jsonl", "--model", str(tiny_model)])
    assert "missing key 'text'" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_stats_name_the_model_and_shorten_what_nobody_reads(index: Path, tiny_model: Path) -> None:
    assert json.loads(invoke("index", "stats", index))["model"] == str(tiny_model)
    assert _cell({"weights": "a1" * 32, "pooling": "mean"}) == "weights a1a1a1a1a1a1…, pooling mean"


def test_a_recall_that_cannot_be_measured_is_refused_before_anything_is_embedded(
    tmp_path: Path, corpus: Path, index: Path, tiny_model: Path
) -> None:
    """Embedding may take hours, and the refusal would come after it."""
    build = ["index", "build", str(corpus), "--model", str(tiny_model), "--target-recall", "0.9"]
    for more in ([], ["--kind", "flat"]):
        result = CliRunner().invoke(app, [*build, "--index", str(tmp_path / "new"), *more])
        assert result.exit_code == 1
        assert "searched exactly, so there is nothing to tune" in str(result.exception)
        assert not (tmp_path / "new").exists()


def test_another_overlap_than_that_of_the_index_is_refused(tmp_path: Path, corpus: Path, index: Path) -> None:
    overlapping = ["index", "build", str(corpus), "--index", str(index), "--chunk-overlap", "3"]
    result = CliRunner().invoke(app, overlapping)
    assert "chunk_overlap is 15 there and 3 here" in str(result.exception)
    invoke(*overlapping[:-1], 32)


def test_passages_that_would_share_more_than_half_are_refused(
    tmp_path: Path, corpus: Path, tiny_model: Path
) -> None:
    """It had been cut to half of a passage in silence."""
    build = ["index", "build", str(corpus), "--model", str(tiny_model), "--index", str(tmp_path / "i")]
    result = CliRunner().invoke(app, [*build, "--chunk-tokens", "12", "--chunk-overlap", "7"])
    assert result.exit_code == 2
    assert "--chunk-overlap is 7; it must be at most half of a passage, 6 of 12" in result.output
    assert not (tmp_path / "i").exists()
    invoke(*build, "--chunk-tokens", 12, "--chunk-overlap", 6)
    assert Index.open(tmp_path / "i").settings.cutting == {"chunk_tokens": 12, "chunk_overlap": 6}


def test_ready_vectors_go_without_what_only_documents_have(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    (tmp_path / "ids.txt").write_text("a\nb\nc\n", encoding="utf-8")
    vectors = ["--vectors", str(tmp_path / "v.npy"), "--ids", str(tmp_path / "ids.txt")]
    invoke("index", "build", *vectors, "--index", tmp_path / "i")
    for command in ("build", "add"):
        for option, reason in (
            (["--model", "embedkit-small"], "--model and --vectors exclude each other"),
            (["--sync"], "--sync goes with INPUT"),
        ):
            result = CliRunner().invoke(
                app, ["index", command, *vectors, "--index", str(tmp_path / "i"), *option]
            )
            assert result.exit_code == 2
            assert reason in " ".join(result.output.split())
    (tmp_path / "c.jsonl").write_text('{"id": "d", "text": "a dog"}\n', encoding="utf-8")
    result = CliRunner().invoke(app, ["index", "add", str(tmp_path / "c.jsonl"), "-i", str(tmp_path / "i")])
    assert "was built from ready vectors: which model made them is not known" in str(result.exception)
