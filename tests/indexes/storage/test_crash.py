"""A kill at any moment leaves an index that is whole, holds every commit, and can be brought to the end."""

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import IndexFileError
from indexes import Index, build, build_ann, compact, verify
from tests.forking import Fork, Forking
from tests.full_disk import files_limited_to
from tests.indexes.fakes import create, documents, embed
from tests.indexes.storage.crashing import COUNT, EMBEDS, create_kind, work_on


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    """The processes that are killed are forks of one, which has loaded what they need."""
    server = Forking("tests.indexes.storage.crashing")
    yield server
    server.close()


def kill_after(process: Fork, seconds: float) -> list[str]:
    """SIGKILL some time after the process is ready; return the lines it printed."""
    assert process.line() == "ready"
    process.wait(seconds)
    return process.kill()


def found(index: Index) -> list[tuple[str, float]]:
    hits = index.search(EMBEDS[index.settings.kind](["anything at all"]), k=10 * COUNT, exact=True)[0]
    return [(hit.doc_id, hit.score) for hit in hits]


def crash_build(
    forking: Forking, tmp_path: Path, seconds: float, uninterrupted: list[tuple[str, float]], kind: str
) -> None:
    folder = tmp_path / f"build-{seconds:.4f}"
    lines = kill_after(forking.start(work_on, folder, "build", kind), seconds)
    committed = max([int(line.split()[1]) for line in lines if line.startswith("committed")], default=0)
    assert list(verify(folder)) == []
    with Index.open(folder, writable=True) as index:
        assert len(index) >= committed
        *_, report = build(index, documents(COUNT), embed=EMBEDS[kind], commit_every=8)
        assert report.unchanged >= committed
        assert found(index) == uninterrupted
    assert list(verify(folder)) == []


def crash_change(
    forking: Forking, tmp_path: Path, seconds: float, uninterrupted: list[tuple[str, float]], kind: str
) -> None:
    folder = tmp_path / f"change-{seconds:.4f}"
    create_kind(folder, kind, COUNT).close()
    kill_after(forking.start(work_on, folder, "change", kind), seconds)
    assert list(verify(folder)) == []
    with Index.open(folder) as index:
        # Each commit is whole: a third of the documents at a time comes, and thirty go, together.
        assert len(index) in {COUNT, COUNT - 30, COUNT - 10, COUNT - 20}
    with Index.open(folder, writable=True) as index:
        list(build(index, documents(COUNT), embed=EMBEDS[kind]))
        list(compact(index))
        # What the first commit says of token vectors decides how all later ones are told.
        assert found(index) == uninterrupted or kind == "multi-vector"
        query = EMBEDS[kind](["Title 9 " + documents(10)[9].text])
        assert [hit.doc_id for hit in index.search(query, k=1)[0]] == ["note-0009"]
    assert list(verify(folder)) == []
    names = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert len([name for name in names if name.endswith(".vectors")]) == 1


@pytest.fixture(params=["dense", "multi-vector", "sparse"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def uninterrupted(tmp_path: Path, kind: str) -> list[tuple[str, float]]:
    with create_kind(tmp_path / "whole", kind) as index:
        list(build(index, documents(COUNT), embed=EMBEDS[kind], commit_every=8))
        assert len(index) == COUNT
        return found(index)


def test_a_kill_loses_nothing_that_was_committed(
    forking: Forking, tmp_path: Path, uninterrupted: list[tuple[str, float]], kind: str
) -> None:
    moments = random.Random(5)
    for _ in range(6 if kind == "dense" else 3):
        crash_build(forking, tmp_path, moments.uniform(0, 0.25), uninterrupted, kind)
        crash_change(forking, tmp_path, moments.uniform(0, 0.6), uninterrupted, kind)


@pytest.mark.slow
def test_many_kills_lose_nothing_that_was_committed(
    forking: Forking, tmp_path: Path, uninterrupted: list[tuple[str, float]], kind: str
) -> None:
    moments = random.Random(6)
    for _ in range(25 if kind == "dense" else 10):
        crash_build(forking, tmp_path, moments.uniform(0, 0.3), uninterrupted, kind)
        crash_change(forking, tmp_path, moments.uniform(0, 1.5), uninterrupted, kind)


def test_a_creation_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    (folder / "index.sqlite.new").write_bytes(b"half a database")
    (folder / "index.lock").write_text("12345\n")
    create(folder, 3).close()
    assert list(verify(folder)) == []


def test_a_second_writer_is_refused_and_told_whom_to_wait_for(forking: Forking, tmp_path: Path) -> None:
    folder = tmp_path / "i"
    create(folder, COUNT).close()
    process = forking.start(work_on, folder, "change", "dense")
    assert process.line() == "ready"
    try:
        with pytest.raises(IndexFileError, match=rf"process {process.pid} is writing to this index"):
            Index.open(folder, writable=True)
        with Index.open(folder) as index:  # readers go on
            assert index.search(embed(["a"]), k=1)[0]
    finally:
        process.kill()
    Index.open(folder, writable=True).close()  # the lock died with its holder


def test_a_reader_sees_one_snapshot_while_a_writer_changes_everything(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    query = embed(["a"])
    with create(folder, 50) as writer, Index.open(folder) as reader:
        before = reader.search(query, k=50)
        words = reader.search_text(["topic 3"], k=50)
        writer.delete([doc.doc_id for doc in documents(25)])
        docs = documents(60, version=2)[40:]
        writer.add(docs, embed([doc.text for doc in docs]))
        list(compact(writer))  # the reader's segments are gone from the folder now
        np.testing.assert_equal(reader.search(query, k=50), before)
        assert reader.search_text(["topic 3"], k=50) == words
        assert len(writer.search(query, k=100)[0]) == 35
        reader.refresh()
        assert reader.search(query, k=100) == writer.search(query, k=100)


def test_a_reader_of_a_read_only_folder_searches_and_a_writer_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    create(folder, 5).close()
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with Index.open(folder) as index:
            assert len(index.search(embed(["a"]), k=9)[0]) == 5
        assert list(verify(folder)) == []
        if os.geteuid() != 0:  # root may write anywhere
            with pytest.raises(IndexFileError, match=r"cannot be written .*Check the permissions"):
                Index.open(folder, writable=True)
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def test_an_empty_log_does_not_keep_a_read_only_copy_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "i"
    create(folder, 5).close()
    (folder / "index.sqlite-wal").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with Index.open(folder) as index:
        assert len(index.search(embed(["a"]), k=9)[0]) == 5
        assert not (folder / "index.sqlite-shm").exists()  # which could not be written


@pytest.mark.parametrize("limit", [1_000, 60_000, 200_000])
def test_a_full_disk_is_said_so_and_loses_nothing(tmp_path: Path, limit: int) -> None:
    folder = tmp_path / "i"
    with create(folder, 30) as index:
        before = found(index)
        docs = documents(3000)
        with files_limited_to(limit), pytest.raises(IndexFileError, match=r"cannot be written|SQLite says"):
            index.add(docs, embed([doc.text for doc in docs]))
        assert found(index) == before
        index.add(docs, embed([doc.text for doc in docs]))  # the same writer goes on once there is room
        assert len(index) == 3000
    assert list(verify(folder)) == []


@pytest.mark.parametrize("left", [1, 4000])
def test_a_structure_that_does_not_fit_on_the_disk_leaves_the_one_before(tmp_path: Path, left: int) -> None:
    """Not even its last byte may be missing."""
    folder = tmp_path / "i"
    with create(folder, 300) as index:
        list(build_ann(index, "ivf-flat"))
        assert index.ann is not None
        before, name = names_of(folder), index.ann.info.name
        limit = index.ann.info.num_bytes - left
        with (
            files_limited_to(limit),
            pytest.raises(IndexFileError, match=r"cannot be written \(File too large\)"),
        ):
            list(build_ann(index, "ivf-flat"))
        assert names_of(folder) == before
        assert index.ann.info.name == name
    assert list(verify(folder)) == []


def names_of(folder: Path) -> list[str]:
    """List the files that hold vectors."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".faiss", ".vectors"))


def test_a_new_index_and_its_files_outlast_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder is flushed after a file in it has got its name."""
    folders: list[int] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            folders.append(status.st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    folder = tmp_path / "i"
    with create(folder) as index:
        assert folders == [folder.stat().st_ino]
        index.add(documents(30), embed([document.text for document in documents(30)]))
        assert folders[1:] == [(folder / "segments").stat().st_ino]
        list(build_ann(index, "ivf-flat"))
        assert folders[2:] == [folder.stat().st_ino]
