"""The tools' answers: places, budgets, what is refused; and how a folder is kept up to date while calls come and go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedkit.data.records import Document
from embedkit.errors import EmbedkitError, RecordError
from embedkit.pipelines.grep.budget import count_tokens
from embedkit.pipelines.grep.home import DEFAULT
from embedkit.pipelines.searching import open_search
from embedkit.retrieval.options import SearchOptions
from embedkit.serving.mcp.folder import FolderOptions, ServedFolder
from embedkit.serving.mcp.index import IndexOptions, ServedIndex
from embedkit.serving.mcp.served import CallCancelledError
from embedkit.serving.mcp.tools import Defaults, split_place, tools_for
from embedkit.types import Computing
from indexes import Index, Settings, build
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.serving.indexes.served_indexes import build as served_index
from tests.serving.indexes.served_indexes import numbered
from tests.tiny_multi_vector import write_tiny_multi_vector

FILES = {
    "animals.md": "# Animals\n\nthe dog runs\n\n## Cats\n\nthe cat sleeps\n",
    "music/play.py": "def play():\n    return 'guitar'\n",
    "music/song.txt": "a woman sings a song\n",
    ".env": "PASSWORD=secret\n",
    "ignored.txt": "the dog\n",
    ".gitignore": "ignored.txt\n",
}


class StillWanted:
    """A call that is cancelled after so many looks."""

    def __init__(self, looks: int = 10**9) -> None:
        self.looks = looks
        self.told: list[str] = []

    @property
    def cancelled(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.told.append(message)


@pytest.fixture
def work(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1e9, 1e9 + 0.5))
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMBEDKIT_MODEL", str(tiny_model))
    return tmp_path / "work"


def served(path: Path, **options: Any) -> ServedFolder:  # Any: FolderOptions' own
    wanted: dict[str, Any] = {"walking": DEFAULT, "computing": Computing(device="cpu")} | options
    return ServedFolder(path, FolderOptions(**wanted))


@pytest.fixture
def folder(work: Path) -> Iterator[ServedFolder]:
    made = served(work)
    yield made
    made.close()


def ask(
    served: ServedFolder | ServedIndex, tool: str, call: StillWanted | None = None, **arguments: object
) -> str:
    (found,) = [each for each in tools_for(served, Defaults()) if each.name == tool]
    return found.run(arguments, call or StillWanted())


def test_a_search_builds_the_index_and_shows_passages_under_their_places(folder: ServedFolder) -> None:
    assert "no index yet" in ask(folder, "status")
    answer = ask(folder, "search", query="cat sleeps", mode="text")
    heading, text, *_ = answer.split("\n")
    where, score, title = heading.split("  ")
    assert (where, title, text) == ("animals.md:1-7", "Animals", "# Animals")
    assert float(score.removeprefix("score ")) > 0
    assert "3 files, " in ask(folder, "status")
    assert "play.py" in ask(folder, "search", query="guitar dog song", mode="text", type="py,rs")
    assert "play.py" not in ask(folder, "search", query="guitar dog song", mode="text", glob="!*.py")
    assert ask(folder, "search", query="zebra", mode="text") == "(Nothing was found.)"


def test_a_search_sees_what_has_changed(folder: ServedFolder, work: Path) -> None:
    ask(folder, "search", query="dog", mode="text")
    (work / "new.txt").write_text("the horse walks\n", encoding="utf-8")
    (work / "music" / "song.txt").unlink()
    assert ask(folder, "search", query="horse", mode="text").startswith("new.txt:1  score ")
    assert ask(folder, "search", query="song", mode="text") == "(Nothing was found.)"


def test_without_time_it_says_what_it_has_not_seen(work: Path) -> None:
    ask(served(work), "search", query="dog", mode="text")
    (work / "new.txt").write_text("the horse walks\n", encoding="utf-8")
    late = served(work, refresh_seconds=0.0)
    assert "1 changed files are not seen yet" in ask(late, "search", query="horse", mode="text")


@pytest.mark.parametrize("tokens", [100, 150, 300, 1000])
def test_answers_fit_their_budget(work: Path, tokens: int) -> None:
    for number in range(12):
        text = "".join(f"the dog runs {number} {line}\n" for line in range(6))
        (work / f"long{number}.txt").write_text(text, encoding="utf-8")
    folder = served(work)
    answer = ask(folder, "search", query="dog runs", mode="text", tokens=tokens)
    assert "score" in answer
    assert count_tokens(answer) <= tokens
    assert count_tokens(ask(folder, "similar", text="the dog", tokens=tokens)) <= tokens
    (work / "wide.txt").write_text("word " * 2000 + "\n" + "line\n" * 5000, encoding="utf-8")
    for lines in ("1-", "2-"):
        part = ask(folder, "get", path="wide.txt", lines=lines, tokens=tokens)
        assert count_tokens(part) <= tokens
        assert "go on with lines" in part


def test_get_reads_lines_of_what_is_searched_and_nothing_else(folder: ServedFolder, work: Path) -> None:
    assert ask(folder, "get", path="animals.md:5-7") == "animals.md:5-7 of 7 lines\n## Cats\n\nthe cat sleeps"
    assert ask(folder, "get", path="animals.md", lines="7") == "animals.md:7 of 7 lines\nthe cat sleeps"
    assert ask(folder, "get", path=str(work / "animals.md"), lines="6-").endswith("\n\nthe cat sleeps")
    for path in (".env", "ignored.txt", ".git/config"):
        (work / ".git").mkdir(exist_ok=True)
        (work / ".git" / "config").write_text("x\n", encoding="utf-8")
        with pytest.raises(RecordError, match="is left out of what is served"):
            ask(folder, "get", path=path)
    with pytest.raises(RecordError, match=r"has lines 1 to 7; wanted 9 to 7"):
        ask(folder, "get", path="animals.md:9-12")
    with pytest.raises(RecordError, match="lines is 'x'; it must be a line or a range"):
        ask(folder, "get", path="animals.md", lines="x")
    with pytest.raises(RecordError, match=r"\.\. is not followed"):
        ask(folder, "get", path="../work/animals.md:3")


def test_what_links_lead_to_is_neither_read_nor_found(work: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("the horse walks\n", encoding="utf-8")
    (work / "link.txt").symlink_to(tmp_path / "outside.txt")
    folder = served(work)
    assert "horse" not in ask(folder, "search", query="horse", mode="text")
    with pytest.raises(RecordError, match="links are not followed"):
        ask(folder, "get", path="link.txt")


def test_similar_finds_others_than_the_passage_itself(folder: ServedFolder, work: Path) -> None:
    (work / "twin.txt").write_text("a woman sings a song\n", encoding="utf-8")
    near = ask(folder, "similar", place="music/song.txt:1", k=3)
    assert "twin.txt:1  score " in near
    assert "song.txt" not in near
    assert near.count("  score ") == 3  # all but the passage itself
    assert ask(folder, "similar", text="a woman sings a song", k=2).count("a woman sings a song") == 2
    with pytest.raises(RecordError, match=r"no passage stands at this line. There is text in lines 1 to 1"):
        ask(folder, "similar", place="twin.txt:9")
    with pytest.raises(RecordError, match="is not in the index"):
        ask(folder, "similar", place="nowhere.txt:1")
    wrongs: list[dict[str, Any]] = [{}, {"place": "a", "text": "b"}]
    for wrong in wrongs:
        with pytest.raises(RecordError, match="name either a place"):
            ask(folder, "similar", **wrong)


def test_a_part_of_a_folder_that_has_an_index_shows_and_reads_that_part(
    folder: ServedFolder, work: Path
) -> None:
    ask(folder, "search", query="dog", mode="text")
    part = served(work / "music")
    assert part.home.path == folder.home.path
    answer = ask(part, "search", query="guitar dog song", mode="text")
    assert "song.txt:1  " in answer
    assert "animals" not in answer
    assert ask(part, "search", query="guitar song", mode="text", glob="./*.py".removeprefix(".")).startswith(
        "play.py"
    )
    assert ask(part, "get", path="song.txt") == "song.txt:1 of 1 lines\na woman sings a song"
    assert ask(part, "similar", place="song.txt:1").startswith("play.py")
    with pytest.raises(RecordError, match=r"\.\. is not followed"):
        ask(part, "get", path="../animals.md")
    one = served(work / "music" / "song.txt")
    assert ask(one, "search", query="song guitar", mode="text").startswith("song.txt:1  ")
    with pytest.raises(RecordError, match="left out of what is served"):
        ask(one, "get", path="play.py")


def test_a_call_that_waits_too_long_for_the_first_build_answers_from_what_is_there(
    folder: ServedFolder, work: Path
) -> None:
    hasty = served(work, first_seconds=0.3)
    hasty.home.make()
    with hasty.home.held():  # as another process that is at it
        answer = ask(hasty, "search", query="cat", mode="text")
        assert answer.startswith("The index of this folder is being built: the files are being listed.")
        assert "being built" in ask(hasty, "status")
    patient = served(work)
    assert ask(patient, "search", query="cat", mode="text").startswith("animals.md:1-7")


def test_a_cancelled_call_stops_the_build_that_nobody_else_waits_for_and_the_next_goes_on(work: Path) -> None:
    folder = served(work)
    folder.home.make()
    with folder.home.held():
        with pytest.raises(CallCancelledError):
            ask(folder, "search", StillWanted(looks=3), query="cat", mode="text")
        build = folder._build
        assert build is not None
        assert build.was_stopped
    assert ask(folder, "search", query="cat", mode="text").startswith("animals.md:1-7")


def test_a_cancelled_call_leaves_its_turn_and_its_refresh(folder: ServedFolder, work: Path) -> None:
    ask(folder, "search", query="dog", mode="text")
    (work / "new.txt").write_text("the horse walks\n", encoding="utf-8")
    with pytest.raises(CallCancelledError):
        ask(folder, "search", StillWanted(looks=0), query="horse", mode="text")
    assert ask(folder, "search", query="horse", mode="text").startswith("new.txt:1")


def test_where_nothing_can_be_kept_it_answers_all_the_same_and_says_so(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "file"))
    folder = served(work)
    answer = ask(folder, "search", query="cat", mode="text")
    assert answer.startswith("animals.md:1-7")
    assert "The index is not kept when this server ends" in answer
    kept = folder.home.path
    folder.close()
    assert not kept.exists()


def test_a_folder_without_text_is_an_error_each_time(tmp_path: Path, work: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = served(tmp_path / "empty")
    for _ in range(2):
        with pytest.raises(RecordError, match="there is no text to search"):
            ask(folder, "search", query="cat")


@pytest.fixture
def index(tmp_path: Path, tiny_model: Path) -> ServedIndex:
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder

    encoder = Encoder.load(tiny_model, device="cpu", precision="fp32")
    documents = [
        Document("a", "the dog runs\nthe cat sleeps"),
        Document("b", "a woman sings a song", title="Song"),
    ]
    settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
    with Index.create(tmp_path / "x.index", settings) as made:
        list(build(made, iter(documents), embed=Embedder(encoder, "document")))
        made.note_model_path(str(tiny_model))
    return ServedIndex(tmp_path / "x.index", IndexOptions(computing=Computing(device="cpu")))


def test_an_index_is_served_by_the_ids_of_its_documents(index: ServedIndex) -> None:
    assert ask(index, "search", query="song", mode="text").startswith("b  score ")
    assert "b" in ask(index, "search", query="song")
    assert ask(index, "get", path="a", lines="2") == "a:2 of 2 lines\nthe cat sleeps"
    assert ask(index, "similar", place="a", k=1).startswith("b  score ")
    assert "2 documents, 2 passages" in ask(index, "status")
    with pytest.raises(EmbedkitError, match="there is no such document here"):
        ask(index, "get", path="/etc/passwd")


@pytest.mark.parametrize("kind", ["multi-vector", "sparse", "table"])
def test_an_index_of_another_kind_is_served_as_a_local_search_finds_it(tmp_path: Path, kind: str) -> None:
    if kind == "multi-vector":
        model = write_tiny_multi_vector(tmp_path / "model")
    else:
        model = write_tiny_sparse(tmp_path / "model", weigh_queries=kind == "table")
    here = served_index(tmp_path / "x.index", numbered(20), model)
    index = ServedIndex(here, IndexOptions(computing=Computing(device="cpu", precision="fp32")))
    for mode in ("dense", "hybrid"):
        wanted = SearchOptions(mode=mode, k=3)
        with open_search(here, wanted, Computing(device="cpu", precision="fp32"), interactive=True) as opened:
            local = opened.retriever.search(["the girl and a dog"], wanted)[0]
        answer = ask(index, "search", query="the girl and a dog", mode=mode, k=3)
        headings = [line.split("  ")[:2] for line in answer.split("\n") if "  score " in line]
        assert headings == [[hit.doc_id, f"score {hit.score:.2f}"] for hit in local]
    assert "song" in ask(index, "get", path="old/7")
    alike = ask(index, "similar", place="old/7", k=3)
    assert "score" in alike
    assert not alike.startswith("old/7 ")
    assert ask(index, "similar", text="the dog and a song", k=1).count("score") == 1
    what = "vectors, one for each token" if kind == "multi-vector" else "weights of terms"
    assert f"{what}: " in ask(index, "status")


def test_an_index_that_became_one_of_another_kind_is_searched_with_its_model(
    tmp_path: Path, tiny_model: Path
) -> None:
    here = served_index(tmp_path / "x.index", numbered(9), tiny_model)
    index = ServedIndex(here, IndexOptions(computing=Computing(device="cpu")))
    assert "score" in ask(index, "search", query="the dog", mode="dense")
    shutil.rmtree(here)
    served_index(here, numbered(9), write_tiny_multi_vector(tmp_path / "model"))
    assert "score" in ask(index, "search", query="the dog", mode="dense")
    assert "one for each token" in ask(index, "status")


def test_places_are_read_as_search_names_them() -> None:
    assert split_place("a/b.py:3-9") == ("a/b.py", 3, 9)
    assert split_place("a:b.py:3") == ("a:b.py", 3, 3)
    assert split_place("a.py:10-") == ("a.py", 10, None)
    assert split_place("a.py") == ("a.py", None, None)
