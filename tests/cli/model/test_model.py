"""`embedkit model`: info, check, convert, download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, OutputError
from embedkit.extras import EXTRAS
from embedkit.model.config import DenseConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig
from tests.checkpoint.damage import copy_of
from tests.tiny import tiny_config, write_tiny_model


def run(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, ["model", *map(str, arguments)])


def test_info_tells_what_decides_the_vectors(tmp_path: Path) -> None:
    sentence = SentenceConfig(dense=(DenseConfig(in_features=32, out_features=4),), normalize=True)
    folder = write_tiny_model(tmp_path / "m", sentence=sentence, prompts={"query": "q: "}, truncate_dim=3)
    info = json.loads(run("info", folder, "--json").stdout)
    assert (info["family"], info["layers"], info["max_seq_length"]) == ("bert", 2, 32)
    assert (info["dimension"], info["truncate_dim"], info["truncation_side"]) == (3, 3, "right")
    assert (info["pooling"], info["dense"], info["normalize"]) == ("mean", ["32 -> 4 tanh"], True)
    assert info["prompts"] == {"query": "q: "}
    assert info["weights"] == Encoder.load(folder).fingerprint["weights"]
    assert info["weights_bytes"] == sum(path.stat().st_size for path in folder.rglob("model.safetensors"))


def test_info_tells_experts_and_recursion_and_what_a_token_costs(tmp_path: Path) -> None:
    """One of two layers has 4 experts of 64 · 32 · 2 + 64 + 32 parameters, of which a token meets 2."""
    config = tiny_config(experts=ExpertsConfig(num_experts=4, shared_intermediate_size=16))
    info = json.loads(run("info", write_tiny_model(tmp_path / "experts", config=config), "--json").stdout)
    wanted = {"experts": 4, "experts_per_token": 2, "expert_layers": [1], "shared_expert": 16}
    assert {name: info[name] for name in wanted} == wanted
    model = TransformerEncoder(config)
    assert info["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert info["parameters"] - info["active_parameters"] == 2 * (2 * 64 * 32 + 64 + 32)
    # A layer's attention: 4 · 32² weights, and 64 tokens to look at; then a feed-forward part, or two experts, shared and router.
    attention = 2 * 4 * 32**2 + 4 * 32 * 64
    assert (info["flops_text_tokens"], info["flops_per_token"]) == (
        64,
        2 * attention + 2 * 2 * 64 * 32 + 2 * (2 * 2 * 64 * 32 + 2 * 16 * 32 + 4 * 32),
    )
    recursion = RecursionConfig(num_block_layers=2)
    config = tiny_config(num_hidden_layers=8, recursion=recursion)
    info = json.loads(run("info", write_tiny_model(tmp_path / "recursion", config=config), "--json").stdout)
    wanted = {"layers": 8, "distinct_layers": 4, "recursions": 3, "recursion_layers": [1, 2]}
    assert {name: info[name] for name in wanted} == wanted
    assert (info["recursion_routing"], info["family"]) == ("expert_choice", "embedkit")
    assert info["parameters"] == info["active_parameters"]
    shown = run("info", tmp_path / "recursion").stdout
    assert "expert_choice" in shown


def test_check_of_a_model_that_no_other_library_computes(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", config=tiny_config(experts=ExpertsConfig()))
    result = run("check", folder, "--json")
    assert json.loads(result.stdout) == {"folder": str(folder), "texts": 9, "dimension": 32, "finite": True}
    assert "no other library computes this model: nothing to compare with" in result.stderr


def test_check_without_sentence_transformers_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, "sentence_transformers", "no_such_package")
    result = run("check", tiny_model, "--json")
    wanted = {"folder": str(tiny_model), "texts": 9, "dimension": 32, "finite": True}
    assert json.loads(result.stdout) == wanted
    assert "sentence-transformers is not installed: nothing to compare with" in result.stderr


def test_check_refuses_a_model_whose_vectors_are_not_finite(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "m")
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["embeddings.word_embeddings.weight"][:] = torch.nan
    path.unlink()
    save_file(tensors, path)
    result = run("check", folder)
    assert isinstance(result.exception, CheckpointError)
    assert f"{folder}: 288 of 288 values are not finite" in str(result.exception)


@pytest.mark.parity
def test_check_prints_the_largest_difference(tiny_model: Path) -> None:
    result = run("check", tiny_model, "--json")
    content = json.loads(result.stdout)
    assert content["dimension"] == 32
    assert content["largest_difference"] < 1e-5
    assert content["lowest_cosine"] > 0.99999


def test_convert_says_what_it_converted_and_never_overwrites(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_model, tmp_path / "old")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    new = tmp_path / "new"
    result = run("convert", folder, "-o", new)
    assert (result.exit_code, result.stderr) == (0, f"{new}: 1 file(s) converted (pytorch_model.bin)\n")
    assert Encoder.load(new).encode(["dog"]).shape == (1, 32)
    again = run("convert", folder, "--output", new)
    assert isinstance(again.exception, OutputError)
    assert "already exists" in str(again.exception)


def test_download_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "hub", "no_such_package")
    message = str(run("download", "owner/model").exception)
    assert "fetching a model needs the package 'no_such_package'" in message
    assert "pip install 'embedkit[hub]'" in message
