"""Jina v3 as its hub folder is: code that is never run, and an adapter for each task, of which one is merged; beside transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

import transformers
from sentence_transformers import SentenceTransformer

from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from tests.parity.newer import TOLERANCE, Case, batch, their_tokens, write_theirs

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TASKS = {
    "retrieval.query": "Represent the query: ",
    "retrieval.passage": "Represent the document: ",
    "separation": "",
}
RANK, ALPHA = 4, 2.0
TEXTS = ["the dog runs", "", "the old man walks by the water and the boy sings an old song " * 9]


def write_hub_folder(folder: Path) -> dict[str, Any]:  # Any: untyped models
    """Write a random model as the hub has Jina v3, and return what transformers makes of it: by task, and without one ("")."""
    write_theirs(Case("jina_embeddings_v3", {"type_vocab_size": 1}), folder)
    plain = load_file(folder / "model.safetensors")
    torch.manual_seed(5)
    stored: dict[str, Tensor] = {}
    merged = {task: dict(plain) for task in TASKS}
    for name, weight in plain.items():
        if weight.ndim < 2:
            stored["roberta." + name] = weight
            continue
        module = "roberta." + name.removesuffix(".weight")
        rows, columns = weight.shape
        table = module.endswith("_embeddings")
        a = torch.randn(len(TASKS), *((rows, RANK) if table else (RANK, columns))) * 0.2
        b = torch.randn(len(TASKS), *((RANK, columns) if table else (rows, RANK))) * 0.2
        stored[f"{module}.parametrizations.weight.original"] = weight
        stored[f"{module}.parametrizations.weight.0.lora_A"] = a
        stored[f"{module}.parametrizations.weight.0.lora_B"] = b
        for number, task in enumerate(TASKS):
            product = a[number] @ b[number] if table else b[number] @ a[number]
            merged[task][name] = weight + product * ALPHA / RANK
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    models = {}
    for task, weights in {"": plain, **merged}.items():
        own = folder.parent / f"plain {task}"
        own.mkdir()
        (own / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
        models[task] = transformers.AutoModel.from_pretrained(own, attn_implementation="eager").eval()
    theta = config.pop("rope_parameters")["rope_theta"]
    hub = {
        "model_type": "xlm-roberta",
        "architectures": ["XLMRobertaModel"],
        "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
        "position_embedding_type": "rotary",
        "rotary_emb_base": theta,
        "lora_adaptations": list(TASKS),
        "task_instructions": TASKS,
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "emb_pooler": None,
        "truncate_dim": None,
        "use_flash_attn": True,
    }
    (folder / "config.json").write_text(json.dumps(config | hub), encoding="utf-8")
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    kinds = (
        "custom_st.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    )
    paths = ("", "1_Pooling", "2_Normalize")
    rows_of = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(rows_of), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    texts = {"prompts": TASKS, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(texts), encoding="utf-8")
    return models


@pytest.mark.parametrize("task", [None, *TASKS])
def test_one_task_is_merged_or_none(task: str | None, tmp_path: Path) -> None:
    models = write_hub_folder(tmp_path / "hub")
    folder = read_model_folder(tmp_path / "hub", task=task)
    assert folder.family == "jina_embeddings_v3"
    loaded = load_sentence_encoder(folder)
    ids, mask = batch([233, 61, 61, 5, 1])
    expected = their_tokens(models[task or ""], ids, mask)
    with torch.inference_mode():
        padded = loaded.encoder(ids, mask)[mask]
        packed = loaded.encoder.forward_packed(ids[mask], [233, 61, 61, 5, 1])
    torch.testing.assert_close(padded, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(packed, expected, rtol=0, atol=TOLERANCE)
    mapped = load_sentence_weights(folder).encoder
    for name, parameter in loaded.encoder.named_parameters():
        np.testing.assert_array_equal(mapped[name], parameter.detach().numpy())


def test_a_task_is_written_as_a_model_of_its_own_which_theirs_load_without_code(tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    convert_folder(tmp_path / "hub", tmp_path / "query", task="retrieval.query")
    theirs = SentenceTransformer(str(tmp_path / "query"), device="cpu", local_files_only=True)
    assert theirs.default_prompt_name == "retrieval.query"
    ours = Encoder.load(tmp_path / "query", device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), rtol=0, atol=TOLERANCE)
    whole = read_model_folder(tmp_path / "hub", task="retrieval.query")
    loaded = load_sentence_encoder(whole)
    again = load_sentence_encoder(read_model_folder(tmp_path / "query"))
    for mine, other in zip(loaded.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_without_a_task_it_is_said_and_a_default_prompt_chooses_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_hub_folder(tmp_path / "hub")
    with caplog.at_level(logging.WARNING):
        folder = read_model_folder(tmp_path / "hub")
    assert "computed without the adapter of a task" in caplog.text
    assert "retrieval.query, retrieval.passage, separation" in caplog.text
    query = read_model_folder(tmp_path / "hub", task="retrieval.query")
    assert fingerprint(folder) != fingerprint(query)
    path = tmp_path / "hub" / "config_sentence_transformers.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"default_prompt_name": "separation"}
    path.write_text(json.dumps(content), encoding="utf-8")
    found = read_model_folder(tmp_path / "hub").tasks
    assert found is not None
    assert found.chosen == "separation"


def test_bad_folders_are_refused_by_what_is_wrong(tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "hub")
    with pytest.raises(
        CheckpointError, match=r"task 'sts' was asked for; the model has adapters for retrieval\.query"
    ):
        read_model_folder(tmp_path / "hub", task="sts")
    path = tmp_path / "hub" / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"lora_rank": 4', '"lora_rank": 8'), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"task adapters of roberta\.\S+ have shapes .* config.json asks for"
    ):
        load_sentence_encoder(read_model_folder(tmp_path / "hub", task="separation"))
    path.write_text(text.replace('"emb_pooler": null', '"emb_pooler": "mean"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match="emb_pooler is 'mean'"):
        read_model_folder(tmp_path / "hub")
