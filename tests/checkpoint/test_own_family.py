"""Models that no family of Hugging Face's can say: our own folders, both ways, and what refuses them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.classification_weights import (
    classifier_from_encoder,
    load_classifier,
    save_classifier,
)
from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import all_weight_files, fingerprint, read_model_folder
from embedkit.checkpoint.hf_config import family_of, read_config, write_config
from embedkit.checkpoint.names import BASE_PREFIX, IGNORED_PREFIXES, encoder_names, mlm_head_names, tied_names
from embedkit.checkpoint.pretraining import load_pretraining, write_pretraining
from embedkit.checkpoint.quantized import QUANTIZATION
from embedkit.checkpoint.st_modules import read_modules
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, DeviceError
from embedkit.inference.choice import choose_runtime, why_not_parts
from embedkit.inference.graph_runtime.export import export_model
from embedkit.inference.loading import load_reference
from embedkit.model.classification import SequenceClassifier
from embedkit.model.config import DenseConfig, EncoderConfig, HeadConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from embedkit.model.learned_parts import AttentionPoolingConfig, SimilarityConfig
from embedkit.model.pretraining import PretrainingModel
from embedkit.model.shapes import encoder_shapes
from embedkit.reranking.cross_encoder import CrossEncoder
from tests.model.test_learned_heads import HEADS
from tests.tiny import FAMILY_SHAPES, VARIANT_SHAPES, tiny_config, tiny_tokenizer, write_tiny_model

TEXTS = [
    "",
    "the girl plays the guitar",
    "a dog",
    "she reads and he writes a large book of words in the old house",
]
ROUNDING = 2e-6  # of the same sums in numpy and torch


def random_vectors(folder: Path, **settings: Any) -> Any:
    return Encoder.load(folder, device="cpu", **settings).encode(TEXTS, on_truncate="ok")


@pytest.mark.parametrize("variant", VARIANT_SHAPES)
def test_a_variant_is_saved_under_our_own_family_and_comes_back(variant: str, tmp_path: Path) -> None:
    config = tiny_config(**VARIANT_SHAPES[variant])
    assert family_of(config) == "embedkit"
    folder = write_tiny_model(tmp_path / "model", config=config)
    read = read_model_folder(folder)
    assert (read.family, read.config) == ("embedkit", config)
    torch.manual_seed(0)
    model = load_sentence_encoder(read)
    batch = read.tokenizer.encode(TEXTS)
    with torch.inference_mode():
        expected = model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist()).numpy()
    np.testing.assert_allclose(random_vectors(folder), expected, rtol=0, atol=ROUNDING)
    # The weights that the seed of `write_tiny_model` draws, and not those of another draw.
    torch.manual_seed(0)
    drawn = TransformerEncoder(config).state_dict()
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, drawn[name]), name


def test_a_variant_is_stored_in_8_bits_and_no_other_quantization_is_read(tmp_path: Path) -> None:
    config = tiny_config(**VARIANT_SHAPES["relative"], hidden_size=64, intermediate_size=128)
    folder = write_tiny_model(tmp_path / "model", config=config)
    convert_folder(folder, tmp_path / "small", dtype=torch.int8)
    content = json.loads((tmp_path / "small" / "config.json").read_text(encoding="utf-8"))
    assert content["quantization_config"] == QUANTIZATION
    assert read_model_folder(tmp_path / "small").config == config
    sizes = [(each / "model.safetensors").stat().st_size for each in (folder, tmp_path / "small")]
    assert sizes[1] < 0.4 * sizes[0]
    kept, rounded = (random_vectors(each) for each in (folder, tmp_path / "small"))
    assert np.sum(kept * rounded, axis=1).min() > 0.999  # cosines
    with pytest.raises(CheckpointError, match="has a quantization_config"):
        read_config(content | {"quantization_config": {"quant_method": "gptq"}}, "config.json")


@pytest.mark.parametrize("variant", VARIANT_SHAPES)
def test_names_and_shapes_of_a_variant_are_those_of_its_module(variant: str) -> None:
    config = tiny_config(**VARIANT_SHAPES[variant])
    state = TransformerEncoder(config).state_dict()
    assert encoder_shapes(config) == {name: tuple(weight.shape) for name, weight in state.items()}
    names = encoder_names("embedkit", config)
    ignored = IGNORED_PREFIXES["embedkit"]
    assert not any(name.startswith((*ignored, BASE_PREFIX["embedkit"])) for name in names)
    heads = [name for parts in mlm_head_names("embedkit", config).values() for name in parts]
    assert all(name.startswith(ignored) for name in (*heads, *tied_names("embedkit")))


def test_a_shape_that_a_family_says_stays_with_it() -> None:
    for family, shape in FAMILY_SHAPES.items():
        assert (family_of(tiny_config(**shape)) == "embedkit") == (family == "embedkit"), family
    # Each of these would be read back as something else.
    for fields in (
        {"position": "sinusoidal", "type_vocab_size": 0},
        {"norm_first": True},
        {"gated_mlp": True},
    ):
        assert family_of(tiny_config(**fields)) == "embedkit", fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_windows": 3}, "'attention_windows' is not known to this release of embedkit"),
        ({"attention": "cosine"}, "attention is 'cosine'; it must be one of dot, additive"),
        ({"attention_rank": "8"}, "attention_rank is '8'; it must be a whole number"),
        ({"position": "rope", "attention": "additive"}, "additive attention has none"),
    ],
)
def test_a_config_of_ours_is_read_strictly(change: dict[str, Any], message: str) -> None:
    content = write_config(tiny_config(attention="bilinear"), "embedkit")
    with pytest.raises(CheckpointError, match=message):
        read_config(content | change, "config.json")
    del content["hidden_size"]
    with pytest.raises(CheckpointError, match=r"config\.json: missing hidden_size"):
        read_config(content, "config.json")


def test_a_field_that_came_later_has_its_default() -> None:
    config = tiny_config(attention="bilinear")
    content = write_config(config, "embedkit")
    del content["attention_features"]
    assert read_config(content, "config.json") == ("embedkit", config)


def test_pretraining_heads_lie_beside_a_variant_and_come_back(tmp_path: Path) -> None:
    config = tiny_config(**VARIANT_SHAPES["relative"])
    torch.manual_seed(0)
    heads = MaskedLMHead(config), NextSentenceHead(config)
    model = PretrainingModel(TransformerEncoder(config), *heads)
    (tmp_path / "model").mkdir()
    write_pretraining(tmp_path / "model", model, tiny_tokenizer(), "embedkit")
    folder = read_model_folder(tmp_path / "model")
    again, fresh = load_pretraining(folder, next_sentence=True)
    assert fresh == ()
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    load_sentence_encoder(folder)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_comes_back_and_gives_the_same_vectors(head: str, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", sentence=HEADS[head])
    assert read_modules(folder).sentence == HEADS[head]
    read = read_model_folder(folder)
    model = load_sentence_encoder(read)
    batch = read.tokenizer.encode(TEXTS)
    with torch.inference_mode():
        expected = model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist()).numpy()
    np.testing.assert_allclose(random_vectors(folder), expected, rtol=0, atol=ROUNDING)
    weights = load_sentence_weights(read)
    for part, mapped in weights.parts.items():
        for name, weight in model.get_submodule(part).state_dict().items():
            np.testing.assert_array_equal(mapped[name], weight.numpy())
    types = {row["type"] for row in json.loads((folder / "modules.json").read_text(encoding="utf-8"))}
    theirs = all(name.startswith("sentence_transformers.models.") for name in types)
    assert theirs == (head in ("layers", "later layers"))


def test_a_head_with_layers_after_it_and_a_prompt_that_is_not_pooled(tmp_path: Path) -> None:
    sentence = SentenceConfig(
        pooling=(),
        attention=AttentionPoolingConfig(aspects=2, size=5, combine="concat"),
        pool_prompt=False,
        layer_start=1,
        dense=(DenseConfig(in_features=64, out_features=8),),
        normalize=True,
        similarity=SimilarityConfig(kind="bilinear"),
    )
    folder = write_tiny_model(tmp_path / "model", sentence=sentence, prompts={"query": "a girl "})
    names = [row["path"] for row in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
    assert names == [
        "",
        "1_WeightedLayerPooling",
        "2_AttentionPooling",
        "3_Dense",
        "4_Normalize",
        "5_Similarity",
    ]
    assert read_modules(folder).sentence == sentence
    files = all_weight_files(read_model_folder(folder))
    assert [file.parent.name for file in files[1:]] == [names[3], names[1], names[2], names[5]]
    encoder = Encoder.load(folder, device="cpu")
    prompted, plain = encoder.encode("dog", prompt_name="query"), encoder.encode("dog")
    assert prompted.shape == (8,)
    assert np.abs(prompted - plain).max() > 1e-3


def test_a_part_changes_the_fingerprint(tmp_path: Path) -> None:
    prints = {}
    for head in ("structured mean", "layers", "bilinear"):
        folder = write_tiny_model(tmp_path / head, sentence=HEADS[head])
        prints[head] = before = fingerprint(read_model_folder(folder))
        (file,) = folder.glob("*_[WAS]*/model.safetensors")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        after = fingerprint(read_model_folder(folder))
        assert before["weights"] != after["weights"]
    assert prints["bilinear"]["similarity"] == "bilinear"
    assert "similarity" not in prints["layers"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "2_Similarity/config.json",
            {"similarity": "euclid"},
            "similarity is 'euclid'; it must be one of bilinear, additive, fields",
        ),
        ("2_Similarity/config.json", {"similarity": "fields"}, r"fields are \[\] of a fields similarity"),
        (
            "2_Similarity/config.json",
            {"similarity": "fields", "fields": ["title", "title"]},
            "'title' stands there twice. Copy the file again",
        ),
        ("2_Similarity/config.json", {"similarity": "fields", "fields": [1]}, "it must name fields"),
        (
            "2_Similarity/config.json",
            {"similarity": "fields", "fields": ["title"]},
            "9 of 9 weights are missing",
        ),
        ("2_Similarity/config.json", {"size": 0}, "similarity size is 0; it must be at least 1"),
        (
            "1_AttentionPooling/config.json",
            {"combine": "sum"},
            "combine is 'sum'; it must be one of mean, concat",
        ),
        (
            "1_AttentionPooling/config.json",
            {"aspects": "two"},
            "'aspects' is 'two'; it must be a whole number",
        ),
        (
            "1_AttentionPooling/config.json",
            {"aspects": 2},
            r"1_AttentionPooling: weight 'aspects\.weight' has shape",
        ),
    ],
)
def test_a_damaged_part_is_refused(file: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    sentence = SentenceConfig(pooling=(), attention=AttentionPoolingConfig(size=5), normalize=True)
    if "Similarity" in file:
        sentence = SentenceConfig(normalize=True, similarity=SimilarityConfig(kind="bilinear"))
        file = "3_" + file[2:]
    folder = write_tiny_model(tmp_path / "model", sentence=sentence)
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_sentence_encoder(read_model_folder(folder))


def test_a_mean_of_layers_that_sentence_transformers_would_pass_over_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", sentence=HEADS["layers"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["output_hidden_states"] is True
    part = folder / "1_WeightedLayerPooling" / "config.json"
    content = json.loads(part.read_text(encoding="utf-8"))
    part.write_text(json.dumps(content | {"layer_start": 3}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="layer_start is 3; the encoder has 2 layers"):
        read_model_folder(folder)
    (folder / "config.json").write_text(
        json.dumps(config | {"output_hidden_states": False}), encoding="utf-8"
    )
    part.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="output_hidden_states is not true, without which sentence-tr"):
        read_model_folder(folder)


MODERN_ORDER = [
    ("Transformer", ""),
    ("Pooling", "1_Pooling"),
    ("WeightedLayerPooling", "2_WeightedLayerPooling"),
]


def test_parts_in_another_order_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", sentence=HEADS["bilinear"])
    rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    rows[2], rows[3] = rows[3], rows[2]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(CheckpointError, match="Normalize stands after Similarity, which must be the last"):
        read_modules(folder)
    types = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in MODERN_ORDER]
    (folder / "modules.json").write_text(json.dumps(types), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match="module 2 is WeightedLayerPooling; wanted Transformer, Pooling"
    ):
        read_modules(folder)


@pytest.mark.parametrize("variant", [name for name in VARIANT_SHAPES if name != "local"])
def test_only_torch_computes_a_variant_and_the_others_say_why(variant: str) -> None:
    config = tiny_config(**VARIANT_SHAPES[variant])
    for interactive in (False, True):
        choice = choose_runtime(config, "fp32", "cpu", interactive=interactive)
        assert choice.runtime == "torch"
        assert choice.reason
    for runtime in ("numpy", "native"):
        with pytest.raises(
            DeviceError, match=f"the {runtime} backend does not compute this model in fp32 here"
        ):
            choose_runtime(config, "fp32", "cpu", wanted=runtime)
    as_graph = why_not_parts("onnx", config, SentenceConfig())
    assert (as_graph is None) == (not config.attention_variant)


def test_what_stands_on_an_encoder_decides_what_computes_it() -> None:
    config = tiny_config()
    for head, sentence in HEADS.items():
        numpy, onnx = (why_not_parts(runtime, config, sentence) for runtime in ("numpy", "onnx"))
        assert (numpy is None) == ("layers" not in head), head
        assert (onnx is None) == (head in ("bilinear", "additive", "fields")), head
    residual = SentenceConfig(dense=(DenseConfig(in_features=32, out_features=32, residual=True),))
    assert why_not_parts("numpy", config, residual) is None
    assert (
        why_not_parts("onnx", config, residual) == "a dense layer with a residual is not written as a graph"
    )
    choice = choose_runtime(config, "fp32", "cpu", sentence=HEADS["layers"], interactive=True)
    assert choice.runtime == "torch"
    assert "this model takes a mean of several" in choice.reason


@pytest.mark.parametrize("head", ["attention", "structured mean", "structured concat"])
def test_numpy_pools_by_attention_as_torch_does(head: str, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", sentence=HEADS[head], prompts={"query": "a girl "})
    ours = random_vectors(folder, backend="numpy")
    np.testing.assert_allclose(ours, random_vectors(folder, backend="torch"), rtol=0, atol=ROUNDING)


def test_a_variant_is_not_exported_as_a_graph(tmp_path: Path) -> None:
    for name, config, sentence, reason in (
        (
            "low",
            tiny_config(**VARIANT_SHAPES["low rank"]),
            None,
            "low-rank attention is not written as a graph",
        ),
        ("pooled", None, HEADS["attention"], "pooling by attention is not written as a graph"),
    ):
        folder = read_model_folder(write_tiny_model(tmp_path / name, config=config, sentence=sentence))
        with pytest.raises(CheckpointError, match=f"cannot be exported for onnx: {reason}"):
            export_model(folder, "onnx", tmp_path / "graph", reference=lambda: pytest.fail("not asked for"))
        assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize("variant", ["rotary", "local"])
def test_a_variant_with_usual_attention_is_exported_with_our_vectors(variant: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = read_model_folder(
        write_tiny_model(tmp_path / "model", config=tiny_config(**VARIANT_SHAPES[variant]))
    )
    found = export_model(folder, "onnx", tmp_path / "graph", reference=partial(load_reference, folder))
    assert found.agreement.largest_difference < 1e-5


@pytest.mark.parametrize("variant", ["relative", "random features", "bilinear rotary"])
def test_a_cross_encoder_over_a_variant_reads_whole_layers(variant: str) -> None:
    """The shortcut for the first token knows plain attention alone."""
    torch.manual_seed(0)
    config = tiny_config(**VARIANT_SHAPES[variant])
    model = SequenceClassifier(TransformerEncoder(config), HeadConfig(num_labels=2)).eval()
    ids, lengths = torch.randint(2, 200, (12,)), [7, 5]
    with torch.inference_mode():
        expected = model(ids, lengths)[0]
        torch.testing.assert_close(model.head(model.pooled(ids, lengths)), expected, rtol=0, atol=1e-5)


def test_a_cross_encoder_over_a_variant_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config(**VARIANT_SHAPES["additive"])
    model = SequenceClassifier(TransformerEncoder(config), HeadConfig(num_labels=2)).eval()
    save_classifier(
        tmp_path / "model", model, tiny_tokenizer(), family=family_of(config), labels=("no", "yes")
    )
    folder = read_classifier_folder(tmp_path / "model")
    assert (folder.family, folder.config, folder.labels) == ("embedkit", config, ("no", "yes"))
    again = load_classifier(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    scores = CrossEncoder.load(tmp_path / "model", device="cpu").logits(TEXTS[1:2], TEXTS[2:3])
    assert np.isfinite(scores).all()
    encoder = write_tiny_model(tmp_path / "encoder", config=config)
    classifier_from_encoder(read_model_folder(encoder), num_labels=1, seed=0)


@pytest.mark.parity
def test_transformers_refuses_our_family_by_its_name(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_tiny_model(tmp_path / "model", config=tiny_config(attention="additive"))
    with pytest.raises(ValueError, match="embedkit"):
        transformers.AutoModel.from_pretrained(str(folder))


@pytest.mark.parity
@pytest.mark.parametrize("head", ["attention", "bilinear"])
def test_sentence_transformers_refuses_parts_of_ours(head: str, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = write_tiny_model(tmp_path / "model", sentence=HEADS[head])
    with pytest.raises(
        (ImportError, AttributeError, ValueError), match=r"embedkit|AttentionPooling|Similarity"
    ):
        library.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parity
@pytest.mark.parametrize(
    # transformers reads a folder of Qwen2 by Qwen2's own tokenizer, whatever the folder names; it has no Jina v2.
    "family",
    [family for family in FAMILY_SHAPES if family not in ("mpnet", "embedkit", "qwen2", "jina_bert")],
)
@pytest.mark.parametrize("start", [0, 1])
def test_a_mean_of_layers_equals_sentence_transformers(family: str, start: int, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    config: EncoderConfig = tiny_config(**FAMILY_SHAPES[family])
    sentence = SentenceConfig(layer_start=start, normalize=True)
    folder = write_tiny_model(tmp_path / "model", config=config, sentence=sentence)
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS[1:])
    ours = Encoder.load(folder, device="cpu").encode(TEXTS[1:])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)
