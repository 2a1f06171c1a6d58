"""Weights without torch: the same values, checks and messages as with it, and nothing read that is not asked for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.arrays import load_classifier_weights, load_sentence_weights
from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.checkpoint.quantized import Scales
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.stored_arrays import StoredArray, read_arrays
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.errors import CheckpointError
from embedkit.model.classification import ClassificationHead
from embedkit.model.config import DenseConfig, HeadConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.shapes import dense_shapes, encoder_shapes, head_shapes
from tests.checkpoint.damage import copy_of, edit_weights
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer
from tests.tiny_cross_encoder import write_tiny_cross_encoder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return copy_of(tiny_model, tmp_path / "model")


def write_family(folder: Path, family: Family) -> Path:
    torch.manual_seed(0)
    dense = (
        DenseConfig(in_features=32, out_features=8, bias=False),
        DenseConfig(in_features=8, out_features=5, residual=True),
    )
    sentence = SentenceConfig(dense=dense)
    model = SentenceEncoder(TransformerEncoder(tiny_config(**FAMILY_SHAPES[family])), sentence)
    save_sentence_encoder(folder, model, tiny_tokenizer(), SentenceModules(sentence=sentence), family=family)
    return folder


def test_rows_of_integers_are_those_of_what_they_stand_for() -> None:
    codes = np.arange(12, dtype=np.int8).reshape(4, 3)
    stored = StoredArray(
        codes, "float32", Scales(np.array([1, 2, 3, 4], np.float32), np.array([1, 0.5, 2], np.float32))
    )
    np.testing.assert_array_equal(stored[1:3].fp32(), stored.fp32()[1:3])
    np.testing.assert_array_equal(stored[1:3].T.fp32(), stored.fp32()[1:3].T)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_the_modules(family: Family) -> None:
    config = tiny_config(**FAMILY_SHAPES[family])
    with torch.device("meta"):
        state = TransformerEncoder(config).state_dict()
    assert encoder_shapes(config) == {name: tuple(tensor.shape) for name, tensor in state.items()}
    for head in (HeadConfig(num_labels=3, norm=family == "modernbert"), HeadConfig(bias=False)):
        found = {name: tuple(t.shape) for name, t in ClassificationHead(config, head).state_dict().items()}
        assert head_shapes(config, head) == found
    for bias in (True, False):
        layer = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=bias))
        wanted = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
        assert dense_shapes(DenseConfig(in_features=3, out_features=2, bias=bias)) == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_arrays_are_the_tensors_of_the_modules(family: Family, tmp_path: Path) -> None:
    read = read_model_folder(write_family(tmp_path / "m", family))
    weights, model = load_sentence_weights(read), load_sentence_encoder(read)
    assert len(weights.encoder) == len(model.encoder.state_dict())
    for name, tensor in model.encoder.state_dict().items():
        np.testing.assert_array_equal(weights.encoder[name], tensor.numpy(), err_msg=name)
    assert len(weights.dense) == 2
    for mine, layer in zip(weights.dense, model.dense, strict=True):
        assert {name: array.tolist() for name, array in mine.items()} == {
            name: tensor.tolist() for name, tensor in layer.state_dict().items()
        }


def test_arrays_of_a_cross_encoder_are_the_tensors_of_its_network(tmp_path: Path) -> None:
    read = read_classifier_folder(write_tiny_cross_encoder(tmp_path / "m"))
    weights, model = load_classifier_weights(read), load_classifier(read)
    for mine, module in ((weights.encoder, model.encoder), (weights.head, model.head)):
        assert list(mine) == list(module.state_dict())
        for name, tensor in module.state_dict().items():
            np.testing.assert_array_equal(mine[name], tensor.numpy(), err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_is_stored_in_another_format_becomes_fp32(folder: Path, dtype: torch.dtype) -> None:
    edit_weights(folder, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))
    read = read_model_folder(folder)
    weights = load_sentence_weights(read).encoder
    for name, tensor in load_sentence_encoder(read).encoder.state_dict().items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], tensor.numpy(), err_msg=name)
    ids = np.array([7, 2, 7])
    table = "embeddings.tokens.weight"
    np.testing.assert_array_equal(weights.rows(table, ids), weights[table][ids])


def test_fp32_is_a_view_of_the_file_and_writing_to_it_leaves_the_file_alone(folder: Path) -> None:
    table = load_sentence_weights(read_model_folder(folder)).encoder["embeddings.tokens.weight"]
    assert not table.flags.owndata
    before = (folder / "model.safetensors").read_bytes()
    table[:] = 0
    assert (folder / "model.safetensors").read_bytes() == before


def test_shards_are_read_as_one_file(folder: Path) -> None:
    before = {
        name: array.copy() for name, array in load_sentence_weights(read_model_folder(folder)).encoder.items()
    }
    tensors = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    shards = {"one.safetensors": dict(tensors[::2]), "two.safetensors": dict(tensors[1::2])}
    for name, part in shards.items():
        save_file(part, folder / name)
    index = {"weight_map": {tensor: name for name, part in shards.items() for tensor in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    after = load_sentence_weights(read_model_folder(folder)).encoder
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def refusals(folder: Path) -> str:
    """The message, which must be the same with torch and without."""
    messages = []
    for load in (load_sentence_weights, load_sentence_encoder):
        with pytest.raises(CheckpointError) as caught:
            load(read_model_folder(folder))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0]


def test_checks_and_messages_are_those_of_torch(folder: Path) -> None:
    name = "encoder.layer.1.attention.self.key.weight"
    edit_weights(folder, lambda tensors: tensors.pop(name))
    assert f"1 of 37 weights are missing: {name}. Copy the weights again" in refusals(folder)
    edit_weights(folder, lambda tensors: tensors.update({name: torch.ones(5, 32)}))
    assert f"weight '{name}' has shape (5, 32); config.json asks for (32, 32). Take both" in refusals(folder)
    for dtype, shown in ((torch.int32, "int32"), (torch.bool, "bool"), (torch.float8_e4m3fn, "F8_E4M3")):
        odd = torch.ones(32, 32).to(dtype)
        edit_weights(folder, partial(dict.update, **{name: odd}))
        wanted = (
            f"weight '{name}' is {shown}; it must be one of float64, float32, float16, bfloat16. Take the"
        )
        with pytest.raises(CheckpointError, match=re.escape(wanted)):
            load_sentence_weights(read_model_folder(folder))
    edit_weights(
        folder, lambda tensors: tensors.update({name: torch.ones(32, 32), "classifier.weight": torch.ones(2)})
    )
    assert "1 weights that a bert encoder has no place for: classifier.weight. Is config" in refusals(folder)


def test_empty_arrays_and_odd_formats_that_nobody_reads_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(0, 3), "b": torch.tensor(True), "c": torch.tensor(2.5)}, path)
    arrays = read_arrays([path])
    assert (arrays["a"].shape, arrays["b"].shape, arrays["b"].dtype) == ((0, 3), (), "bool")
    assert arrays["c"].fp32() == 2.5


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "model.safetensors: cannot be read as safetensors" in refusals(folder)


def test_reading_weights_loads_no_torch(folder: Path) -> None:
    program = (
        "import sys\n"
        "from embedkit.checkpoint.arrays import load_sentence_weights\n"
        "from embedkit.checkpoint.folder import read_model_folder\n"
        f"load_sentence_weights(read_model_folder({str(folder)!r}))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
