"""Every family against transformers and sentence-transformers, on random tiny models, through files on disk both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.checkpoint.families.table import ROWS
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.model.config import DenseConfig, PoolingMode, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.types import Float32
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

import transformers  # noqa: E402  (after the check)
from sentence_transformers import SentenceTransformer  # noqa: E402
from transformers import AutoConfig, AutoModel  # noqa: E402

TOLERANCE = 1e-5  # float32, sums in another order
VOCABULARY = tiny_tokenizer().vocab_size
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
# What their config is told beyond the sizes, by case; `beyond` reaches past the relative buckets and the local windows.
THEIRS: dict[str, tuple[Family, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "bert relu": ("bert", {"hidden_act": "relu", "type_vocab_size": 1, "layer_norm_eps": 1e-6}),
    "roberta": ("roberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": ("xlm-roberta", {"pad_token_id": 1, "layer_norm_eps": 1e-5}),
    "distilbert": ("distilbert", {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64}),
    "distilbert sinusoidal": (
        "distilbert",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "sinusoidal_pos_embds": True},
    ),
    "mpnet": ("mpnet", {}),
    "mpnet beyond": ("mpnet", {"max_position_embeddings": 300}),
    "albert": ("albert", {"embedding_size": 16}),
    "albert groups": ("albert", {"embedding_size": 32, "num_hidden_groups": 2, "hidden_act": "gelu"}),
    "modernbert": ("modernbert", {"pad_token_id": 0, "local_attention": 8}),
    "modernbert beyond": (
        "modernbert",
        {
            "pad_token_id": 0,
            "max_position_embeddings": 300,
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "num_hidden_layers": 5,
        },
    ),
}


def their_model(case: str, folder: Path) -> tuple[Any, Path]:
    """Make a random model of theirs and save it; fresh biases are zero and norms one, so all are drawn."""
    family, fields = THEIRS[case]
    torch.manual_seed(0)
    for_family = AutoConfig.for_model(family, **COMMON | fields)
    model = AutoModel.from_config(for_family, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(mean=float("weight" in name), std=0.2)
    model.save_pretrained(folder)
    tiny_tokenizer(max_length=min(300, for_family.max_position_embeddings - 2)).save(folder)
    return model, folder


def batch(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(
        5, VOCABULARY, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1)
    )
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids, mask


def their_tokens(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    padding = model.config.pad_token_id if model.config.model_type != "mpnet" else 1
    with torch.inference_mode():
        out = model(input_ids=ids.masked_fill(~mask, padding), attention_mask=mask.long())
    tokens: torch.Tensor = out.last_hidden_state[mask]
    return tokens


@pytest.mark.parametrize("case", THEIRS)
def test_their_folder_gives_us_their_token_vectors(case: str, tmp_path: Path) -> None:
    model, folder = their_model(case, tmp_path / "theirs")
    ids, mask = batch([233, 160, 5, 1] if "beyond" in case else [60, 37, 37, 5, 1])
    expected = their_tokens(model, ids, mask)
    encoder = load_sentence_encoder(read_model_folder(folder)).encoder
    with torch.inference_mode():
        padded = encoder(ids, mask)[mask]
        packed = encoder.forward_packed(ids[mask], mask.sum(dim=1).tolist())
    torch.testing.assert_close(padded, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(packed, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_token_types_count(kind: str, tmp_path: Path) -> None:
    model, folder = their_model(kind, tmp_path / "theirs")
    ids, mask = batch([20, 9])
    types = (torch.arange(20) > 5).long().expand(2, 20)
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask.long(), token_type_ids=types).last_hidden_state[
            mask
        ]
        ours = load_sentence_encoder(read_model_folder(folder)).encoder(ids, mask, types)[mask]
    torch.testing.assert_close(ours, expected, rtol=0, atol=TOLERANCE)


def test_a_bert_with_a_head_and_old_norm_names_loads(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    model = transformers.BertForPreTraining(AutoConfig.for_model("bert", **COMMON)).eval()
    model.save_pretrained(tmp_path / "m")
    tiny_tokenizer().save(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    old = load_file(path)
    path.unlink()
    renames = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    for new, before in renames:
        old = {name.replace(new, before): tensor for name, tensor in old.items()}
    save_file(old, path, metadata={"format": "pt"})
    ids, mask = batch([12, 7])
    with torch.inference_mode():
        ours = load_sentence_encoder(read_model_folder(tmp_path / "m")).encoder(ids, mask)[mask]
    torch.testing.assert_close(ours, their_tokens(model.bert, ids, mask), rtol=0, atol=TOLERANCE)


TEXTS = [
    "the dog runs",
    "",
    "A small RED horse, naïve; eats 12 large green guitars!",
    "  spaces\tand\nlines  ",
    "the old man walks by the water and the boy sings an old song " * 4,
]
MODES: tuple[PoolingMode, ...] = ("mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_len")


def our_folder(folder: Path, family: Family, sentence: SentenceConfig, **fields: Any) -> Path:
    torch.manual_seed(0)
    encoder = TransformerEncoder(tiny_config(**FAMILY_SHAPES[family]))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(mean=float("weight" in name), std=0.2)
    modules = SentenceModules(sentence=sentence, **{"max_seq_length": 24} | fields)
    save_sentence_encoder(
        folder, SentenceEncoder(encoder, sentence), tiny_tokenizer(), modules, family=family
    )
    return folder


def their_vectors(folder: Path, texts: list[str] = TEXTS, **how: Any) -> Float32:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(texts, show_progress_bar=False, **how), dtype=np.float32)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ROWS])
def test_our_folder_gives_them_our_vectors(family: Family, tmp_path: Path) -> None:
    sentence = SentenceConfig(pooling=("mean", "cls"), normalize=True)
    folder = our_folder(tmp_path / "ours", family, sentence)
    ours = Encoder.load(folder).encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(ours, their_vectors(folder), rtol=0, atol=TOLERANCE)
    model = (
        AutoModel.from_pretrained(folder, add_pooling_layer=False)
        if family in ("bert", "roberta", "xlm-roberta", "mpnet")
        else AutoModel.from_pretrained(folder)
    )
    ids, mask = batch([40, 13, 1])
    with torch.inference_mode():
        tokens = load_sentence_encoder(read_model_folder(folder)).encoder(ids, mask)[mask]
    torch.testing.assert_close(tokens, their_tokens(model.eval(), ids, mask), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_every_pooling_with_and_without_the_prompt_is_theirs(
    mode: PoolingMode, include: bool, tmp_path: Path
) -> None:
    prompts = {"query": "which song: ", "document": ""}
    sentence = SentenceConfig(pooling=(mode,), pool_prompt=include)
    folder = our_folder(tmp_path / "ours", "bert", sentence, prompts=prompts, default_prompt_name="query")
    encoder = Encoder.load(folder)
    for ours, theirs in (
        (encoder.encode(TEXTS, on_truncate="ok"), their_vectors(folder)),
        (encoder.encode(TEXTS, prompt="", on_truncate="ok"), their_vectors(folder, prompt="")),
        (encoder.encode(TEXTS, prompt="a boy", on_truncate="ok"), their_vectors(folder, prompt="a boy")),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=TOLERANCE)


@pytest.mark.parametrize("both", [True, False])
def test_roles_take_the_prompts_that_theirs_take(tmp_path: Path, both: bool) -> None:
    prompts = (
        {"query": "which song: ", "document": "a song: ", "other": "the "} if both else {"other": "the "}
    )
    folder = our_folder(
        tmp_path / "ours", "bert", SentenceConfig(), prompts=prompts, default_prompt_name="other"
    )
    encoder, model = (
        Encoder.load(folder),
        SentenceTransformer(str(folder), device="cpu", local_files_only=True),
    )
    np.testing.assert_allclose(
        encoder.encode_queries(TEXTS), model.encode_query(TEXTS), rtol=0, atol=TOLERANCE
    )
    np.testing.assert_allclose(
        encoder.encode_documents(TEXTS), model.encode_document(TEXTS), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu", "gelu", "silu", "sigmoid"])
def test_dense_layers_normalization_and_truncate_dim_are_theirs(activation: Any, tmp_path: Path) -> None:
    dense = (
        DenseConfig(in_features=64, out_features=16, activation=activation),
        DenseConfig(in_features=16, out_features=8, bias=False, activation="identity"),
    )
    sentence = SentenceConfig(pooling=("max", "mean"), dense=dense, normalize=True)
    folder = our_folder(tmp_path / "ours", "bert", sentence)
    np.testing.assert_allclose(
        Encoder.load(folder).encode(TEXTS, on_truncate="ok"), their_vectors(folder), rtol=0, atol=TOLERANCE
    )
    cut = their_vectors(folder, truncate_dim=5, normalize_embeddings=True)
    ours = Encoder.load(folder, truncate_dim=5).encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(ours, cut, rtol=0, atol=TOLERANCE)


def test_a_folder_that_they_write_is_read_with_its_newer_spelling(tmp_path: Path) -> None:
    folder = our_folder(tmp_path / "ours", "bert", SentenceConfig(pooling=("cls", "max"), normalize=True))
    SentenceTransformer(str(folder), device="cpu", local_files_only=True).save(str(tmp_path / "theirs"))
    assert "pooling_mode_" not in (tmp_path / "theirs" / "1_Pooling" / "config.json").read_text(
        encoding="utf-8"
    )
    ours, again = (
        Encoder.load(path).encode(TEXTS, on_truncate="ok") for path in (folder, tmp_path / "theirs")
    )
    np.testing.assert_array_equal(ours, again)
    model, plain = their_model("bert", tmp_path / "plain")
    del model
    np.testing.assert_allclose(
        Encoder.load(plain).encode(TEXTS, on_truncate="ok"), their_vectors(plain), rtol=0, atol=TOLERANCE
    )
