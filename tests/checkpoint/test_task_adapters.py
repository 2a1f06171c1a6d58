"""Adapters of several tasks in one file: one is merged as it is asked for, by both readers and by `model convert`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from cli.main import app
from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from tests.tiny import FAMILY_SHAPES, tiny_config, write_static_model, write_tiny_model

TASKS = {"retrieval.query": "query: ", "separation": ""}
BOTH = {"retrieval.query": "query: ", "separation": "", "retrieval.passage": "passage: "}
TEXTS = ["the dog runs", "a small red horse", "the boy sings an old song by the water"]


def write_hub_folder(folder: Path, tasks: Mapping[str, str] = TASKS) -> dict[str, dict[str, Tensor]]:
    """Write a tiny model as the hub has Jina v3; return the weights of each task under their plain names, and of none ("")."""
    write_tiny_model(folder, config=tiny_config(**FAMILY_SHAPES["jina_embeddings_v3"]), prompts=tasks)
    plain = load_file(folder / "model.safetensors")
    merged = {task: dict(plain) for task in ("", *tasks)}
    stored: dict[str, Tensor] = {}
    for name, weight in plain.items():
        if weight.ndim < 2:
            stored[f"roberta.{name}"] = weight
            continue
        module, (rows, columns) = f"roberta.{name.removesuffix('.weight')}", weight.shape
        table = "embeddings" in name
        down, up = ((rows, 4), (4, columns)) if table else ((4, columns), (rows, 4))
        a, b = torch.randn(len(tasks), *down) / 4, torch.randn(len(tasks), *up) / 4
        stored[f"{module}.parametrizations.weight.original"] = weight
        stored[f"{module}.parametrizations.weight.0.lora_A"] = a
        stored[f"{module}.parametrizations.weight.0.lora_B"] = b
        for number, task in enumerate(tasks):
            product = a[number] @ b[number] if table else b[number] @ a[number]
            merged[task][name] = weight + product * 0.5  # alpha 2 over rank 4
    save_file(stored, folder / "model.safetensors")
    change(
        folder / "config.json",
        model_type="xlm-roberta",
        auto_map={"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
        position_embedding_type="rotary",
        rotary_emb_base=20000.0,
        rope_parameters=None,
        lora_adaptations=list(tasks),
        lora_rank=4,
        lora_alpha=2,
    )
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["type"] = "custom_st.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return merged


def change(path: Path, **fields: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | fields), encoding="utf-8")


@pytest.mark.parametrize("task", ["", *TASKS])
def test_both_readers_merge_the_task_that_is_asked_for(task: str, tmp_path: Path) -> None:
    wanted = write_hub_folder(tmp_path / "hub")[task]
    folder = read_model_folder(tmp_path / "hub", task=task or None)
    state = load_sentence_encoder(folder).encoder.state_dict()
    mapped = load_sentence_weights(folder).encoder
    for ours, theirs in (
        ("embeddings.tokens.weight", "embeddings.word_embeddings.weight"),
        ("embeddings.token_types.weight", "embeddings.token_type_embeddings.weight"),
        ("layers.1.attention.qkv.weight", "encoder.layers.1.mixer.Wqkv.weight"),
        ("layers.0.mlp.down.weight", "encoder.layers.0.mlp.fc2.weight"),
        ("layers.0.mlp.down.bias", "encoder.layers.0.mlp.fc2.bias"),
    ):
        torch.testing.assert_close(state[ours], wanted[theirs], rtol=0, atol=1e-6)
    for name, parameter in state.items():
        np.testing.assert_array_equal(mapped[name], parameter.numpy())


def test_convert_writes_one_task_as_a_plain_model(tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    arguments = ["model", "convert", str(tmp_path / "hub"), "--task", "retrieval.query", "--output"]
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "query")])
    assert result.exit_code == 0, result.output
    folder = read_model_folder(tmp_path / "query")
    assert (folder.family, folder.tasks) == ("jina_embeddings_v3", None)
    assert folder.modules.default_prompt_name == "retrieval.query"
    expected = load_sentence_encoder(read_model_folder(tmp_path / "hub", task="retrieval.query"))
    for mine, other in zip(load_sentence_encoder(folder).parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, other)
    result = CliRunner().invoke(app, ["model", "info", str(tmp_path / "hub"), "--json"])
    info = json.loads(result.stdout)
    assert info["tasks"] == ["retrieval.query", "separation"]
    assert info["task"] is None
    wrong = CliRunner().invoke(
        app, ["model", "convert", str(tmp_path / "query"), "--task", "x", "--output", str(tmp_path / "no")]
    )
    assert wrong.exit_code == 1
    assert "the model has no task adapters" in str(wrong.exception)


def test_convert_writes_a_task_with_two_sides_as_one_folder(tmp_path: Path) -> None:
    """Queries are encoded by retrieval.query, documents by retrieval.passage, each with its prompt; the rest is a router's folder."""
    write_hub_folder(tmp_path / "hub", BOTH)
    for task, name in (
        ("retrieval", "both"),
        ("retrieval.query", "query"),
        ("retrieval.passage", "document"),
    ):
        arguments = ["model", "convert", str(tmp_path / "hub"), "--task", task]
        result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    both = Encoder.load(tmp_path / "both", device="cpu")
    assert set(both.folder.routes) == {"query", "document"}
    query, document = (Encoder.load(tmp_path / name, device="cpu") for name in ("query", "document"))
    np.testing.assert_allclose(both.encode_queries(TEXTS), query.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(both.encode_documents(TEXTS), document.encode(TEXTS), atol=1e-6)
    assert np.abs(query.encode(TEXTS) - document.encode(TEXTS)).max() > 0.01
    assert (both.role_prompt("query"), both.role_prompt("document")) == ("query: ", "passage: ")


def test_a_task_that_lacks_a_side_is_refused(tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    arguments = ["model", "convert", str(tmp_path / "hub"), "--task", "retrieval", "--output"]
    wrong = CliRunner().invoke(app, [*arguments, str(tmp_path / "no")])
    assert wrong.exit_code == 1
    assert "task 'retrieval' was asked for; the model has adapters for retrieval.query" in str(
        wrong.exception
    )
    assert not (tmp_path / "no").exists()


def test_without_a_task_it_is_said_and_a_default_prompt_chooses_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_hub_folder(tmp_path / "hub")
    with caplog.at_level(logging.WARNING):
        plain = Encoder.load(tmp_path / "hub", device="cpu")
    assert "computed without the adapter of a task" in caplog.text
    caplog.clear()
    change(tmp_path / "hub" / "config_sentence_transformers.json", default_prompt_name="separation")
    chosen = Encoder.load(tmp_path / "hub", device="cpu")
    assert "computed without" not in caplog.text
    assert np.abs(plain.encode(["the dog"]) - chosen.encode(["the dog"])).max() > 0.01
    assert fingerprint(plain.folder)["task"] is None
    assert fingerprint(chosen.folder)["task"] == "separation"


def test_a_model_without_adapters_has_no_tasks(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "plain")
    write_static_model(tmp_path / "static")
    for name in ("plain", "static"):
        with pytest.raises(CheckpointError, match="task 'sts' was asked for; the model has no task adapters"):
            read_model_folder(tmp_path / name, task="sts")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    with pytest.raises(
        CheckpointError, match=r"'sts' was asked for; the model has adapters for retrieval\.query, sepa"
    ):
        read_model_folder(tmp_path / "hub", task="sts")
    change(tmp_path / "hub" / "config.json", lora_rank=8)
    folder = read_model_folder(tmp_path / "hub", task="separation")
    for load in (load_sentence_encoder, load_sentence_weights):
        with pytest.raises(CheckpointError, match=r"the task adapters of roberta\.\S+ have shapes"):
            load(folder)
    change(tmp_path / "hub" / "config.json", lora_rank=0)
    with pytest.raises(CheckpointError, match="lora_rank 0; wanted names, and at least 1"):
        read_model_folder(tmp_path / "hub")
