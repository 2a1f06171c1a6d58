"""Every version of the format loads for ever."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from embedkit.data.places import Mark, Place
from embedkit.data.records import Document
from embedkit.errors import IndexFileError
from embedkit.retrieval.vectors import Vectors
from indexes import BuildReport, Index, build, compact, repair, stats, verify
from indexes.storage.codes import STORAGES, TOKEN_BITS
from indexes.storage.segment import Segment
from indexes.storage.segment_file import SegmentInfo
from tests.indexes.fakes import DIMENSION, embed, embed_tokens
from tests.indexes.make_format_fixture import FIXTURES, TEXTS

# The sparse one is read in tests/indexes/sparse/test_format.py.
FOLDERS = sorted(path.name for path in FIXTURES.iterdir() if path.name != "v4-sparse")


@pytest.mark.parametrize("name", FOLDERS)
def test_an_index_of_every_version_and_storage_is_searched_and_changed(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / "i"))
    assert list(verify(folder)) == []
    with Index.open(folder, writable=True) as index:
        assert index.settings.fingerprint == {"weights": "abc", "max_seq_length": 256}
        make: Callable[[Sequence[str]], Vectors] = embed if index.settings.kind == "dense" else embed_tokens
        for number, text in enumerate(["a", "b"]):
            hit = index.search(make([text]), k=1)[0][0]
            assert (hit.doc_id, hit.text, hit.metadata) == (f"d{number}", TEXTS[number], {"n": number})
            # int8's precision in 16 dimensions, and that of two bits a number
            assert hit.score == pytest.approx(1, abs=0.1 if name.endswith("-bit") else 0.02)
        hit = index.search(make(["d"]), k=1, exact=True)[0][0]
        assert (hit.doc_id, hit.passage, hit.text) == ("d2", 1, "It has two passages.")
        assert [hit.doc_id for hit in index.search_text(["notes"])[0]] == ["d0"]
        assert index.search_text(["deleted"])[0] == []
        assert [hit.doc_id for hit in index.search_text(["本"])[0]] == (
            [] if name.startswith("v1-") else ["d1"]
        )
        index.delete(["d0"])
    assert list(verify(folder)) == []


def found(index: Index, query: str) -> list[str]:
    return [hit.doc_id for hit in index.search_text([query])[0]]


def test_words_of_an_old_index_are_found_and_forgotten_as_they_were(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIXTURES / "v1-float32", tmp_path / "i"))
    with Index.open(folder, writable=True) as index:
        index.add([Document("zh", "数据库检索 naïve"), Document("straße", "Straße")], embed(["x", "y"]))
        assert stats(index).format_version == 1
        assert sorted(found(index, "naive")) == ["d1", "zh"]
        assert found(index, "straße") == ["straße"]
        assert found(index, "数据库") == []
        assert found(index, "数据库检索") == ["zh"]
        assert index.text_limits(["naive", "zebra"])[0] > 0
        index.delete(["zh"])
        assert found(index, "数据库检索") == []
    assert list(verify(folder)) == []


@pytest.mark.parametrize("how", ["compact", "repair"])
def test_compacting_or_repairing_an_old_index_brings_it_the_words_of_this_version(
    tmp_path: Path, how: str
) -> None:
    folder = Path(shutil.copytree(FIXTURES / "v1-float32", tmp_path / "i"))
    with Index.open(folder, writable=True) as index:
        index.add([Document("zh", "数据库检索")], embed(["x"]))
    with Index.open(folder) as reader:
        if how == "compact":
            with Index.open(folder, writable=True) as index:
                list(compact(index))
                assert found(index, "数据库") == ["zh"]
                index.add([Document("th", "ภาษาไทย")], embed(["y"]))
                index.delete(["zh"])
                assert (found(index, "ไทย"), found(index, "数据库")) == (["th"], [])
        else:
            list(repair(folder))
        # A reader goes on with what it saw, and sees the new words with the new state.
        assert (stats(reader).format_version, found(reader, "数据库检索")) == (1, ["zh"])
        reader.refresh()
        assert stats(reader).format_version == 3
        assert found(reader, "数据库") == ([] if how == "compact" else ["zh"])
        assert found(reader, "notes") == ["d0"]
    assert list(verify(folder)) == []


def lines(index: Index, doc_id: str) -> tuple[int, int] | None:
    (hit,) = (hit for hit in index.search_text(["dog"])[0] if hit.doc_id == doc_id)
    return None if hit.place is None else hit.place.lines


@pytest.mark.parametrize("how", ["compact", "repair"])
@pytest.mark.parametrize("version", [1, 2])
def test_an_old_index_learns_places_once_it_is_compacted_or_repaired(
    tmp_path: Path, version: int, how: str
) -> None:
    """Until then it is changed as before; then the next build stores places without a new vector."""
    folder = Path(shutil.copytree(FIXTURES / f"v{version}-float32", tmp_path / "i"))
    documents = [Document("new", "The dog.", source="/new.md", marks=(Mark(0, "lines", 7),))]

    def bring_up_to_date() -> BuildReport:
        with Index.open(folder, writable=True) as index:
            return list(build(index, documents, embed=embed))[-1]

    assert bring_up_to_date().added == 1
    with Index.open(folder) as index:
        assert (stats(index).format_version, lines(index, "new")) == (version, None)
    report = bring_up_to_date()
    assert (report.unchanged, report.passages) == (1, 0)
    if how == "compact":
        with Index.open(folder, writable=True) as index:
            list(compact(index))
    else:
        list(repair(folder))
    report = bring_up_to_date()
    assert (report.unchanged, report.passages) == (1, 0)
    with Index.open(folder) as index:
        assert (stats(index).format_version, lines(index, "new")) == (3, (7, 7))
        hit = index.search(embed(["a"]), k=1)[0][0]
        assert (hit.doc_id, hit.place) == ("d0", None)
    assert list(verify(folder)) == []


def test_the_places_of_version_3_are_read(tmp_path: Path) -> None:
    with Index.open(shutil.copytree(FIXTURES / "v3-float32", tmp_path / "i")) as index:
        (hit,) = (hit for hit in index.search(embed(["d"]), k=4)[0] if hit.passage == 1)
        assert hit.place == Place(lines=(4, 4), headings=("Title",))
        assert hit.where == "d2:4"


def test_there_is_a_fixture_of_every_storage() -> None:
    assert [f"v{version}-{storage}" for version in (1, 2, 3) for storage in sorted(STORAGES)] + [
        f"v4-{storage}" for storage in sorted(TOKEN_BITS)
    ] == FOLDERS


def test_a_file_of_random_bytes_is_no_segment(tmp_path: Path) -> None:
    path = tmp_path / "segments" / "000001.vectors"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * 8)
    info = SegmentInfo(path.name, first_row=1, rows=4, num_bytes=2048, checksum=7)
    with pytest.raises(IndexFileError, match="the header's checksum is not the database's"):
        Segment(path, info, "float32", DIMENSION)
    with pytest.raises(IndexFileError, match=r"2,048 bytes; the database says 2,049"):
        Segment(path, SegmentInfo(path.name, 1, 4, 2049, 7), "float32", DIMENSION)
