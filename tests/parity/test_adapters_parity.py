"""Adapters that PEFT writes, alone and through sentence-transformers: encoders and cross-encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

from embedkit.encoding.encoder import Encoder  # noqa: E402  (after the check)
from embedkit.reranking.cross_encoder import CrossEncoder  # noqa: E402
from tests.parity.newer import TOLERANCE, write_theirs  # noqa: E402
from tests.parity.test_newer_families_parity import CASES  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TEXTS = ["the dog runs", "a small red horse", "the old man walks by the water and the boy sings " * 4]
TARGETS = {
    "electra": ["query", "intermediate.dense", "word_embeddings"],
    "qwen3": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_fc"],
    "t5": ["q", "wo"],
    "gemma3_text": "all-linear",
}


def draw(model: torch.nn.Module) -> None:
    """An adapter's second matrices start at zero, which would hide it."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)


@pytest.mark.parametrize("name", TARGETS)
def test_an_adapted_encoder_gives_the_vectors_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    write_theirs(CASES[name], tmp_path / "base")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "base"), device="cpu")
    theirs.add_adapter(
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS[name], use_rslora=name == "t5")
    )
    draw(theirs)
    theirs.eval()
    wanted = theirs.encode(TEXTS)
    theirs.save(str(tmp_path / "adapted"))
    assert not (tmp_path / "adapted" / "model.safetensors").exists()
    ours = Encoder.load(tmp_path / "adapted", device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), wanted, atol=TOLERANCE)


def test_an_adapted_cross_encoder_gives_the_scores_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_theirs(CASES["electra"], tmp_path / "base")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "base", num_labels=1)
    plain = transformers.ElectraForSequenceClassification(config)
    plain.save_pretrained(tmp_path / "base")
    wrapped = peft.get_peft_model(
        plain, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    )
    draw(wrapped)
    wrapped.eval().save_pretrained(tmp_path / "adapted")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    batch = tokenizer([TEXTS[0]] * 3, TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = torch.sigmoid(wrapped(**batch).logits[:, 0]).numpy()
    ours = CrossEncoder.load(tmp_path / "adapted", device="cpu")
    np.testing.assert_allclose(ours.score(TEXTS[0], TEXTS), wanted, atol=TOLERANCE)
