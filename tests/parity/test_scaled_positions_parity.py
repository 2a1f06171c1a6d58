"""Scaled rotary positions against transformers: texts longer than the first length, alone and beside others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

import transformers
from sentence_transformers import SentenceTransformer

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.model.encoder import TransformerEncoder
from tests.parity.newer import TOLERANCE, Case, batch, their_tokens, write_theirs

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
SCALINGS: dict[str, dict[str, Any]] = {
    "yarn": YARN,
    "yarn with its own numbers": YARN
    | {"attention_factor": 1.3, "beta_fast": 16, "beta_slow": 2, "truncate": False},
    "yarn with mscale": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2},
    "llama3": LLAMA3,
    "llama3 with other bounds": LLAMA3 | {"low_freq_factor": 2.0, "high_freq_factor": 9.0, "factor": 3.0},
    "linear": {"rope_type": "linear", "factor": 2.5},
}
WIDE: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,  # with larger weights the rounding of single frequencies is more than the tolerance
}
FAMILIES = ("qwen2", "llama", "mistral", "qwen3", "eurobert")


def fields(family: str, scaling: dict[str, Any]) -> dict[str, Any]:
    window = {"sliding_window": None} if family == "mistral" else {}
    return WIDE | window | {"rope_parameters": scaling | {"rope_theta": 1000.0}}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SCALINGS)
def test_long_texts_have_their_token_vectors(name: str, family: str, tmp_path: Path) -> None:
    model = write_theirs(Case(family, fields(family, SCALINGS[name])), tmp_path / "theirs")
    folder = read_model_folder(tmp_path / "theirs")
    loaded = load_sentence_encoder(folder)
    ids, mask = batch([233, 233, 160, 61, 1])
    expected = their_tokens(model, ids, mask)
    with torch.inference_mode():
        padded = loaded.encoder(ids, mask)[mask]
        packed = loaded.encoder.forward_packed(ids[mask], [233, 233, 160, 61, 1])
    torch.testing.assert_close(packed, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(padded, expected, rtol=0, atol=TOLERANCE)
    unscaled = TransformerEncoder(replace(folder.config, rope_scaling=None, rope_factor=1.0))
    unscaled.load_state_dict(loaded.encoder.state_dict())
    with torch.inference_mode():
        assert (unscaled.eval()(ids, mask)[mask] - expected).abs().max() > 100 * TOLERANCE
    save_sentence_encoder(tmp_path / "ours", loaded, folder.tokenizer, folder.modules, family=folder.family)
    assert read_model_folder(tmp_path / "ours").config == folder.config
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    torch.testing.assert_close(their_tokens(theirs, ids, mask), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_dynamic_scaling_goes_by_the_length_of_each_text_alone(family: str, tmp_path: Path) -> None:
    """Theirs goes by the longest text of the batch, so each is asked for alone, of a model that has seen no longer one."""
    shape = fields(family, {"rope_type": "dynamic", "factor": 3.0}) | {"max_position_embeddings": 64}
    write_theirs(Case(family, shape), tmp_path / "theirs")
    loaded = load_sentence_encoder(read_model_folder(tmp_path / "theirs"))
    lengths = [191, 191, 130, 65, 64, 7]
    ids, mask = batch(lengths)
    expected = []
    for row, length in enumerate(lengths):
        theirs = transformers.AutoModel.from_pretrained(
            tmp_path / "theirs", attn_implementation="eager"
        ).eval()
        one = ids[row : row + 1, :length]
        expected.append(their_tokens(theirs, one, torch.ones_like(one, dtype=torch.bool)))
    with torch.inference_mode():
        padded = loaded.encoder(ids, mask)[mask]
        packed = loaded.encoder.forward_packed(ids[mask], lengths)
    torch.testing.assert_close(packed, torch.cat(expected), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(padded, torch.cat(expected), rtol=0, atol=TOLERANCE)


def test_an_older_spelling_without_the_longer_length_is_cut_where_theirs_is_and_reaches_further(
    tmp_path: Path,
) -> None:
    """As Qwen2's cards say it: `rope_scaling` is added, and max_position_embeddings stays."""
    write_theirs(Case("llama", WIDE | {"max_position_embeddings": 64}), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["rope_theta"] = content.pop("rope_parameters")["rope_theta"]
    content["rope_scaling"] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    text = ["the old man walks by the water and the boy sings an old song " * 14]
    for limit in (None, 200):
        if limit is not None:
            theirs.max_seq_length = limit
        ours = Encoder.load(tmp_path / "model", device="cpu", max_seq_length=limit)
        assert ours.tokenizer.max_length == (limit or 64)
        np.testing.assert_allclose(
            ours.encode(text, on_truncate="ok"),
            theirs.encode(text, show_progress_bar=False),
            rtol=0,
            atol=TOLERANCE,
        )
