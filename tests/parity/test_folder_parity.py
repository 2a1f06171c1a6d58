"""Folders that sentence-transformers writes, with all that they may say: our vectors are theirs, and ours load there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.encoding.encoder import Encoder
from embedkit.types import Float32
from tests.tiny import tiny_tokenizer

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

from sentence_transformers import SentenceTransformer  # noqa: E402  (after the check)
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import (  # noqa: E402
    Dropout,
    LayerNorm,
    Pooling,
    StaticEmbedding,
)
from transformers import AutoConfig, AutoModel  # noqa: E402

TOLERANCE = 1e-5  # float32, sums in another order
VOCABULARY = tiny_tokenizer().vocab_size
TEXTS = [
    "the dog runs",
    "",
    "A small RED horse, naïve; eats 12 large green guitars!",
    "the old man walks by the water and the boy sings an old song " * 4,
]
BLANK = "\u200b"  # a sign that the tokenizer drops


def transformer(folder: Path, family: str = "bert", **how: Any) -> Any:
    """Make a random encoder of theirs with our tiny tokenizer, and load it as their first module."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.2, **sizes
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save(folder)
    return Transformer(str(folder), max_seq_length=24, **how)


def saved(tmp_path: Path, *modules: Any, **how: Any) -> Path:
    """Save a model of theirs that begins with `transformer` and mean pooling."""
    first = transformer(tmp_path / "encoder")
    SentenceTransformer(modules=[first, Pooling(32), *modules], device="cpu", **how).save(
        str(tmp_path / "theirs")
    )
    return tmp_path / "theirs"


def theirs(folder: Path, texts: list[str] = TEXTS, **how: Any) -> Float32:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(texts, show_progress_bar=False, **how), dtype=np.float32)


def ours(folder: Path, texts: list[str] = TEXTS) -> Float32:
    return Encoder.load(folder, device="cpu").encode(texts, on_truncate="ok")


def check(folder: Path, tmp_path: Path, texts: list[str] = TEXTS) -> Float32:
    """Compare vectors of a folder, and of the one that we write of it again."""
    wanted = theirs(folder, texts)
    np.testing.assert_allclose(ours(folder, texts), wanted, rtol=0, atol=TOLERANCE)
    read = read_model_folder(folder)
    again = tmp_path / "again"
    family = None if read.static else read.family
    write_model(again, load_model(read), read.tokenizer, read.modules, family=family)
    np.testing.assert_allclose(theirs(again, texts), wanted, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(ours(again, texts), wanted, rtol=0, atol=TOLERANCE)
    return wanted


@pytest.mark.parametrize("modules", [[], [Normalize()]], ids=["plain", "normalized"])
@pytest.mark.parametrize("dimension", [8, 99])
def test_the_folders_own_truncate_dim_is_kept(dimension: int, modules: list[Any], tmp_path: Path) -> None:
    """More dimensions than there are means all; what is left of a normalized vector is not normalized again, as there."""
    folder = saved(tmp_path, *modules, truncate_dim=dimension)
    assert check(folder, tmp_path).shape == (len(TEXTS), min(dimension, 32))
    assert fingerprint(read_model_folder(folder))["dimension"] == min(dimension, 32)
    cut = theirs(folder, truncate_dim=5, normalize_embeddings=bool(modules))
    asked = Encoder.load(folder, device="cpu", truncate_dim=5)
    assert (asked.dimension, asked.fingerprint["dimension"]) == (5, 5)
    np.testing.assert_allclose(asked.encode(TEXTS, on_truncate="ok"), cut, rtol=0, atol=TOLERANCE)


def test_dropout_and_layer_norm_modules(tmp_path: Path) -> None:
    norm = LayerNorm(32)
    torch.nn.init.normal_(norm.norm.weight)
    torch.nn.init.normal_(norm.norm.bias)
    modules = [Dropout(0.5), norm, Dense(32, 12), Dropout(0.1), LayerNorm(12), Normalize()]
    check(saved(tmp_path, *modules), tmp_path)


@pytest.mark.parametrize("activation", [torch.nn.ELU(), torch.nn.LeakyReLU()], ids=["elu", "leaky_relu"])
def test_activations_of_dense_layers(activation: torch.nn.Module, tmp_path: Path) -> None:
    check(saved(tmp_path, Dense(32, 12, activation_function=activation)), tmp_path)


def test_dense_layers_with_a_residual(tmp_path: Path) -> None:
    modules = [Dense(32, 32, use_residual=True), Dense(32, 12, use_residual=True, bias=False)]
    check(saved(tmp_path, *modules), tmp_path)


def test_texts_cut_on_the_left_with_and_without_an_unpooled_prompt(tmp_path: Path) -> None:
    first = transformer(tmp_path / "encoder", processor_kwargs={"truncation_side": "left"})
    prompts = {"query": "which song: "}
    model = SentenceTransformer(
        modules=[first, Pooling(32, include_prompt=False)], prompts=prompts, device="cpu"
    )
    model.save(str(tmp_path / "theirs"))
    check(tmp_path / "theirs", tmp_path)
    model = SentenceTransformer(str(tmp_path / "theirs"), device="cpu")
    encoder = Encoder.load(tmp_path / "theirs", device="cpu")
    wanted = model.encode(TEXTS, prompt="which song: ")
    np.testing.assert_allclose(
        encoder.encode(TEXTS, prompt="which song: ", on_truncate="ok"), wanted, rtol=0, atol=TOLERANCE
    )


def test_tokens_beside_a_vocabulary_and_case_against_the_file(tmp_path: Path) -> None:
    """The two of the issue: added_tokens.json beside vocab.txt, and do_lower_case against tokenizer.json."""
    folder = saved(tmp_path)
    (folder / "tokenizer.json").unlink()
    pieces = sorted(tiny_tokenizer().backend.get_vocab().items(), key=lambda item: item[1])
    added = pieces[-2:]  # the last rows of the table become words that are added
    lines = [piece for piece, _ in pieces[:-2]]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {"the boy": added[0][1], "NAÏVE": added[1][1]}
    (folder / "added_tokens.json").write_text(json.dumps(names), encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 24}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    texts = ["the boy and the dog", "a NAÏVE horse", *TEXTS]
    check(folder, tmp_path, texts)
    without = shutil.copytree(folder, tmp_path / "without")
    (without / "added_tokens.json").unlink()
    assert np.abs(ours(without, texts) - ours(folder, texts))[:2].max() > 0.1

    shutil.rmtree(tmp_path / "again")
    cased = saved(tmp_path / "cased")
    (cased / "tokenizer_config.json").write_text(
        json.dumps(config | {"do_lower_case": False}), encoding="utf-8"
    )
    before = ours(folder)
    check(cased, tmp_path)
    assert np.abs(ours(cased) - before)[2].max() > 0.1


def test_a_camembert(tmp_path: Path) -> None:
    """RoBERTa's architecture under its own name, with positions after the padding's."""
    first = transformer(tmp_path / "encoder", "camembert")
    SentenceTransformer(modules=[first, Pooling(32)], device="cpu").save(str(tmp_path / "theirs"))
    assert read_model_folder(tmp_path / "theirs").family == "camembert"
    check(tmp_path / "theirs", tmp_path)


def test_a_camembert_cross_encoder(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder as TheirCrossEncoder
    from transformers import AutoModelForSequenceClassification

    from embedkit.reranking.cross_encoder import CrossEncoder

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model(
        "camembert",
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        initializer_range=0.2,
        num_labels=1,
        **sizes,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    found = CrossEncoder.load(tmp_path, device="cpu").score("a dog", TEXTS)
    wanted = TheirCrossEncoder(str(tmp_path), device="cpu").predict([("a dog", text) for text in TEXTS])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_static_model_with_texts_of_no_tokens(normalized: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = StaticEmbedding(tiny_tokenizer().backend, embedding_dim=16)
    modules = [module, *[Normalize()] * normalized]
    prompts = {"query": "which "}
    SentenceTransformer(modules=modules, prompts=prompts, truncate_dim=9, device="cpu").save(
        str(tmp_path / "theirs")
    )
    texts = [TEXTS[0], BLANK, "", *TEXTS[2:]]
    found = check(tmp_path / "theirs", tmp_path, texts)
    assert not found[1:3].any()
    assert read_model_folder(tmp_path / "again").modules.prompts["query"] == "which "


def test_a_static_models_tokenizer_json_cuts_a_text(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backend = tiny_tokenizer().backend
    backend.enable_truncation(5, direction="left")
    SentenceTransformer(modules=[StaticEmbedding(backend, embedding_dim=16)], device="cpu").save(
        str(tmp_path / "theirs")
    )
    backend.no_truncation()
    check(tmp_path / "theirs", tmp_path)


def model2vec_folder(folder: Path, **arrays: NDArray[Any]) -> Path:
    """Lay a folder as model2vec's `save_pretrained` does: `embeddings`, perhaps rows and weights of tokens."""
    folder.mkdir(parents=True)
    save_file(arrays, folder / "model.safetensors")
    backend = tiny_tokenizer().backend
    backend.enable_truncation(7)
    backend.save(str(folder / "tokenizer.json"))
    backend.no_truncation()
    config = {"normalize": True, "max_length": 7, "embedding_dtype": str(arrays["embeddings"].dtype)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows = [
        {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.mark.parametrize("quantized", [False, True])
def test_a_model2vec_folder_with_modules_is_read_as_they_read_it(quantized: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "embeddings": rng.standard_normal((20 if quantized else VOCABULARY, 16)).astype(np.float32)
    }
    if quantized:  # a vocabulary in 20 clusters, each token with its own weight
        arrays["mapping"] = rng.integers(0, 20, VOCABULARY)
        arrays["weights"] = rng.random(VOCABULARY).astype(np.float32)
    folder = model2vec_folder(tmp_path / "theirs", **arrays)
    check(folder, tmp_path, [BLANK, *TEXTS])
    torch_vectors = Encoder.load(folder, device="cpu", backend="torch").encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(torch_vectors, ours(folder), rtol=0, atol=TOLERANCE)
    assert "embeddings" in load_file(folder / "model.safetensors")
