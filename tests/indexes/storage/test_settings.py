"""What an index is made of cannot be mixed up."""

import subprocess
import sys
from pathlib import Path

import pytest

import indexes
from embedkit.errors import IndexMismatchError
from indexes import Index, Settings
from tests.conftest import REPOSITORY
from tests.indexes.fakes import create, embed

FINGERPRINT = {"weights": "aa", "pooling": "mean", "prompts": {"query": ""}, "max_seq_length": 256}


def test_an_encoder_that_differs_is_refused_with_each_field_and_both_values(tmp_path: Path) -> None:
    create(tmp_path / "i", fingerprint=FINGERPRINT).close()
    with Index.open(tmp_path / "i") as index:
        index.check_encoder(dict(reversed(FINGERPRINT.items())))
        with pytest.raises(IndexMismatchError) as caught:
            index.check_encoder({**FINGERPRINT, "weights": "bb", "max_seq_length": 512, "dense": True})
    message = str(caught.value)
    assert 'weights is "aa" there and "bb" here' in message
    assert "max_seq_length is 256 there and 512 here" in message
    assert "dense is (absent) there and true here" in message
    assert "pooling" not in message


def test_ready_vectors_and_encoders_do_not_mix(tmp_path: Path) -> None:
    with create(tmp_path / "ready") as index:
        index.check_encoder(None)
        with pytest.raises(
            IndexMismatchError, match=r"built from ready vectors, .*; this call brings an encoder"
        ):
            index.check_encoder(FINGERPRINT)
    with (
        create(tmp_path / "made", fingerprint=FINGERPRINT) as index,
        pytest.raises(IndexMismatchError, match="built from an encoder; this call brings no encoder"),
    ):
        index.check_encoder(None)


def test_texts_are_cut_one_way_only() -> None:
    settings = Settings(dimension=2, cutting={"chunk_tokens": 256})
    settings.check_cutting({"chunk_tokens": 256}, "my.index")
    with pytest.raises(
        IndexMismatchError,
        match=r"my\.index cuts its texts otherwise: chunk_tokens is 256 there and 128 here",
    ):
        settings.check_cutting({"chunk_tokens": 128}, "my.index")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension is 0"),
        ({"dimension": 3, "metric": "manhattan"}, "metric is 'manhattan'; it must be one of cosine, dot, l2"),
        (
            {"dimension": 3, "storage": "int4"},
            "storage is 'int4'; it must be one of float32, float16, int8, binary",
        ),
        ({"dimension": 3, "storage": "binary", "metric": "l2"}, "the metric must be cosine, not l2"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)  # type: ignore[arg-type]  # that is what is tested


def test_a_reader_does_not_write(tmp_path: Path) -> None:
    create(tmp_path / "i", 1).close()
    with Index.open(tmp_path / "i") as index:
        with pytest.raises(ValueError, match="was opened for reading; open it with writable=True"):
            index.delete(["note-0000"])
        with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
            index.search(embed(["a"]), k=0)


def test_public_names_are_there_and_load_nothing_before_they_are_used() -> None:
    assert all(getattr(indexes, name) is not None for name in indexes.__all__)
    assert set(indexes.__all__) == set(dir(indexes))
    with pytest.raises(AttributeError, match="no attribute 'Indexx'"):
        indexes.Indexx  # noqa: B018 (the look-up is the test)
    code = (
        "import sys, indexes; assert not {'numpy', 'faiss', 'torch', 'sqlite3'} & set(sys.modules), sys.modules;"
        "from indexes import Index, build, tune, snippets; assert not {'faiss', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_exact_search_of_a_small_index_loads_neither_faiss_nor_torch(tmp_path: Path) -> None:
    create(tmp_path / "i", 20, storage="int8").close()
    code = (
        "import sys; from indexes import Index; from tests.indexes.fakes import embed;"
        f"index = Index.open({str(tmp_path / 'i')!r}); assert len(index.search(embed(['a']), k=5)[0]) == 5;"
        "assert not {'faiss', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
