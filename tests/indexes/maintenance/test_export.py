"""Out of an index: faiss files that faiss alone opens, numpy files, records."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexFileError, OutputError
from indexes import Index, build, export_faiss, export_npy, export_parquet, export_records
from tests.full_disk import files_limited_to
from tests.indexes.fakes import DIMENSION, create, documents, embed, halves


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
        for export in (export_faiss, export_npy, export_parquet):
            with pytest.raises(OutputError, match=r"nowhere/out\.bin: cannot be written"):
                export(index, tmp_path / "nowhere" / "out.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["i"]
    with create(tmp_path / "empty") as index, pytest.raises(IndexFileError, match="no vectors to export"):
        export_npy(index, tmp_path / "out.npy")


@pytest.mark.parametrize("export", [export_faiss, export_npy, export_parquet])
def test_an_export_to_a_full_disk_leaves_what_was_there(
    tmp_path: Path, export: Callable[[Index, Path], object]
) -> None:
    """The last bytes count too, which faiss, left to open the file itself, loses without an error."""
    output = tmp_path / "out.bin"
    with create(tmp_path / "i", 20) as index:
        export(index, output)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        for limit in (100, len(before["out.bin"]) - 1):
            with files_limited_to(limit), pytest.raises(OutputError, match=r"out\.bin: cannot be written"):
                export(index, output)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_vectors_can_be_exported_into_a_pipe_of_another_program(tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    os.mkfifo(output)
    read: list[bytes] = []
    reader = Thread(target=lambda: read.append(output.read_bytes()), daemon=True)
    reader.start()
    with create(tmp_path / "i", 3) as index:
        export_npy(index, output)
    reader.join(timeout=180)
    assert np.load(BytesIO(read[0])).shape == (3, DIMENSION)
