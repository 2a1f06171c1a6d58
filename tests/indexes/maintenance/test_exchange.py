"""Out of an index and into another: faiss files that faiss alone opens, numpy files, records, merging."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.errors import DeviceError, IndexFileError, IndexMismatchError, OutputError
from indexes import Index, build, export_faiss, export_npy, export_records, merge_indexes, verify
from tests.indexes.fakes import DIMENSION, create, documents, embed


def halves(title: str, text: str) -> list[tuple[int, int]]:
    return [(0, 5), (5, len(text))]


@contextmanager
def passages_index(folder: Path) -> Iterator[Index]:
    with create(folder) as index:
        list(
            build(
                index,
                [*documents(3), Document("short", "x")],
                embed=embed,
                split=lambda t, x: halves(t, x) if t else [],
            )
        )
        index.delete(["note-0001"])
        yield index


def test_an_exported_faiss_file_is_searched_by_faiss_alone(tmp_path: Path) -> None:
    import faiss

    with passages_index(tmp_path / "i") as index:
        exported = export_faiss(index, tmp_path / "out.faiss")
        query = embed(["a"])
        hits = index.search(query, k=5)[0]
    assert (exported.vectors, exported.dimension) == (5, DIMENSION)
    ids = (tmp_path / "out.ids.txt").read_text(encoding="utf-8").splitlines()
    assert ids == ["note-0000#0", "note-0000#1", "note-0002#0", "note-0002#1", "short"]
    plain = faiss.read_index(str(tmp_path / "out.faiss"))
    scores, rows = plain.search(query / np.linalg.norm(query), 5)
    assert [ids[row] for row in rows[0]] == [
        hit.doc_id if hit.doc_id == "short" else f"{hit.doc_id}#{hit.passage}" for hit in hits
    ]
    np.testing.assert_allclose(scores[0], [hit.score for hit in hits], rtol=1e-5, atol=1e-6)


def test_exported_numpy_vectors_make_the_same_index_again(tmp_path: Path) -> None:
    with create(tmp_path / "i", 20, storage="float16") as index:
        paths = export_npy(index, tmp_path / "out.npy").paths
        vectors = np.load(paths[0], allow_pickle=False)
        ids = paths[1].read_text(encoding="utf-8").splitlines()
        assert vectors.shape == (20, DIMENSION)
        assert vectors.dtype == np.float32
        query = embed(["q"])
        order = [hit.doc_id for hit in index.search(query, k=20)[0]]
    assert [ids[row] for row in np.argsort(-(vectors @ query[0]), kind="stable")] == order
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_records_carry_text_metadata_and_vector(tmp_path: Path) -> None:
    with passages_index(tmp_path / "i") as index:
        rows = list(export_records(index))
    assert [row["id"] for row in rows] == ["note-0000", "note-0000", "note-0002", "note-0002", "short"]
    assert rows[1] == {
        "id": "note-0000",
        "passage": 1,
        "title": "Title 0",
        "text": documents(1)[0].text[5:],
        "metadata": '{"lang": "de", "topic": 0}',
        "vector": rows[1]["vector"],
    }
    assert np.linalg.norm(rows[1]["vector"]) == pytest.approx(1)


def test_an_export_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with create(tmp_path / "i", 3) as index:
        for export in (export_faiss, export_npy):
            with pytest.raises(OutputError, match=r"nowhere/out\.bin: cannot be written"):
                export(index, tmp_path / "nowhere" / "out.bin")
    with create(tmp_path / "empty") as index, pytest.raises(IndexFileError, match="no vectors to export"):
        export_npy(index, tmp_path / "out.npy")


def test_a_merged_index_finds_what_both_found(tmp_path: Path) -> None:
    docs = documents(60)
    with create(tmp_path / "all") as whole, create(tmp_path / "a") as ours, create(tmp_path / "b") as theirs:
        list(build(whole, docs, embed=embed, split=halves))
        list(build(ours, docs[:40], embed=embed, split=halves))
        list(build(theirs, docs[30:], embed=embed, split=halves))
        *_, report = merge_indexes(ours, theirs)
        assert (report.read, report.added, report.unchanged, report.finished) == (30, 20, 10, True)
        query = embed(["a", "b"])
        for found, wanted in zip(ours.search(query, k=30), whole.search(query, k=30), strict=True):
            # A vector brought to unit length twice may differ in its last bit.
            assert [(hit.doc_id, hit.passage) for hit in found] == [
                (hit.doc_id, hit.passage) for hit in wanted
            ]
        assert ours.search_text(["topic 3"], k=5) == whole.search_text(["topic 3"], k=5)
        *_, again = merge_indexes(ours, theirs)
        assert (again.added, again.unchanged) == (0, 30)
    assert list(verify(tmp_path / "a")) == []


def test_indexes_that_do_not_fit_are_not_merged(tmp_path: Path) -> None:
    with (
        create(tmp_path / "a", 2, fingerprint={"weights": "x"}) as ours,
        create(tmp_path / "b", fingerprint={"weights": "y"}) as other_model,
        create(tmp_path / "c", fingerprint={"weights": "x"}, cutting={"chunk_tokens": 9}) as other_cut,
        create(tmp_path / "d", fingerprint={"weights": "x"}) as other_text,
    ):
        with pytest.raises(IndexMismatchError, match='weights is "x" there and "y" here'):
            merge_indexes(ours, other_model)
        with pytest.raises(IndexMismatchError, match=r"chunk_tokens is \(absent\) there and 9 here"):
            merge_indexes(ours, other_cut)
        other_text.add([Document("note-0001", "else")], embed(["else"]))
        with pytest.raises(IndexMismatchError, match="hold different documents with the id 'note-0001'"):
            list(merge_indexes(ours, other_text))
        *_, report = merge_indexes(ours, other_text, replace=True)
        assert report.updated == 1
        assert ours.search(embed(["else"]), k=1)[0][0].text == "else"


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_search_on_a_device_equals_exact_search(
    tmp_path: Path, metric: str, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is torch's own CPU here; the same code runs on CUDA."""
    monkeypatch.setattr("indexes.search.gpu._TILE_BYTES", 4096)
    queries = embed([f"query {number}" for number in range(6)])
    with create(tmp_path / "i", 1500, metric=metric, storage=storage) as index:
        index.add([Document(f"same{n:03d}", "same") for n in range(100)], np.repeat(queries[:1], 100, axis=0))
        index.delete([doc.doc_id for doc in documents(1500)[::3]])
        wanted = index.search(queries, k=10)
        some = index.search(queries, k=10, where="topic = 3")
    with Index.open(tmp_path / "i", device="cpu") as index:
        assert index.search(queries, k=10) == wanted
        assert index.search(queries, k=10, where="topic = 3") == some


def test_a_device_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    create(tmp_path / "i", 3).close()
    with (
        Index.open(tmp_path / "i", device="quantum") as index,
        pytest.raises(DeviceError, match="device 'quantum': "),
    ):
        index.search(embed(["a"]))
