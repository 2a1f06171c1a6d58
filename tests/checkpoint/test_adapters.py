"""Adapters: what LoRA adds is added when a folder is read, into fp32, by whatever reads it; others are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from tests.tiny import FAMILY_SHAPES, tiny_config, write_tiny_model

TEXTS = ["the dog runs", "a small red horse", ""]
QUERY = "encoder.layer.0.attention.self.query"


def write_adapter(folder: Path, base: Path, weights: dict[str, torch.Tensor], **config: Any) -> Path:
    """Write an adapter's folder, with the modules and the tokenizer of its model."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("config.json", "model.safetensors"))
    for part in folder.iterdir():  # the pooling's config went with the encoder's
        if part.is_dir():
            shutil.copy(base / part.name / "config.json", part)
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": 2,
        "lora_alpha": 6,
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(content | config), encoding="utf-8")
    named = {f"base_model.model.{name}": weight.contiguous() for name, weight in weights.items()}
    save_file(named, folder / "adapter_model.safetensors")
    return folder


def lora(module: str, rows: int, columns: int, *, rank: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        f"{module}.lora_A.weight": torch.randn(rank, columns),
        f"{module}.lora_B.weight": torch.randn(rows, rank),
    }


def with_weight(base: Path, folder: Path, name: str, weight: torch.Tensor) -> Path:
    """Copy a model with one weight exchanged."""
    shutil.copytree(base, folder)
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name: weight.contiguous()}, path, metadata={"format": "pt"})
    return folder


def assert_alike(adapted: Path, merged: Path) -> None:
    ours, wanted = (Encoder.load(folder, device="cpu").encode(TEXTS) for folder in (adapted, merged))
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    arrays, plain = (load_sentence_weights(read_model_folder(folder)).encoder for folder in (adapted, merged))
    for name in plain:
        np.testing.assert_allclose(arrays[name], plain[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 6 / 2),
        ({"use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": {"self.query": 1}}, 1 / 2),
        ({"alpha_pattern": {"self.key": 1}}, 6 / 2),
    ],
)
def test_the_product_is_added_to_the_weight(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    parts = lora(QUERY, 32, 32)
    adapted = write_adapter(tmp_path / "adapted", base, parts, **config)
    product = parts[f"{QUERY}.lora_B.weight"] @ parts[f"{QUERY}.lora_A.weight"]
    weight = load_file(base / "model.safetensors")[f"{QUERY}.weight"] + scale * product
    assert_alike(adapted, with_weight(base, tmp_path / "merged", f"{QUERY}.weight", weight))
    folders = [read_model_folder(folder) for folder in (base, adapted)]
    assert fingerprint(folders[0])["weights"] != fingerprint(folders[1])["weights"]


def test_a_matrix_that_is_stored_turned_and_a_table_of_tokens_are_changed_too(tmp_path: Path) -> None:
    shape = tiny_config(**FAMILY_SHAPES["gpt2"])
    base = write_tiny_model(tmp_path / "base", config=shape)
    parts = lora("h.0.attn.c_attn", 96, 32)
    torch.manual_seed(2)
    table = {
        "wte.lora_embedding_A": torch.randn(2, shape.vocab_size),
        "wte.lora_embedding_B": torch.randn(32, 2),
    }
    adapted = write_adapter(tmp_path / "adapted", base, parts | table, fan_in_fan_out=True)
    stored = load_file(base / "model.safetensors")
    product = parts["h.0.attn.c_attn.lora_B.weight"] @ parts["h.0.attn.c_attn.lora_A.weight"]
    attention = stored["h.0.attn.c_attn.weight"] + 3 * product.T
    tokens = stored["wte.weight"] + 3 * (table["wte.lora_embedding_B"] @ table["wte.lora_embedding_A"]).T
    half = with_weight(base, tmp_path / "half", "h.0.attn.c_attn.weight", attention)
    assert_alike(adapted, with_weight(half, tmp_path / "merged", "wte.weight", tokens))


def test_whole_weights_stand_in_for_the_models_own(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    norm = torch.rand(32) + 0.5
    name = "encoder.layer.1.output.LayerNorm.weight"
    adapted = write_adapter(tmp_path / "adapted", base, {name: norm})
    assert_alike(adapted, with_weight(base, tmp_path / "merged", name, norm))


def test_an_adapter_beside_its_model_needs_no_name(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    adapted = write_adapter(tmp_path / "adapted", base, lora(QUERY, 32, 32))
    beside = tmp_path / "beside"
    shutil.copytree(base, beside)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapted / name, beside)
    path = beside / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"base_model_name_or_path": "owner/gone"}), encoding="utf-8")
    assert_alike(beside, adapted)


def test_convert_writes_the_merged_model(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", prompts={"query": "q: "})
    adapted = write_adapter(tmp_path / "adapted", base, lora(QUERY, 32, 32))
    assert convert_folder(adapted, tmp_path / "merged") == ["adapter_model.safetensors"]
    assert_alike(adapted, tmp_path / "merged")
    assert Encoder.load(tmp_path / "merged", device="cpu").folder.modules.prompts == {"query": "q: "}
    with pytest.raises(CheckpointError, match=r"an adapter is merged in fp32\. Convert it without"):
        convert_folder(adapted, tmp_path / "half", dtype=torch.float16)


@pytest.mark.parametrize(
    ("weights", "config", "message"),
    [
        ({}, {"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA is computed"),
        ({}, {"use_dora": True}, "use_dora is True, which is not computed. Merge the adapter"),
        (
            {},
            {"base_model_name_or_path": "owner/name"},
            r"base_model_name_or_path is 'owner/name', and there is no such model folder. Fetch the model",
        ),
        (
            lora("encoder.layer.7.attention.self.query", 32, 32),
            {},
            r"changes encoder.layer.7.attention.self.query.lora_A.weight, which .*base does not have. Is it of another model\?",
        ),
        (
            lora(QUERY, 48, 32),
            {},
            r"added to encoder.layer.0.* has shape \(48, 32\); the weight of .* has \(32, 32\)",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    weights: dict[str, torch.Tensor], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    base = write_tiny_model(tmp_path / "base")
    adapted = write_adapter(tmp_path / "adapted", base, weights or lora(QUERY, 32, 32), **config)
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(adapted, device="cpu")
