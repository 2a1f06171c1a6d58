"""Encoding to files: stopped anywhere, the same call ends with the same bits; nothing half-written takes the final name."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from embedkit.checkpoint.folder import read_model_folder
from embedkit.data.records import Document
from embedkit.data.vectors import ids_path, npy_header
from embedkit.encoding.draft import partial_path
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.job import EncodeOptions, EncodeProgress, document_text, encode_to_file
from embedkit.encoding.windows import WINDOW_TEXTS
from embedkit.errors import OutputError, RecordError
from tests.encoding.fakes import CountingBackend
from tests.tiny import write_tiny_model

COUNT = 2 * WINDOW_TEXTS + 500  # three windows
WORDS = ("the dog", "a cat", "red", "small horse", "girl", "plays", "guitar", "on the beach")


@pytest.fixture(scope="module")
def encoder(native_model: Path) -> Encoder:
    return Encoder.load(native_model, device="cpu")


def documents(count: int = COUNT, *, change: int | None = None) -> Iterator[Document]:
    for i in range(count):
        text = " ".join(WORDS[(i * step) % 8] for step in range(1, 2 + i % 5)) + f" {i % 3000}"
        yield Document(f"d{i}", "changed" if i == change else text, source="corpus.jsonl", line=i + 1)


def run(
    encoder: Encoder,
    output: Path,
    source: Iterator[Document] | None = None,
    options: EncodeOptions | None = None,
) -> EncodeProgress:
    *_, last = encode_to_file(encoder, documents() if source is None else source, output, options)
    return last


@pytest.fixture(scope="module")
def expected(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "v.npy"
    run(encoder, output)
    return output


def assert_same(output: Path, expected: Path) -> None:
    assert output.read_bytes() == expected.read_bytes()
    assert ids_path(output).read_bytes() == ids_path(expected).read_bytes()
    assert sorted(path.name for path in output.parent.iterdir()) == [ids_path(output).name, output.name]


def test_the_vectors_are_the_encoders_own_with_their_ids_beside(encoder: Encoder, expected: Path) -> None:
    vectors = np.load(expected, mmap_mode="r", allow_pickle=False)
    assert (vectors.shape, vectors.dtype) == ((COUNT, 32), np.float32)
    assert expected.stat().st_size == 128 + COUNT * 32 * 4
    some = [0, WINDOW_TEXTS - 1, WINDOW_TEXTS, COUNT - 1]
    texts = [document.text for document in documents()]
    np.testing.assert_allclose(vectors[some], encoder.encode([texts[i] for i in some]), rtol=0, atol=1e-6)
    assert ids_path(expected).read_text(encoding="utf-8").splitlines() == [f"d{i}" for i in range(COUNT)]


def test_reports_count_what_happened(encoder: Encoder, tmp_path: Path) -> None:
    texts = ["the dog", "", "cat " * 50, "the dog", " "]
    source = (Document(f"{i}", text, source="a.txt", line=i + 1) for i, text in enumerate(texts))
    reports = list(encode_to_file(encoder, source, tmp_path / "v.npy"))
    assert [report.texts for report in reports] == [0, 5, 5]
    last = reports[-1]
    assert (last.truncated, last.empty, last.duplicates, last.nonfinite, last.done) == (1, 2, 2, 0, True)
    assert (last.first_truncated, last.first_empty) == ("a.txt:3", "a.txt:2")
    assert last.tokens == 4 + 2 + 32
    assert last.tokens_per_second > 0
    assert last.texts_per_second > 0


@pytest.mark.parametrize("reports", [1, 2, 3])
def test_a_job_that_was_stopped_goes_on_to_the_same_bits(
    encoder: Encoder, tmp_path: Path, expected: Path, reports: int
) -> None:
    output = tmp_path / "v.npy"
    for _ in islice(encode_to_file(encoder, documents(), output), reports):
        pass
    assert not output.exists()
    last = run(encoder, output)
    assert last.resumed_at == (reports - 1) * WINDOW_TEXTS
    assert last.texts == COUNT
    assert last.duplicates == COUNT - len({document.text for document in documents()})
    assert_same(output, expected)


def test_json_lines_resume_too_and_round_trip(encoder: Encoder, tmp_path: Path, expected: Path) -> None:
    output = tmp_path / "v.jsonl"
    for _ in islice(encode_to_file(encoder, documents(), output), 2):
        pass
    run(encoder, output)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [f"d{i}" for i in range(COUNT)]
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(vectors, np.load(expected))
    assert [path.name for path in tmp_path.iterdir()] == ["v.jsonl"]


def test_whatever_was_written_after_the_last_commit_is_cut_off(
    encoder: Encoder, tmp_path: Path, expected: Path
) -> None:
    output = tmp_path / "v.npy"
    for _ in islice(encode_to_file(encoder, documents(), output), 2):
        pass
    for name in ("vectors", "ids", "hashes", "journal.json.new"):
        with (partial_path(output) / name).open("ab") as file:
            file.write(b"torn")
    run(encoder, output)
    assert_same(output, expected)


@pytest.fixture
def begun(encoder: Encoder, tmp_path: Path) -> Path:
    output = tmp_path / "v.npy"
    for _ in islice(encode_to_file(encoder, documents(), output), 2):
        pass
    return output


def test_changed_texts_ids_and_shorter_inputs_are_refused(encoder: Encoder, begun: Path) -> None:
    renamed = (Document(f"e{document.doc_id}", document.text) for document in documents())
    for source in (documents(change=7), documents(10), renamed):
        with pytest.raises(
            OutputError, match=r"the first 4096 texts are not those it was begun with\. Give the same"
        ):
            run(encoder, begun, source)
    run(encoder, begun, documents(change=WINDOW_TEXTS))  # not reached yet: no matter


def test_changed_settings_are_refused_by_their_name(encoder: Encoder, begun: Path, tmp_path: Path) -> None:
    def refusal(other: Encoder, options: EncodeOptions | None = None) -> str:
        with pytest.raises(OutputError) as caught:
            encode_to_file(other, documents(), begun, options)
        return str(caught.value)

    folder = encoder.folder.path
    assert "begun with options.prompt = None; now it is 'x'. Use" in refusal(
        encoder, EncodeOptions(prompt="x")
    )
    assert "begun with options.on_truncate = 'warn'; now" in refusal(encoder, EncodeOptions(on_truncate="ok"))
    assert "begun with encoder.dimension = 32; now it is 8." in refusal(Encoder.load(folder, truncate_dim=8))
    assert "begun with encoder.weights = '" in refusal(Encoder.load(write_tiny_model(tmp_path / "m", seed=1)))
    half = Encoder.load(folder, device="cpu", precision="bf16", force_precision=True)
    assert (repr(encoder.backend)[-4:], repr(half.backend)[-4:]) == ("fp32", "bf16")
    assert f"begun with backend = '{encoder.backend!r}'; now it is '{half.backend!r}'" in refusal(half)
    assert f"or remove {partial_path(begun)} to start over" in refusal(half)


def test_a_partial_folder_that_was_changed_from_outside_is_refused(encoder: Encoder, begun: Path) -> None:
    vectors = partial_path(begun) / "vectors"
    vectors.write_bytes(vectors.read_bytes()[:1000])
    with pytest.raises(
        OutputError, match=r"vectors: has 1000 bytes; the journal says 524416\. It was changed"
    ):
        run(encoder, begun)
    for damaged in ("{", "[]", '{"settings": {}}'):
        (partial_path(begun) / "journal.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(OutputError, match=r"journal\.json: cannot be read as a journal .*to start over"):
            run(encoder, begun)


def test_two_processes_cannot_write_one_output(encoder: Encoder, begun: Path) -> None:
    first = encode_to_file(encoder, documents(), begun)
    next(first)
    with pytest.raises(OutputError, match=r"another process is writing there\. Wait for it"):
        run(encoder, begun)
    del first
    assert run(encoder, begun).done


def test_outputs_that_exist_or_cannot_be_are_refused_at_once(encoder: Encoder, tmp_path: Path) -> None:
    def refusal(name: str) -> str:
        with pytest.raises(OutputError) as caught:
            encode_to_file(encoder, documents(1), tmp_path / name)
        return str(caught.value)

    (tmp_path / "v.npy").write_bytes(b"mine")
    (tmp_path / "w.ids.txt").write_bytes(b"mine")
    assert refusal("v.npy").endswith("v.npy: already exists. Choose another --output, or remove it first")
    assert refusal("w.npy").endswith("w.ids.txt: already exists. Choose another --output, or remove it first")
    assert "the ending is '.txt'; vectors are written as .npy or .jsonl" in refusal("v.txt")
    assert f"{tmp_path / 'v.npy'} is a file; it must be a folder" in refusal("v.npy/deep/v.npy")
    assert (tmp_path / "v.npy").read_bytes() == b"mine"
    run(encoder, tmp_path / "new" / "deep" / "v.npy", documents(1))
    assert np.load(tmp_path / "new" / "deep" / "v.npy").shape == (1, 32)


def test_a_stop_between_the_last_renames_is_made_good(encoder: Encoder, begun: Path, expected: Path) -> None:
    job = encode_to_file(encoder, documents(), begun)
    for report in job:
        if report.texts == COUNT:
            break
    job.close()  # type: ignore[attr-defined] # it is a generator
    (partial_path(begun) / "ids").replace(ids_path(begun))
    assert run(encoder, begun).resumed_at == COUNT
    assert_same(begun, expected)
    # A stop after the last rename leaves the folder without the vectors; the next call tidies up.
    partial_path(begun).mkdir()
    (partial_path(begun) / "journal.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        run(encoder, begun)
    assert_same(begun, expected)


def test_a_link_to_nothing_is_not_written_over(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "v.npy").symlink_to(tmp_path / "nowhere.npy")
    with pytest.raises(OutputError, match=r"v\.npy: already exists"):
        run(encoder, tmp_path / "v.npy")


def test_no_documents_make_an_empty_file_that_numpy_reads(encoder: Encoder, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    assert run(encoder, output, documents(0)).texts == 0
    assert np.load(output).shape == (0, 32)
    assert output.stat().st_size == 128
    assert ids_path(output).read_bytes() == b""


@pytest.mark.parametrize("on_truncate", ["error", "warn"])
def test_a_text_that_is_refused_is_named_with_its_place(
    encoder: Encoder, tmp_path: Path, on_truncate: str
) -> None:
    bad = Document("x", "cat " * 50 if on_truncate == "error" else " ", source="corpus.jsonl", line=9001)
    options = EncodeOptions(on_truncate=on_truncate, fail_on_empty=True)  # type: ignore[arg-type] # one of the names
    source = itertools.chain(documents(5000), [bad])
    message = {
        "error": r"corpus\.jsonl:9001: the text 'cat .*' has 52 tokens; the model reads 32\. Cut it",
        "warn": r"corpus\.jsonl:9001: the text is empty\. Remove the row, or pass --on-empty warn",
    }
    with pytest.raises(RecordError, match=message[on_truncate]):
        run(encoder, tmp_path / "v.npy", source, options)
    assert not (tmp_path / "v.npy").exists()


def test_vectors_that_are_not_finite_are_counted_and_written_as_null(
    tiny_model: Path, tmp_path: Path
) -> None:
    class Broken(CountingBackend):
        def pooled(self, batch, *, skip=0):  # type: ignore[no-untyped-def] # as above
            out = super().pooled(batch, skip=skip)
            out[batch.lengths == 3, 5] = np.nan
            return out

    encoder = Encoder(read_model_folder(tiny_model), Broken())
    source = [Document("a", "dog"), Document("b", "the dog")]
    assert run(encoder, tmp_path / "v.jsonl", iter(source)).nonfinite == 1
    first, second = (
        json.loads(line) for line in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert first["embedding"][4:7] == [1.0, None, 1.0]
    assert None not in second["embedding"]


def test_a_title_stands_before_its_text() -> None:
    document = Document("d", "text", title="Title")
    assert document_text(document) == "Title text"
    assert document_text(document, join_title=False) == "text"
    assert document_text(Document("d", "", title="Title")) == "Title"
    assert document_text(Document("d", " text\n")) == "text"  # as an index has it
    assert document_text(Document("d", " \n", title=" ")) == ""


@pytest.mark.parametrize("rows", [0, 1, 10**15])
def test_the_header_is_what_numpy_reads_at_any_size(rows: int, tmp_path: Path) -> None:
    header = npy_header(rows, 384)
    assert len(header) == 128
    path = tmp_path / "v.npy"
    path.write_bytes(header)
    with path.open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == ((rows, 384), False, np.dtype("<f4"))
    shutil.rmtree(tmp_path)
