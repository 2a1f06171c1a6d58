"""Model folders: what is read of them, and every way in which one can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.checkpoint.folder import fingerprint, read_model_folder, weight_files
from embedkit.checkpoint.json_files import read_json
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.storage.hashing import canonical_json
from tests.checkpoint.damage import copy_of, edit_json
from tests.tiny import write_tiny_model


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return copy_of(tiny_model, tmp_path / "model")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_model_folder(folder)
    return str(caught.value)


def test_a_folder_is_read_with_its_family_sizes_and_limit(folder: Path) -> None:
    read = read_model_folder(folder)
    assert (read.family, read.embedding_size, read.tokenizer.max_length) == ("bert", 32, 32)
    assert read.modules.sentence.pooling == ("mean",)
    assert read.modules.sentence.normalize


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)
    assert "Copy" in refusal(folder)


def test_special_tokens_behind_the_token_table_are_plain_text(folder: Path) -> None:
    """As in EmbeddingGemma's folder, whose tokenizer has one more for images than the table has rows."""
    text = "a dog <image> runs"
    wanted = Encoder.load(folder, device="cpu").encode([text])
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    last = {"content": "<image>", "single_word": False, "lstrip": False, "rstrip": False}
    last |= {"id": 207, "normalized": False, "special": True}
    added = content["added_tokens"]
    edit_json(path, added_tokens=[*added, last])
    edit_json(
        folder / "tokenizer_config.json",
        added_tokens_decoder={str(each["id"]): each for each in [*added, last]},
    )
    ours = Encoder.load(folder, device="cpu")
    assert ours.folder.tokenizer.vocab_size == 207
    np.testing.assert_array_equal(ours.encode([text]), wanted)
    last["special"] = False
    edit_json(path, added_tokens=[*added, last])
    edit_json(
        folder / "tokenizer_config.json",
        added_tokens_decoder={str(each["id"]): each for each in [*added, last]},
    )
    assert "the tokenizer has 208 tokens, the token table 207 rows" in refusal(folder)


def test_a_missing_folder_and_a_hub_name_say_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(tmp_path / "no") == f"{tmp_path / 'no'}: there is no such model folder; check the path"
    (tmp_path / "notes.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"notes\.txt: this is a file; a model is a folder\. Name the folder"
    ):
        read_json(tmp_path / "notes.txt" / "config.json", None)
    monkeypatch.chdir(tmp_path)
    assert "fetch it once with: embedkit model download owner/model" in refusal(Path("owner/model"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "xlnet"},
            r"config\.json: model_type is 'xlnet'; embedkit reads bert, roberta, .*Choose a model",
        ),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_size": "32"}, "'hidden_size' is '32'; it must be a whole number"),
        ({"hidden_size": 30}, "hidden_size 30 is not a multiple of num_attention_heads 4"),
        ({"hidden_act": "mish"}, "activation is 'mish'; known are gelu"),
        ({"position_embedding_type": "relative_key"}, "'relative_key'; only 'absolute' is computed"),
        (
            {"architectures": ["BertForSequenceClassification"]},
            r"this is a cross-encoder \(BertForSequence.*--rerank",
        ),
        ({"vocab_size": 100}, "the tokenizer has 207 tokens, the token table 100 rows"),
        ({"layer_norm_eps": "small"}, "'layer_norm_eps' is 'small'; it must be a number"),
    ],
)
def test_a_config_that_we_do_not_compute_is_refused(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    edit_json(folder / "config.json", **fields)
    with pytest.raises(CheckpointError, match=message):
        read_model_folder(folder)


@pytest.mark.parametrize(
    "name",
    ["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer.json"],
)
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "7", '"x"', "null", "[" * 100_000, '[{"type": 3}]'])
def test_no_json_whatever_it_holds_ends_in_anything_but_a_checkpoint_error(
    folder: Path, name: str, content: str
) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    harmless = {("modules.json", "[]"), ("sentence_bert_config.json", "{}")}
    if (name, content) in harmless:
        read_model_folder(folder)
    else:
        assert str(folder) in refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ],
)
def test_no_value_of_another_kind_ends_in_anything_but_a_checkpoint_error(folder: Path, name: str) -> None:
    path = folder / name
    good = json.loads(path.read_text(encoding="utf-8"))
    for key in good:
        for value in (None, -1, 0, 7, 1.5, True, "x", [], ["x"], {}, {"x": 1}):
            path.write_text(json.dumps(good | {key: value}), encoding="utf-8")
            try:
                read_model_folder(folder)
            except CheckpointError as exc:
                assert str(folder) in str(exc)  # noqa: PT017 (some values are fine)


def test_the_limit_is_the_smallest_of_the_folders_own_and_the_position_table(folder: Path) -> None:
    edit_json(folder / "sentence_bert_config.json", max_seq_length=1000)
    assert read_model_folder(folder).tokenizer.max_length == 64
    (folder / "sentence_bert_config.json").unlink()
    assert read_model_folder(folder).tokenizer.max_length == 32  # of tokenizer_config.json
    edit_json(folder / "tokenizer_config.json", model_max_length=10**30)
    assert read_model_folder(folder).tokenizer.max_length == 64
    edit_json(folder / "sentence_roberta_config.json", max_seq_length=9)  # as an older release named it
    assert read_model_folder(folder).tokenizer.max_length == 9
    assert read_model_folder(folder, max_seq_length=20).tokenizer.max_length == 20
    with pytest.raises(
        CheckpointError, match="max_seq_length 65 was asked for; the position table ends at 64"
    ):
        read_model_folder(folder, max_seq_length=65)
    edit_json(folder / "sentence_roberta_config.json", max_seq_length=2)
    assert "max_length is 2; with 2 special tokens it must be larger. Correct the folder" in refusal(folder)


def test_pickled_weights_are_refused_with_the_command_that_converts_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"embedkit model convert {folder} --output NEW_FOLDER"):
        Encoder.load(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors\. Copy it from"):
        weight_files(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}},
            r"names 2 shards, of which 2 are missing \(x.s",
        ),
        ({"weight_map": {}}, "names 0 shards, of which 0 are missing"),
        (
            {"weight_map": {"a": "../x.safetensors"}},
            r"the shard '\.\./x\.safetensors' is not a file of this folder",
        ),
        ({"weight_map": 3}, "'weight_map' is 3; it must be an object"),
    ],
)
def test_an_index_of_shards_that_leads_nowhere_is_refused(
    folder: Path, content: dict[str, Any], message: str
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        weight_files(folder)


def test_the_fingerprint_changes_with_everything_that_changes_vectors(folder: Path, tmp_path: Path) -> None:
    def changed(number: int, **fields: Any) -> set[str]:
        other = fingerprint(read_model_folder(write_tiny_model(tmp_path / str(number), **fields)))
        return {name for name in original if other[name] != original[name]}

    original = fingerprint(read_model_folder(folder))
    assert changed(0) == set()
    assert changed(1, seed=1) == {"weights"}
    assert changed(2, prompts={"query": "q: "}) == {"prompts"}
    assert changed(3, max_length=20) == {"max_seq_length"}
    assert json.loads(canonical_json(original)) == original
