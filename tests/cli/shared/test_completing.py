"""What a shell offers for the word at hand, through the script that `--show-completion` prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.data.records import Document
from embedkit.recipe import preset_names
from indexes.storage.layout import DATABASE_NAME
from tests.indexes.fakes import create, embed
from tests.indexes.sharded.joined import join


def environment(*words: str) -> dict[str, str]:
    """Return what bash's script sets: the words of the line, and the number of the one to complete."""
    return {
        "COMP_WORDS": "\n".join(["embedkit", *words]),
        "COMP_CWORD": str(len(words)),
        "_EMBEDKIT_COMPLETE": "complete_bash",
    }


def offered(*words: str) -> list[str]:
    found: Any = CliRunner().invoke(app, [], prog_name="embedkit", env=environment(*words))
    assert found.stderr == ""
    return [line for line in found.stdout.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two indexes, a default one, a model and training rows."""
    monkeypatch.chdir(tmp_path)
    for name, field in (("my.index", "year"), ("other.index", "pages"), (".embedkit/index", "lang")):
        with create(tmp_path / name) as index:
            index.add([Document("d", "word", "", {field: 1, "a b": 2})], embed(["word"]))
    join(tmp_path / "big.index", [tmp_path / "my.index", tmp_path / "other.index"])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "a", "answer": "b"}), encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("search my.index cat --where y", ["year"]),
        ("search my.index cat --where ''", ['"a b"', "year", "id", "title", "text", "source"]),
        ("search cat --where la", ["lang"]),
        ("index delete other.index --where p", ["pages"]),
        ("index delete --index=other.index --where p", ["pages"]),
        ("search my.index cat --where year>2", []),
        ("search big.index cat --where y", ["year"]),
    ],
)
def test_where_offers_the_fields_of_the_index_at_hand(words: str, found: list[str]) -> None:
    assert offered(*(word if word != "''" else "" for word in words.split())) == found


@pytest.mark.usefixtures("folder")
def test_a_filter_goes_on_with_a_field() -> None:
    assert offered("search", "my.index", "cat", "--where", "\"lang = 'x y' and ye") == [
        "lang = 'x y' and year"
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("search m", ["my.index"]),
        ("search ./", ["./big.index", "./my.index", "./other.index"]),
        ("search my.index o", []),  # a query
        ("index verify o", ["other.index"]),
        ("index merge my.index o", ["other.index"]),
        (
            "encode x --model emb",
            ["embedkit-rerank-small", "embedkit-small", "embedkit-static", "embedkit-tiny"],
        ),
        ("encode x -m m", ["model"]),
        ("encode x -m e", ["embedkit-rerank-small", "embedkit-small", "embedkit-static", "embedkit-tiny"]),
        ("search my.index x --rerank m", ["maxsim", "model"]),
        ("compare bm25 embedkit-small:h", ["embedkit-small:hybrid"]),
        ("compare a b --metric ndcg_exp@2", ["ndcg_exp@2"]),
        ("evaluate retrieval x --metric mr", ["mrr@10", "mrr"]),
        ("recipes show ti", ["tiny"]),
        ("train mlm x --preset va", ["vaswani"]),
        ("train distill x --recipe d", ["distill", "distill-three-layers"]),
        ("train distill x --recipe ti", []),  # of another task
        ("train reranker x --loss soft", ["softmax"]),
        ("train contrastive rows.jsonl --column first=q", ["first=question"]),
        ("train generation rows.jsonl --column target=q", ["target=question"]),
        ("encode rows.jsonl --text-field a", ["answer"]),
        ("evaluate similarity rows.jsonl --columns question,a", ["question,answer"]),
        ("encode nothing.jsonl --text-field a", []),
        ("train plot empty --metric l", []),
        ("encode x --precision bf", ["bf16"]),
    ],
)
def test_words_are_offered_by_what_stands_there(words: str, found: list[str]) -> None:
    assert sorted(offered(*words.split())) == sorted(found)


def test_all_recipes_are_offered_to_be_shown() -> None:
    assert offered("recipes", "copy", "") == preset_names()


def test_the_measures_of_a_run_are_offered(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    entry = {"kind": "evaluated", "step": 1, "values": {"loss": 1, "sts spearman": 0.5}, "best": True}
    (tmp_path / "training" / "log.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    assert offered("train", "plot", str(tmp_path), "--metric", "s") == ["sts spearman"]


def test_what_fails_offers_nothing_and_says_nothing(folder: Path) -> None:
    (folder / "my.index" / DATABASE_NAME).write_bytes(b"no database")
    assert offered("search", "my.index", "x", "--where", "") == []
    program = [sys.executable, "-c", "import sys; sys.argv = ['embedkit']; from cli.main import run; run()"]
    wrong = environment("search") | {"COMP_CWORD": "none"}
    done = subprocess.run(program, env=os.environ | wrong, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_neither_torch_nor_faiss_is_loaded_for_a_field(folder: Path) -> None:
    program = """
import sys, cli.main
sys.argv = ["embedkit"]
try: cli.main.run()
except SystemExit: pass
sys.exit(str(sorted({"torch", "faiss", "tokenizers", "rich"} & set(sys.modules))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment("search", "my.index", "x", "--where", "y"),
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b"[]\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_through_the_script(folder: Path) -> None:
    """The function that the script defines, called as bash calls it."""
    command = folder / "bin" / "embedkit"
    command.parent.mkdir()
    run = "import sys; sys.argv[0] = 'embedkit'; from cli.main import run; run()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{run}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    script = """
eval "$(embedkit --show-completion bash)"
COMP_WORDS=(embedkit search my.index cat --where y); COMP_CWORD=5
_embedkit_completion embedkit; echo "${COMPREPLY[@]}"
"""
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "year\n", done.stderr
