"""Static models' folders: sentence-transformers' layout and model2vec's own, and every way in which one can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.checkpoint.static import MAX_TOKENS, is_static
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.tokenization.tokenizer import Tokenizer
from tests.checkpoint.damage import edit_json
from tests.tiny import tiny_tokenizer, write_static_model

MODEL2VEC = Path(__file__).parent / "fixtures" / "model2vec"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_static_model(tmp_path / "static", size=2)


@pytest.fixture
def model2vec(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL2VEC, tmp_path / "model2vec"))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_model_folder(folder)
    return str(caught.value)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_model2vecs_own_layout_gives_the_vectors_that_model2vec_gave(backend: Any) -> None:
    """Rows by a mapping, weights, unknown tokens dropped, and a text cut first by characters, then by tokens."""
    expected = json.loads((MODEL2VEC / "vectors.json").read_text(encoding="utf-8"))
    encoder = Encoder.load(MODEL2VEC, device="cpu", backend=backend)
    vectors = encoder.encode(list(expected), on_truncate="ok")
    np.testing.assert_allclose(vectors, list(expected.values()), atol=1e-6)
    (window,) = encoder.encode_windows(expected)
    assert window.empty.tolist() == [False, True, True, False, True, False, False]
    assert window.truncated.tolist() == [False, False, False, False, False, True, True]
    assert encoder.folder.tokenizer.max_chars == 21  # 7 tokens of 3 characters, the median of the vocabulary


def test_by_hand(folder: Path) -> None:
    """The mean of (1, 0) and (0, 2) is (½, 1); an unknown token counts there, and is dropped in model2vec's own layout."""
    tokenizer = tiny_tokenizer()
    table = np.zeros((tokenizer.vocab_size, 2), np.float32)
    dog, cat, unknown = (tokenizer.ids([text])[0][0] for text in ("dog", "cat", "東"))
    table[[dog, cat, unknown]] = [[1, 0], [0, 2], [9, 9]]
    save_file({"embedding.weight": table}, folder / "model.safetensors")
    shutil.rmtree(folder / "1_Normalize")
    rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))[:1]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    assert Encoder.load(folder).encode(["dog cat", "cat 東"]).tolist() == [[0.5, 1], [4.5, 5.5]]

    (folder / "modules.json").unlink()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    save_file({"embeddings": table}, folder / "model.safetensors")
    assert Encoder.load(folder).encode(["dog cat", "cat 東", "東"]).tolist() == [[0.5, 1], [0, 2], [0, 0]]
    assert read_model_folder(folder).tokenizer.max_length == 512
    edit_json(folder / "config.json", normalize=True, max_length=None)
    np.testing.assert_allclose(Encoder.load(folder).encode(["cat"]), [[0, 1]])
    assert read_model_folder(folder).tokenizer.max_length == MAX_TOKENS
    edit_json(folder / "config.json", max_length=1)
    np.testing.assert_allclose(Encoder.load(folder).encode(["dog cat"], on_truncate="ok"), [[1, 0]])


def test_small_integers_are_numbers_like_others(model2vec: Path) -> None:
    save_file({"embeddings": np.full((207, 3), -7, np.int8)}, model2vec / "model.safetensors")
    edit_json(model2vec / "config.json", normalize=False)
    assert Encoder.load(model2vec).encode(["dog"]).tolist() == [[-7, -7, -7]]


@pytest.mark.parametrize("layout", ["sentence-transformers", "model2vec"])
def test_a_table_in_8_bits_gives_nearly_the_same_vectors_in_every_backend(
    layout: str, tmp_path: Path
) -> None:
    folder = write_static_model(tmp_path / "static", size=32)
    if layout == "model2vec":
        for file in ("modules.json", "config_sentence_transformers.json"):
            (folder / file).unlink()
        table = load_file(folder / "model.safetensors")["embedding.weight"]
        save_file({"embeddings": table}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"normalize": true}', encoding="utf-8")
    convert_folder(folder, tmp_path / "bytes", dtype=torch.int8)
    convert_folder(tmp_path / "bytes", tmp_path / "floats", dtype=torch.float32)
    stored = load_file(tmp_path / "bytes" / "model.safetensors")
    assert {array.dtype.name for array in stored.values()} == {"int8", "float32"}
    texts = ["the dog runs", "a red horse", "cat", ""]
    expected = Encoder.load(folder).encode(texts)
    found = [
        Encoder.load(tmp_path / "bytes", device="cpu", backend="numpy").encode(texts),
        Encoder.load(tmp_path / "bytes", device="cpu", backend="torch").encode(texts),
        Encoder.load(tmp_path / "floats").encode(texts),
    ]
    np.testing.assert_allclose(found[0], expected, atol=0.02)
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


def test_scales_of_no_table_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    table = load_file(path)["embedding.weight"]
    save_file({"embedding.weight": table, "other.row_scale": table[:, 0].copy()}, path)
    assert "a static model has one table" in refusal(folder)
    save_file({"embedding.weight": table, "embedding.weight.row_scale": table[:, 0].copy()}, path)
    assert "a static model has one table" in refusal(folder)


def test_what_a_folder_says_is_kept_when_it_is_written_again(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    cut = {"max_length": 3, "direction": "Left", "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(content | {"truncation": cut}), encoding="utf-8")
    texts = {"prompts": {"query": "the "}, "truncate_dim": 1, "similarity_fn_name": "dot"}
    edit_json(folder / "config_sentence_transformers.json", **texts)
    read = read_model_folder(folder)
    assert (read.tokenizer.max_length, read.tokenizer.truncation_side) == (3, "left")
    assert (read.modules.truncate_dim, read.modules.similarity, read.dimension) == (1, "dot", 1)
    write_model(tmp_path / "again", load_model(read), read.tokenizer, read.modules, family=None)
    again = read_model_folder(tmp_path / "again")
    assert fingerprint(again) == fingerprint(read)
    assert again.modules == read.modules


def test_model2vecs_own_rules_are_not_lost_without_a_word(tmp_path: Path) -> None:
    read = read_model_folder(MODEL2VEC)
    plain = Tokenizer(read.tokenizer.backend, read.tokenizer.special_tokens, 7)
    assert read.tokenizer.fingerprint != plain.fingerprint
    with pytest.raises(ValueError, match="drops unknown tokens cannot be written"):
        write_model(tmp_path / "again", load_model(read), read.tokenizer, read.modules, family=None)


def test_a_folder_of_an_encoder_is_none(tiny_model: Path, tmp_path: Path) -> None:
    assert not is_static(tiny_model)
    assert not is_static(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "model2vec"}', encoding="utf-8")
    assert is_static(tmp_path)
    assert "tokenizer.json: the tokenizer files cannot be read" in refusal(tmp_path)


def test_a_table_that_is_none_is_refused(folder: Path, model2vec: Path) -> None:
    path = folder / "model.safetensors"
    table = load_file(path)["embedding.weight"]
    for arrays in (
        {"embedding.weight": table[0]},
        {"embedding.weight": table, "more": table},
        {"embedding.weight": table, "weights": table[:3, 0].copy()},
        {"other": table},
    ):
        save_file(arrays, path)
        assert "a static model has one table, 'embedding.weight' or 'embeddings', with a mapping" in refusal(
            folder
        )
    save_file({"embedding.weight": table[:9]}, path)
    assert "the tokenizer has 207 tokens, the table 9 rows" in refusal(folder)
    path.write_bytes(b"x")
    assert "cannot be read as safetensors" in refusal(folder)
    edit_json(model2vec / "config.json", max_length=0)
    assert "max_length is 0; it must be at least 1" in refusal(model2vec)
    edit_json(model2vec / "config.json", max_length="x")
    assert "'max_length' is 'x'; it must be a whole number" in refusal(model2vec)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            ["Dense"],
            "the modules are StaticEmbedding, Dense; a static model has StaticEmbedding, then Normalize at",
        ),
        (["Normalize", "Normalize"], "StaticEmbedding, Normalize, Normalize; a static"),
    ],
)
def test_modules_that_a_static_model_does_not_have_are_refused(
    kinds: list[str], message: str, folder: Path
) -> None:
    names = ["StaticEmbedding", *kinds]
    rows = [{"path": "", "type": f"sentence_transformers.models.{name}"} for name in names]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    assert message in refusal(folder)


def test_dropout_and_the_names_of_a_norm(folder: Path) -> None:
    before = Encoder.load(folder).encode(["dog cat"])
    rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    dropout = {"path": "2_Dropout", "type": "sentence_transformers.models.Dropout"}
    (folder / "modules.json").write_text(json.dumps([*rows, dropout]), encoding="utf-8")
    np.testing.assert_array_equal(Encoder.load(folder).encode(["dog cat"]), before)
    edit_json(folder / "1_Normalize" / "config.json", module_input_name="token_embeddings")
    assert "module_input_name is 'token_embeddings'; only 'sentence_embedding' is computed" in refusal(folder)
