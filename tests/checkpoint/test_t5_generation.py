"""A whole T5's folder as a text generator: its names, its copies of the table, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cli.main import app
from embedkit.checkpoint.families.t5 import MAX_TOKENS
from embedkit.checkpoint.families.t5_decoder import read_t5_decoder, t5_generator_names
from embedkit.checkpoint.generation import is_generator, read_generator_folder
from embedkit.checkpoint.generation_weights import load_generator
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.weights import export_tensors
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.generation.generator import Generator
from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.text_generator import TextGenerator
from tests.tiny import tiny_tokenizer

ENCODER = EncoderConfig(
    vocab_size=tiny_tokenizer().vocab_size,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    hidden_act="relu",
    max_position_embeddings=MAX_TOKENS,
    type_vocab_size=0,
    layer_norm_eps=1e-6,
    initializer_range=0.3,
    position="none",
    relative_attention_num_buckets=8,
    relative_attention_max_distance=10,
    norm="rms",
    norm_first=True,
    embedding_norm=False,
    attention_bias=False,
    mlp_bias=False,
    query_pre_attn_scalar=1.0,
)
CONFIG: dict[str, Any] = write_config(ENCODER, "t5") | {
    "architectures": ["T5ForConditionalGeneration"],
    "decoder_start_token_id": 0,
    "is_encoder_decoder": True,
    "num_decoder_layers": 1,
}


def write_t5(folder: Path, *, has_output: bool = False, **fields: object) -> TextGenerator:
    """Write a random T5 as transformers does, with a copy of the table for each half; return its model."""
    config = CONFIG | fields
    torch.manual_seed(0)
    decoder = read_t5_decoder(CONFIG | fields, ENCODER, "here", has_output=has_output)
    model = TextGenerator(TransformerEncoder(ENCODER), decoder).eval()
    tensors = export_tensors(model, t5_generator_names(ENCODER, decoder))
    for half in ("encoder", "decoder"):
        tensors[f"{half}.embed_tokens.weight"] = tensors["shared.weight"].clone()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tiny_tokenizer(max_length=40).save(folder, token_types=False)
    return model


@pytest.mark.parametrize(
    ("fields", "has_output"),
    [({}, False), ({"tie_word_embeddings": False}, True), ({"tie_word_embeddings": False}, False)],
    ids=["t5", "version 1.1", "version 1.1, tied"],
)
def test_every_weight_is_where_it_belongs(
    fields: dict[str, object], has_output: bool, tmp_path: Path
) -> None:
    model = write_t5(tmp_path / "t5", has_output=has_output, **fields)
    assert is_generator(tmp_path / "t5")
    folder = read_generator_folder(tmp_path / "t5")
    assert folder.encoder == ENCODER
    assert folder.decoder.tie_word_embeddings == (not has_output)
    assert folder.decoder.scale_output == (not fields)
    found, wanted = load_generator(folder).state_dict(), model.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_a_tied_t5_ignores_a_stored_output_layer(tmp_path: Path) -> None:
    write_t5(tmp_path / "t5")
    path = tmp_path / "t5" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["shared.weight"].clone()}, path)
    model = load_generator(read_generator_folder(tmp_path / "t5"))
    assert model.output_weights[0] is model.table


def test_texts_begin_with_padding_and_are_generated_by_the_command(tmp_path: Path) -> None:
    write_t5(tmp_path / "t5")
    generator = Generator.load(tmp_path / "t5", device="cpu")
    texts = ["the dog runs", "a small red horse"]
    wanted = [
        own[0].text for own in generator.generate(texts, generator.options({"max_new_tokens": 6})).outputs
    ]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    words = [
        "generate",
        str(tmp_path / "texts.txt"),
        "--model",
        str(tmp_path / "t5"),
        "--max-new-tokens",
        "6",
    ]
    result = CliRunner().invoke(app, [*words, "--as", "lines", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == wanted
    likelihood = generator.likelihood(texts, [["she sings"], ["the dog"]])
    assert likelihood.nats > 0


def test_its_encoder_still_gives_vectors(tmp_path: Path) -> None:
    write_t5(tmp_path / "t5")
    vectors = Encoder.load(tmp_path / "t5", device="cpu").encode(["the dog runs"])
    assert vectors.shape == (1, 32)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"decoder_start_token_id": 2}, "texts are begun with the padding token alone, 0"),
        ({"num_decoder_layers": 0}, "num_hidden_layers is 0"),
        ({"feed_forward_proj": "gated-relu"}, "weights are missing: decoder.block"),
        ({"pad_token_id": 4, "decoder_start_token_id": 4}, "the config wants that of id 4"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, object], said: str, tmp_path: Path) -> None:
    write_t5(tmp_path / "t5")
    (tmp_path / "t5" / "config.json").write_text(json.dumps(CONFIG | fields), encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        load_generator(read_generator_folder(tmp_path / "t5"))
