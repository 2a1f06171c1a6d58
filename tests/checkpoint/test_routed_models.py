"""Models that route tokens, and layers that recur: their folders, both ways, what reads them and what refuses to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.hf_config import family_of, read_config, write_config
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, DeviceError
from embedkit.inference.graph_runtime.export import export_model
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.native.encoder import _why_not_shape
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.reranker.start import start_from
from tests.model.test_learned_heads import HEADS
from tests.tiny import ROUTED_SHAPES, WORDS, tiny_config, write_static_model, write_tiny_model

ROUNDING = 1e-5
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, length)) for length in (1, 3, 20, 7, 12, 2, 25)]


@pytest.fixture(params=ROUTED_SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", config=tiny_config(**ROUTED_SHAPES[request.param]))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("shape", ROUTED_SHAPES)
def test_a_written_config_is_read_as_the_same_shape(shape: str) -> None:
    config = tiny_config(**ROUTED_SHAPES[shape])
    assert family_of(config) == "embedkit"
    content = json.loads(json.dumps(write_config(config, "embedkit")))
    assert read_config(content, "config.json") == ("embedkit", config)
    assert (content["model_type"], content["architectures"]) == ("embedkit", ["EmbedkitModel"])


def test_a_saved_model_gives_the_vectors_of_the_one_in_memory(folder: Path) -> None:
    read = read_model_folder(folder)
    torch.manual_seed(0)  # as `write_tiny_model` drew it
    model = SentenceEncoder(TransformerEncoder(read.config), read.modules.sentence).eval()
    batch = read.tokenizer.encode(TEXTS)
    with torch.inference_mode():
        expected = model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist())
    found = Encoder.load(folder, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=ROUNDING)


def test_no_vector_depends_on_the_other_texts(folder: Path) -> None:
    encoder = Encoder.load(folder, device="cpu")
    together = encoder.encode(TEXTS)
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    backwards = encoder.encode(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(together, backwards, rtol=0, atol=ROUNDING)
    assert np.linalg.norm(together[0] - together[1]) > 1e-2


@pytest.mark.parametrize("backend", ["numpy", "onnx", "openvino"])
def test_runtimes_that_do_not_route_say_so_and_torch_takes_over(folder: Path, backend: Any) -> None:
    with pytest.raises(
        DeviceError, match=rf"the {backend} backend does not compute .*(experts|recursion by)"
    ):
        Encoder.load(folder, device="cpu", backend=backend)
    for interactive in (True, False):
        encoder = Encoder.load(folder, device="cpu", interactive=interactive)
        assert repr(encoder.backend) == "torch on cpu, fp32"
        assert encoder.choice is not None
        assert encoder.choice.reason.startswith("not n")
    config = read_model_folder(folder).config
    assert str(config.routed) in str(_why_not_shape(config))  # whatever the processor has


def test_a_graph_of_it_is_not_written(folder: Path, tmp_path: Path) -> None:
    read = read_model_folder(folder)
    with pytest.raises(
        CheckpointError, match=r"cannot be exported for onnx: a model with .* is not written as a graph"
    ):
        export_model(read, "onnx", tmp_path / "graph", reference=lambda: pytest.fail("not asked for"))
    assert not (tmp_path / "graph").exists()


def test_merging_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(DeviceError, match="nothing here merges tokens of this model"):
        Encoder.load(folder, device="cpu", merge_tokens=0.1)


def test_a_field_of_a_later_release_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", config=tiny_config(experts=ExpertsConfig()))
    edit_config(folder, memory_layers=3)
    with pytest.raises(
        CheckpointError, match=r"'memory_layers' is not known to this release.* Update embedkit"
    ):
        read_model_folder(folder)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del content["memory_layers"]
    content["experts"]["temperature"] = 2
    with pytest.raises(CheckpointError, match=r"unknown key experts\.temperature"):
        read_config(content, "config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": {"num_experts": 4, "num_experts_per_tok": 5}}, "num_experts_per_tok is 5; there are 4"),
        ({"hidden_size": "32"}, "hidden_size is '32'; it must be a whole number"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        (
            {"experts": {"num_experts": 4}, "num_hidden_layers": 2},
            r"8 of 42 weights are missing: layers\.0\.mlp\.down",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_tiny_model(
        tmp_path / "model", config=tiny_config(experts=ExpertsConfig(num_experts=3, every_n_layers=1))
    )
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        Encoder.load(folder, device="cpu")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    content = write_config(tiny_config(experts=ExpertsConfig()), "embedkit")
    del content["vocab_size"]
    with pytest.raises(CheckpointError, match=r"config\.json: missing vocab_size"):
        read_config(content, "config.json")


def test_fewer_recursions_are_asked_for_by_number_and_told_in_the_fingerprint(tmp_path: Path) -> None:
    config = tiny_config(**ROUTED_SHAPES["expert choice"])
    folder = write_tiny_model(tmp_path / "model", config=config)
    whole, two, one = (Encoder.load(folder, device="cpu", recursions=count) for count in (3, 2, 1))
    vectors = [encoder.encode(TEXTS) for encoder in (whole, two, one)]
    np.testing.assert_array_equal(vectors[0], Encoder.load(folder, device="cpu").encode(TEXTS))
    cosines = [(vectors[0] * other).sum(axis=1).mean() for other in vectors[1:]]
    assert 1 > cosines[0] > cosines[1]
    assert "recursions" not in whole.fingerprint
    assert [encoder.fingerprint["recursions"] for encoder in (two, one)] == [2, 1]
    assert fingerprint(read_model_folder(folder, recursions=2))["recursions"] == 2
    with pytest.raises(CheckpointError, match=r"model: recursions is 4; the model was trained with 3"):
        Encoder.load(folder, recursions=4)


def test_fewer_recursions_of_a_fixed_depth_are_the_same_for_all_runtimes(tmp_path: Path) -> None:
    config = tiny_config(num_hidden_layers=5, recursion=RecursionConfig(routing="fixed"))
    folder = write_tiny_model(tmp_path / "model", config=config)
    found = [
        Encoder.load(folder, device="cpu", backend=backend, recursions=2).encode(TEXTS)
        for backend in ("torch", "numpy")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=ROUNDING)


def test_fewer_recursions_have_fewer_layers_than_a_mean_of_layers_weighs(tmp_path: Path) -> None:
    config = tiny_config(**ROUTED_SHAPES["expert choice"])
    folder = write_tiny_model(tmp_path / "model", config=config, sentence=HEADS["layers"])
    Encoder.load(folder, device="cpu", recursions=3).encode(TEXTS)
    with pytest.raises(CheckpointError, match="recursions 2 was asked for; its token vectors are a mean of"):
        Encoder.load(folder, device="cpu", recursions=2)


def test_a_model_that_does_not_recur_is_told_so(tiny_model: Path, tmp_path: Path) -> None:
    static_model = write_static_model(tmp_path / "static")
    with pytest.raises(CheckpointError, match="recursions is 2; the model has no layers that recur"):
        Encoder.load(tiny_model, recursions=2)
    with pytest.raises(CheckpointError, match="recursions 2 was asked for; a static model has no layers"):
        Encoder.load(static_model, recursions=2)


def test_a_cross_encoder_of_it_is_written_and_read(folder: Path, tmp_path: Path) -> None:
    from embedkit.checkpoint.classification_weights import save_classifier

    start = start_from(folder, num_labels=1, seed=0)
    save_classifier(tmp_path / "cross", start.model.eval(), start.tokenizer, family=start.family)
    model = CrossEncoder.load(tmp_path / "cross", device="cpu")
    texts = ["the dog runs in the water", "a girl sings", "the old man reads an index"]
    scores = model.score("a dog", texts)
    pairs = start.tokenizer.encode_pairs(["a dog"] * 3, texts, truncation="second")
    types = None if pairs.token_type_ids is None else torch.from_numpy(pairs.token_type_ids)
    with torch.inference_mode():
        logits = start.model(torch.from_numpy(pairs.input_ids), pairs.lengths.tolist(), types)[-1, :, 0]
    np.testing.assert_allclose(scores, logits.sigmoid().numpy(), rtol=0, atol=ROUNDING)
