"""Text generators' folders: written and read again, as fp32, fp16 and int8; each kind of model where another is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.generation import StoredAs, is_generator, read_generator_folder
from embedkit.checkpoint.generation_weights import load_generator
from embedkit.errors import CheckpointError
from embedkit.generation.generator import Generator
from embedkit.generation.options import GenerationOptions
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.tiny_generator import DECODERS, tiny_generator, write_tiny_generator

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = DECODERS | {"language model": {"encoder_size": None}}


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_holds_every_bit_of_the_model(name: str, tmp_path: Path) -> None:
    model = tiny_generator(**KINDS[name])
    folder = read_generator_folder(write_tiny_generator(tmp_path / "m", **KINDS[name]))
    again = load_generator(folder)
    assert (folder.decoder, folder.generation) == (model.config, {"max_new_tokens": 10})
    assert (folder.encoder is None) == (model.encoder is None) == (name == "language model")
    wanted, found = model.state_dict(), again.state_dict()
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key
    assert {name: p.requires_grad for name, p in again.named_parameters()} == {
        name: p.requires_grad for name, p in model.named_parameters()
    }


def test_smaller_number_formats_take_less_room_and_stay_near(tmp_path: Path) -> None:
    """int8: a scale a row, so that no weight is off by more than half a step, 1/254 of its row's largest."""
    wanted = tiny_generator().state_dict()
    sizes = {}
    formats: tuple[StoredAs, ...] = ("fp32", "fp16", "int8")
    for stored in formats:
        path = write_tiny_generator(tmp_path / stored, stored=stored)
        sizes[stored] = (path / "model.safetensors").stat().st_size
        found = load_generator(read_generator_folder(path)).state_dict()
        for name, tensor in wanted.items():
            if stored == "fp32" or (stored == "int8" and tensor.ndim == 1):
                assert torch.equal(found[name], tensor), name
            elif stored == "fp16":
                torch.testing.assert_close(found[name], tensor, rtol=2**-10, atol=1e-7)
            else:
                step = tensor.abs().amax(dim=1, keepdim=True) / 254
                assert ((found[name] - tensor).abs() <= step * 1.001).all(), name
    assert sizes["int8"] < 0.4 * sizes["fp32"]
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


def test_a_row_of_zeros_survives_int8(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "m", stored="int8")
    tensors = load_file(path / "model.safetensors")
    name = "decoder.tokens.weight"
    tensors[name][0] = 0
    tensors[name + ".scale"][0] = torch.finfo(torch.float32).tiny / 127
    save_file(tensors, path / "model.safetensors")
    row = load_generator(read_generator_folder(path)).state_dict()[name][0]
    assert torch.equal(row, torch.zeros_like(row))


def edit_config(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    change(content)
    (path / "config.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "format is 2; this embedkit reads 1. Upgrade it"),
        (lambda c: c["decoder"].update(hiden_size=1), r"unknown key decoder\.hiden_size; did you mean decoder\.hidden_size\?"),
        (lambda c: c["decoder"].update(hidden_size="32"), r"decoder\.hidden_size is '32'; it must be a whole number"),
        (lambda c: c["decoder"].update(num_attention_heads=5), "hidden_size 32 is not a multiple of num_attention_heads 5"),
        (lambda c: c["decoder"].update(encoder_size=None), "model_type is 'embedkit-encoder-decoder', but encoder_size of the decoder is None"),
        (lambda c: c["decoder"].update(encoder_size=31), "encoder_size is 31; the encoder's vectors have 32"),
        (lambda c: c["decoder"].update(intermediate_size=63), r"weight 'decoder\.layers\.0\.mlp\.up\.weight' has shape \(64, 32\); config.json asks for \(63, 32\)"),
        (lambda c: c["decoder"].update(num_hidden_layers=1), r"\d+ weights that the generator has no place for: decoder\.layers\.1"),
        (lambda c: c["encoder"].update(model_type="bird"), "encoder: model_type is 'bird'; embedkit reads bert"),
        (lambda c: c.update(generation=3), "'generation' is 3; it must be an object"),
    ],
)  # fmt: skip
def test_a_config_that_is_wrong_is_told(
    change: Callable[[dict[str, object]], object], message: str, tmp_path: Path
) -> None:
    path = write_tiny_generator(tmp_path / "m")
    edit_config(path, change)
    with pytest.raises(CheckpointError, match=message):
        load_generator(read_generator_folder(path))


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    path = write_tiny_generator(tmp_path / "m", stored="int8")
    weights = path / "model.safetensors"
    tensors = load_file(weights)
    scale = tensors["decoder.positions.weight.scale"]
    save_file(tensors | {"decoder.positions.weight.scale": scale[:-1].clone()}, weights)
    with pytest.raises(
        CheckpointError, match=r"'decoder\.positions\.weight\.scale' has shape \(39,\); .* int8 matrix"
    ):
        load_generator(read_generator_folder(path))
    save_file({name: each for name, each in tensors.items() if "positions" not in name}, weights)
    with pytest.raises(CheckpointError, match=r"2 of \d+ weights are missing: decoder\.positions\.weight"):
        load_generator(read_generator_folder(path))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_generator(read_generator_folder(path))


def test_other_models_are_no_generators_and_a_generator_is_no_other_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    generator = write_tiny_generator(tmp_path / "generator")
    reranker = write_tiny_cross_encoder(tmp_path / "reranker")
    assert [is_generator(path) for path in (generator, tiny_model, reranker)] == [True, False, False]
    with pytest.raises(
        CheckpointError, match=r"this is no text generator \(BertModel\)\. Train one, .*train generation"
    ):
        read_generator_folder(tiny_model)
    with pytest.raises(CheckpointError, match=r"this is no text generator \(BertForSequenceClassification\)"):
        read_generator_folder(reranker)
    with pytest.raises(CheckpointError, match=r"no such model folder"):
        read_generator_folder(tmp_path / "nowhere")
    for read in (read_model_folder, read_classifier_folder):
        with pytest.raises(
            CheckpointError,
            match=r"a text generator \(encoder-decoder\), which gives no vectors and scores no pairs",
        ):
            read(generator)


@pytest.mark.parametrize("kind", ["pairs", "lm"])
def test_folders_of_format_1_are_read_for_good(kind: str) -> None:
    """`python -m tests.checkpoint.make_generator_fixture` made them: int8 pairs, fp16 language model."""
    folder = FIXTURES / "generators-1" / kind
    wanted = json.loads((folder / "outputs.json").read_text(encoding="utf-8"))
    generator = Generator.load(folder, device="cpu")
    found = generator.generate(list(wanted), generator.options()).outputs
    assert [own[0].text for own in found] == list(wanted.values())
    assert generator.options() == GenerationOptions(max_new_tokens=5, num_beams=2)
