"""The pretraining loss and its gradients beside transformers' BertForPreTraining, and our folders in its hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.names import BASE_PREFIX, encoder_names, mlm_head_names, next_sentence_names
from embedkit.checkpoint.pretraining import write_pretraining
from embedkit.checkpoint.weights import load_sentence_encoder, read_tensors
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from embedkit.model.pretraining import PretrainingModel
from embedkit.training.pretraining.mlm import pretraining_loss
from tests.tiny import tiny_config, tiny_tokenizer

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers", reason="parity needs transformers")

TOLERANCE = 1e-5
IGNORED_TARGET = -100  # what transformers leaves out of its loss


@pytest.fixture
def model() -> PretrainingModel:
    torch.manual_seed(0)
    config = tiny_config()
    pretraining = PretrainingModel(TransformerEncoder(config), MaskedLMHead(config), NextSentenceHead(config))
    return pretraining.eval()


def write(model: PretrainingModel, folder: Path) -> Path:
    folder.mkdir()
    write_pretraining(folder, model, tiny_tokenizer(), "bert")
    return folder


def test_loss_and_gradients_equal_those_of_bert_for_pretraining(
    model: PretrainingModel, tmp_path: Path
) -> None:
    """Four pairs of unequal length, a fifth of the tokens masked; ours packed, theirs padded."""
    theirs = transformers.BertForPreTraining.from_pretrained(
        write(model, tmp_path / "model"), attn_implementation="eager"
    ).eval()
    rng = np.random.default_rng(0)
    lengths = [24, 17, 17, 9]
    ids = [torch.from_numpy(rng.integers(5, model.encoder.config.vocab_size, size=n)) for n in lengths]
    types = [(torch.arange(n) >= n // 2).long() for n in lengths]
    chosen = [torch.from_numpy(rng.random(n) < 0.2) for n in lengths]
    targets = [torch.from_numpy(rng.integers(5, model.encoder.config.vocab_size, size=n)) for n in lengths]
    follows = torch.tensor([0, 1, 1, 0])

    flat = torch.cat(chosen)
    logits, pair_logits = model(torch.cat(ids), lengths, flat.nonzero().flatten(), torch.cat(types))
    ours = pretraining_loss(
        logits, torch.cat(targets)[flat], pair_logits, follows, num_masked=int(flat.sum()), num_pairs=4
    )["loss"]
    torch.autograd.backward(ours)

    pad = torch.nn.utils.rnn.pad_sequence
    labels = [torch.where(mask, target, IGNORED_TARGET) for mask, target in zip(chosen, targets, strict=True)]
    found = theirs(
        input_ids=pad(ids, batch_first=True),
        attention_mask=pad([torch.ones(n, dtype=torch.long) for n in lengths], batch_first=True),
        token_type_ids=pad(types, batch_first=True),
        labels=pad(labels, batch_first=True, padding_value=IGNORED_TARGET),
        next_sentence_label=follows,
    ).loss
    found.backward()

    assert ours.item() == pytest.approx(found.item(), abs=TOLERANCE)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    config, prefix = model.encoder.config, BASE_PREFIX["bert"]
    pairs = {
        f"encoder.{ours}": [prefix + name for name in names]
        for ours, names in encoder_names("bert", config).items()
    }
    pairs |= {f"mlm.{ours}": list(names) for ours, names in mlm_head_names("bert", config).items()}
    pairs |= {f"next_sentence.{ours}": list(names) for ours, names in next_sentence_names("bert").items()}
    for name, parameter in model.named_parameters():
        wanted = torch.cat([gradients[theirs] for theirs in pairs[name]])
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, wanted, atol=TOLERANCE, rtol=0, msg=name)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_the_folder_loads_as_masked_language_model_and_as_sentence_encoder(
    position: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    config = tiny_config(position=position, hidden_act="relu")
    model = PretrainingModel(TransformerEncoder(config), MaskedLMHead(config)).eval()
    folder = write(model, tmp_path / "model")
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    ids = torch.randint(5, config.vocab_size, (12,))
    with torch.inference_mode():
        logits, _ = model(ids, [12], torch.arange(12))
        torch.testing.assert_close(logits, theirs.eval()(ids[None]).logits[0], atol=TOLERANCE, rtol=0)
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="parity needs sentence-transformers"
    )
    text = "the girl plays a guitar"
    own = load_sentence_encoder(read_model_folder(folder))
    batch = tiny_tokenizer().encode([text])
    with torch.inference_mode():
        ours = own.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist())
    found = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode([text])
    np.testing.assert_allclose(ours.numpy(), found, atol=TOLERANCE)


def test_only_known_weights_are_written(model: PretrainingModel, tmp_path: Path) -> None:
    tensors = read_tensors([write(model, tmp_path / "model") / "model.safetensors"])
    theirs = transformers.BertForPreTraining(transformers.BertConfig.from_pretrained(tmp_path / "model"))
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert set(tensors) == set(theirs.state_dict()) - tied
