"""Weights: round trips of every family, strictness, damaged files, and pickles read without running them."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.checkpoint.quantized import quantize
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.stored_arrays import read_arrays
from embedkit.checkpoint.weights import (
    load_sentence_encoder,
    read_tensors,
    save_sentence_encoder,
    save_tensors,
)
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from tests.checkpoint.damage import copy_of, edit_weights
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer, write_tiny_model

TEXTS = ["the dog runs", "", "a small red horse eats a large green guitar by the beach"]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return copy_of(tiny_model, tmp_path / "model")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_sentence_encoder(read_model_folder(folder))
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_as_it_was_written(family: Family, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = (
        DenseConfig(in_features=64, out_features=8, bias=False),
        DenseConfig(in_features=8, out_features=5),
    )
    sentence = SentenceConfig(pooling=("cls", "mean"), dense=dense, normalize=True, pool_prompt=False)
    model = SentenceEncoder(TransformerEncoder(tiny_config(**FAMILY_SHAPES[family])), sentence)
    modules = SentenceModules(
        sentence=sentence,
        max_seq_length=20,
        lowercase=True,
        prompts={"query": "q: "},
        default_prompt_name="query",
        similarity="dot",
    )
    save_sentence_encoder(tmp_path / "m", model, tiny_tokenizer(), modules, family=family, card="# Tiny\n")
    read = read_model_folder(tmp_path / "m")
    assert (read.family, read.config) == (family, model.encoder.config)
    assert read.modules.dense_folders == ("2_Dense", "3_Dense")
    assert read.modules.sentence == sentence
    assert (read.modules.prompts, read.modules.default_prompt_name) == ({"query": "q: "}, "query")
    assert (read.modules.similarity, read.modules.lowercase) == ("dot", True)
    assert read.tokenizer.max_length == 20
    assert (tmp_path / "m" / "README.md").read_text(encoding="utf-8") == "# Tiny\n"
    loaded = load_sentence_encoder(read)
    assert not loaded.training
    for (name, ours), (_, theirs) in zip(
        model.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_shards_are_read_as_one_file(folder: Path) -> None:
    expected = Encoder.load(folder).encode(TEXTS)
    tensors = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    shards = {"one.safetensors": tensors[::2], "two.safetensors": tensors[1::2]}
    for name, part in shards.items():
        save_file(dict(part), folder / name)
    index = {"weight_map": {tensor: name for name, part in shards.items() for tensor, _ in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    np.testing.assert_array_equal(Encoder.load(folder).encode(TEXTS), expected)


def test_heads_prefixes_and_old_norm_names_make_no_difference(folder: Path) -> None:
    expected = Encoder.load(folder).encode(TEXTS)

    def as_saved_with_a_head(tensors: dict[str, torch.Tensor]) -> None:
        old = dict(tensors)
        tensors.clear()
        for name, tensor in old.items():
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            tensors["bert." + name] = tensor
        for name in ("bert.pooler.dense.weight", "cls.predictions.bias", "bert.embeddings.position_ids"):
            tensors[name] = torch.ones(3)

    edit_weights(folder, as_saved_with_a_head)
    np.testing.assert_array_equal(Encoder.load(folder).encode(TEXTS), expected)


def test_weights_in_half_precision_are_computed_in_fp32(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    model = load_sentence_encoder(read_model_folder(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_missing_unexpected_and_mis_shaped_weights_are_named(folder: Path) -> None:
    name = "encoder.layer.1.attention.self.key.weight"
    edit_weights(folder, lambda tensors: tensors.pop(name))
    assert f"1 of 37 weights are missing: {name}. Copy the weights again" in refusal(folder)
    edit_weights(folder, lambda tensors: tensors.update({name: torch.ones(5, 32)}))
    assert f"weight '{name}' has shape (5, 32); config.json asks for (32, 32). Take both" in refusal(folder)
    edit_weights(
        folder, lambda tensors: tensors.update({name: torch.ones(32, 32), "classifier.weight": torch.ones(2)})
    )
    assert "1 weights that a bert encoder has no place for: classifier.weight" in refusal(folder)
    edit_weights(folder, lambda tensors: tensors.pop("classifier.weight"))
    load_sentence_encoder(read_model_folder(folder))
    edit_weights(folder, lambda tensors: tensors.update({"embeddings.LayerNorm.bias": torch.ones(32).int()}))
    assert (
        "'embeddings.LayerNorm.bias' is int32; it must be one of float64, float32, float16, bfloat16"
        in refusal(folder)
    )


def test_a_row_of_query_key_and_value_must_each_have_its_own_shape(folder: Path) -> None:
    def shift(tensors: dict[str, torch.Tensor]) -> None:  # 96 rows in all, wrongly divided
        prefix = "encoder.layer.0.attention.self."
        tensors[prefix + "query.weight"] = torch.ones(40, 32)
        tensors[prefix + "key.weight"] = torch.ones(24, 32)

    edit_weights(folder, shift)
    assert "query.weight' has shape (40, 32)" in refusal(folder)


def test_weights_of_a_dense_layer_are_checked_too(tmp_path: Path) -> None:
    sentence = SentenceConfig(dense=(DenseConfig(in_features=32, out_features=4),))
    folder = write_tiny_model(tmp_path / "m", sentence=sentence)
    edit_weights(folder / "2_Dense", lambda tensors: tensors.update(more=torch.ones(1)))
    assert "2_Dense: weights that this module has no place for: more" in refusal(folder)
    edit_weights(folder / "2_Dense", lambda tensors: (tensors.pop("more"), tensors.pop("linear.bias")))
    assert "2_Dense: 1 of 2 weights are missing: linear.bias" in refusal(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors_are_refused(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "model.safetensors: cannot be read as safetensors" in refusal(folder)
    assert "copy it again" in refusal(folder)


def test_random_bytes_are_refused_as_weights_and_as_pickles(folder: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    pickled = copy_of(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    good = tmp_path / "good.bin"
    torch.save({"a": torch.ones(100)}, good)
    whole = good.read_bytes()
    for number in range(20):
        content = rng.randbytes(200) if number % 2 else whole[: rng.randrange(len(whole))]
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").write_bytes(content)
        assert "cannot be read as safetensors" in refusal(folder)
        (pickled / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: cannot be read as weights only"):
            convert_folder(pickled, tmp_path / "out")


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (Path("it-ran"),))


def test_a_malicious_pickle_is_refused_and_does_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))):
        save({"weight": Malicious()}, folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"cannot be read as weights only .*it holds code"):
            convert_folder(folder, tmp_path / "out")
    torch.save({"weight": [1, 2]}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than a dict of tensors"):
        convert_folder(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_converted_folder_gives_equal_vectors(tmp_path: Path) -> None:
    dense = (DenseConfig(in_features=32, out_features=4),)
    folder = write_tiny_model(tmp_path / "m", sentence=SentenceConfig(dense=dense))
    expected = Encoder.load(folder).encode(TEXTS)
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors[
        "embeddings.word_embeddings.weight"
    ]  # tied: one storage
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert convert_folder(folder, tmp_path / "new") == ["pytorch_model.bin"]
    np.testing.assert_array_equal(Encoder.load(tmp_path / "new").encode(TEXTS), expected)
    assert not list((tmp_path / "new").rglob("*.bin"))
    with pytest.raises(CheckpointError, match=r"no pytorch_model\.bin in it .*nothing to convert"):
        convert_folder(tmp_path / "new", tmp_path / "again")
    with pytest.raises(CheckpointError, match="there is no such model folder"):
        convert_folder(tmp_path / "nowhere", tmp_path / "again")


def test_weights_stored_in_half_precision_are_rounded_once_and_leave_the_run_behind(tmp_path: Path) -> None:
    dense = (DenseConfig(in_features=32, out_features=4),)
    folder = write_tiny_model(tmp_path / "m", sentence=SentenceConfig(dense=dense))
    (folder / "training" / "states").mkdir(parents=True)
    (folder / "training" / "states" / "weights.safetensors").write_bytes(b"of another moment")
    converted = convert_folder(folder, tmp_path / "half", dtype=torch.float16)
    assert converted == ["2_Dense/model.safetensors", "model.safetensors"]
    assert not (tmp_path / "half" / "training").exists()
    for name in converted:
        old, new = load_file(folder / name), load_file(tmp_path / "half" / name)
        for key, tensor in old.items():
            torch.testing.assert_close(new[key], tensor.half(), rtol=0, atol=0)
    np.testing.assert_allclose(
        Encoder.load(tmp_path / "half").encode(TEXTS), Encoder.load(folder).encode(TEXTS), atol=2e-3
    )
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1e6
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"'embeddings.LayerNorm.bias' reaches 1e\+06, more than torch.float16 can hold"
    ):
        convert_folder(folder, tmp_path / "too-large", dtype=torch.float16)
    assert not (tmp_path / "too-large").exists()


def test_pickled_shards_become_one_file_with_equal_weights(tmp_path: Path, tiny_model: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:]), 1):
        torch.save({name: tensors[name] for name in part}, folder / f"pytorch_model-{number:05}-of-00002.bin")
    (folder / "pytorch_model.bin.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="embedkit model convert"):
        load_sentence_encoder(read_model_folder(folder))
    assert len(convert_folder(folder, tmp_path / "new")) == 2
    converted = load_file(tmp_path / "new" / "model.safetensors")
    assert sorted(converted) == names
    assert all(torch.equal(converted[name], tensors[name]) for name in names)
    assert not list((tmp_path / "new").glob("pytorch_model*"))


@pytest.mark.skipif(os.name != "posix", reason="the modes of POSIX")
def test_weights_are_as_readable_as_any_other_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_tensors({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    finally:
        os.umask(old)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_weights_in_8_bits_are_a_quarter_of_the_room_and_near_the_whole_ones(tmp_path: Path) -> None:
    dense = (DenseConfig(in_features=96, out_features=64),)
    folder = write_tiny_model(
        tmp_path / "m",
        sentence=SentenceConfig(dense=dense),
        config=tiny_config(hidden_size=96, intermediate_size=192),
    )
    assert convert_folder(folder, tmp_path / "small", dtype=torch.int8) == [
        "2_Dense/model.safetensors",
        "model.safetensors",
    ]
    sizes = [(each / "model.safetensors").stat().st_size for each in (tmp_path / "small", folder)]
    assert sizes[0] < 0.3 * sizes[1]
    expected, found = (
        Encoder.load(each, device="cpu").encode(TEXTS) for each in (folder, tmp_path / "small")
    )
    assert (expected * found).sum(axis=1).min() > 0.999
    # Read without torch they are the same, whole and by rows; made whole again, too, and plain for other loaders.
    tensors = read_tensors([tmp_path / "small" / "model.safetensors"])
    name = "embeddings.word_embeddings.weight"
    stored = read_arrays([tmp_path / "small" / "model.safetensors"])
    assert stored.keys() == tensors.keys() == load_file(folder / "model.safetensors").keys()
    np.testing.assert_array_equal(stored[name].fp32(), tensors[name].numpy())
    np.testing.assert_array_equal(stored[name].fp32(np.array([3, 1])), tensors[name][[3, 1]].numpy())
    convert_folder(tmp_path / "small", tmp_path / "whole", dtype=torch.float32)
    np.testing.assert_array_equal(Encoder.load(tmp_path / "whole", device="cpu").encode(TEXTS), found)
    assert load_file(tmp_path / "whole" / "model.safetensors")[name].dtype == torch.float32
    configs = [json.loads((tmp_path / each / "config.json").read_text()) for each in ("small", "whole")]
    assert configs[0].pop("quantization_config") == {"quant_method": "embedkit_int8"}
    assert configs[0] == configs[1]
    # A scale that is missing is said, by both readers.
    edit_weights(tmp_path / "small", lambda tensors: tensors.pop(f"{name}.row_scale"))
    for device in ("cpu", "auto"):
        with pytest.raises(CheckpointError, match=r"the 8-bit matrix .* do not fit together"):
            Encoder.load(tmp_path / "small", device=device)


def test_rounding_to_8_bits_by_rows_and_columns() -> None:
    """A matrix of rank one is kept but for half a step; a column a hundred times larger does not flatten the others."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 96)).astype(np.float32)
    weight[:, 7] *= 100
    codes, scales = quantize(weight)
    assert codes.dtype == np.int8
    error = np.abs(scales.apply(codes) - weight)
    assert np.delete(error, 7, axis=1).max() < 0.2
    by_rows = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert np.square(error).sum() < 0.5 * np.square(np.rint(weight / by_rows) * by_rows - weight).sum()
    np.testing.assert_array_equal(quantize(np.zeros((4, 8), np.float32))[0], 0)
