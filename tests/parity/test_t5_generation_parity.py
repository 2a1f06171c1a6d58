"""Whole T5 models as transformers saves them: read, generated with and trained as they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.generation_weights import save_generator
from embedkit.generation.generator import Generator
from embedkit.generation.stepping import Hypothesis
from tests.parity.test_generation_parity import END, SEARCHES, compare_losses, compare_searches, sources
from tests.tiny import tiny_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers", reason="parity needs transformers")

START = 0  # padding begins what T5 writes
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", {"feed_forward_proj": "relu"}),
    "version 1.1": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "wide heads, fewer layers": ("T5", {"d_kv": 12, "num_decoder_layers": 1}),
    "mt5": ("MT5", {"feed_forward_proj": "gated-gelu"}),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model; version 1.1 has an output layer of its own."""
    family, fields = KINDS[request.param]
    torch.manual_seed(1)
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": START}
    shape |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}
    shape |= {"eos_token_id": END, "decoder_start_token_id": START, "vocab_size": tiny_tokenizer().vocab_size}
    model = getattr(transformers, f"{family}ForConditionalGeneration")(
        getattr(transformers, f"{family}Config")(**shape | fields)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.5 if "shared" in name else 0.6  # else a token is followed by itself
            parameter.copy_(torch.randn_like(parameter) * scale + (parameter.dim() == 1))
        model.shared.weight[END] *= 3  # texts end now and then
    path = tmp_path_factory.mktemp("t5") / "model"
    model.save_pretrained(path)
    tiny_tokenizer(max_length=40).save(path, token_types=False)
    if "tie_word_embeddings" in fields:
        tensors = load_file(path / "model.safetensors")
        own = torch.randn(tensors["shared.weight"].shape) * 0.3
        own[END] *= 3
        save_file(tensors | {"lm_head.weight": own}, path / "model.safetensors", {"format": "pt"})
        config = json.loads((path / "config.json").read_text("utf-8"))
        (path / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:  # Any: an untyped library
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    own = "lm_head.weight" in load_file(folder / "model.safetensors")
    assert own == (not torch.equal(model.lm_head.weight, model.shared.weight))
    return model


@pytest.fixture(scope="module")
def ours(folder: Path) -> Generator:
    return Generator.load(folder, device="cpu")


def test_loss_and_gradients_equal_theirs(ours: Generator, theirs: Any) -> None:
    targets = [[*row[:3], END] for row in sources()[::-1]]
    targets[0] = [*range(5, 30), END]  # past the last bucket of distances
    compare_losses(ours.model, theirs, targets, start=START)
    for mine, their in (
        ("encoder.embeddings.tokens.weight", "shared.weight"),
        ("decoder.relative_bias.weight", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        ("decoder.layers.0.cross_attention.query.weight", "decoder.block.0.layer.1.EncDecAttention.q.weight"),
        ("decoder.layers.0.mlp_norm.weight", "decoder.block.0.layer.2.layer_norm.weight"),
    ):  # fmt: skip
        found, gradient = ours.model.get_parameter(mine).grad, theirs.get_parameter(their).grad
        assert found is not None
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_searches_equal_theirs(options: dict[str, Any], ours: Generator, theirs: Any) -> None:
    compare_searches(ours.model, theirs, options, start=START)


def test_saved_in_our_format_it_generates_the_same(ours: Generator, tmp_path: Path) -> None:
    texts = ["the dog runs", "a small red horse", "she sings"]
    options = ours.options({"max_new_tokens": 8, "num_beams": 3})
    assert ours.folder.encoder is not None
    save_generator(tmp_path / "own", ours.model, ours.tokenizer, family=ours.folder.family)
    again = Generator.load(tmp_path / "own", device="cpu")
    assert again.folder.decoder == ours.folder.decoder
    found = [own[0].text for own in ours.generate(texts, options).outputs]
    assert any(found)
    assert [own[0].text for own in again.generate(texts, options).outputs] == found


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "max_length": 9, "min_new_tokens": 1},
        {"do_sample": False, "max_new_tokens": 6, "min_length": 2},
    ],
    ids=str,
)
def test_without_options_it_generates_as_the_folder_says(
    settings: dict[str, Any], folder: Path, theirs: Any, tmp_path: Path
) -> None:
    copied = tmp_path / "model"
    shutil.copytree(folder, copied)
    transformers.GenerationConfig(
        decoder_start_token_id=START, eos_token_id=END, pad_token_id=START, **settings
    ).save_pretrained(copied)
    again = type(theirs).from_pretrained(copied).eval()
    generator = Generator.load(copied, device="cpu")
    texts = ["the dog runs", "a small red horse"]
    found = generator.generate(texts, generator.options()).outputs
    for text, (output,) in zip(texts, found, strict=True):
        ids = torch.from_numpy(generator.tokenizer.encode([text]).input_ids)[None]
        (written,) = again.generate(ids).tolist()
        finished = END in written
        tokens = tuple(written[: written.index(END)] if finished else written)
        wanted = generator._output(Hypothesis(tokens, 0.0, finished), [START], text)
        assert (output.text, output.finished) == (wanted.text, wanted.finished)
