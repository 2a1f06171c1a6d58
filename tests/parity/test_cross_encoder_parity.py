"""Our cross-encoder beside transformers and sentence-transformers, on random tiny models of each family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier, save_classifier
from embedkit.reranking.cross_encoder import CrossEncoder
from tests.tiny import tiny_tokenizer

transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TOLERANCE = 1e-5  # fp32, other order of sums, two layers
QUERIES = ("the girl plays the piano", "a dog runs", "red water", "")
LONG = "the old man reads a book at the beach and writes a sentence for an index that searches a vector "
TEXTS = ("a boy sings a song", "horse", "", LONG, "the dog sleeps in the red water", LONG * 3, "cat " * 7)

BERT = {
    "vocab_size": tiny_tokenizer().vocab_size,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
DISTILBERT = {
    "vocab_size": BERT["vocab_size"],
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
}
MODERN = BERT | {
    "num_hidden_layers": 3,
    "local_attention": 8,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", BERT | {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", BERT | {"type_vocab_size": 1}),
    "distilbert": ("DistilBert", DISTILBERT),
    "mpnet": ("MPNet", BERT),
    "albert": ("Albert", BERT | {"embedding_size": 16, "num_hidden_groups": 1}),
    "electra": ("Electra", BERT | {"embedding_size": 16}),
    "nomic": ("NomicBert", BERT),
    "gte": ("Gte", BERT | {"type_vocab_size": 1}),
    "deberta": (
        "DebertaV2",
        BERT
        | {"relative_attention": True, "position_buckets": 8, "share_att_key": True, "type_vocab_size": 0}
        | {"pos_att_type": "p2c|c2p", "norm_rel_ebd": "layer_norm", "position_biased_input": False},
    ),
    "qwen3": ("Qwen3", BERT | {"num_key_value_heads": 2, "head_dim": 8}),
    "llama": ("Llama", BERT | {"num_key_value_heads": 2}),
    "mistral": ("Mistral", BERT | {"num_key_value_heads": 2, "sliding_window": 8}),
    "jina": ("JinaEmbeddingsV3", BERT | {"type_vocab_size": 1}),
    "gemma3": (
        "Gemma3Text",
        BERT | {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8, "num_hidden_layers": 3},
    ),
    "gpt2": (
        "GPT2",
        {
            **{"vocab_size": BERT["vocab_size"], "n_embd": 32, "n_layer": 2, "n_head": 4},
            **{"n_positions": 66, "initializer_range": 0.2, "pad_token_id": 0},
        },
    ),
    "eurobert": ("EuroBert", BERT | {"classifier_pooling": "bos", "mask_token_id": 4}),
    "eurobert-mean": ("EuroBert", BERT | {"classifier_pooling": "mean", "mask_token_id": 4}),
    "modernbert": ("ModernBert", MODERN | {"classifier_pooling": "cls"}),
    "modernbert-mean": ("ModernBert", MODERN | {"classifier_pooling": "mean", "classifier_bias": True}),
}


def reference(
    folder: Path, family: str, *, num_labels: int = 1, max_length: int = 48
) -> Any:  # Any: untyped library
    """Write a random model of transformers' own class with a tokenizer, and return it."""
    name, shape = FAMILIES[family]
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**shape, num_labels=num_labels)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    with torch.no_grad():  # fresh biases and norms are 0 and 1, which would hide a mix-up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    write_tokenizer(folder, family, max_length)
    return model


def write_tokenizer(folder: Path, family: str, max_length: int) -> None:
    # Only these have more than one token type.
    typed = ("bert", "albert", "electra", "nomic")
    tiny_tokenizer(max_length=max_length).save(folder, token_types=family in typed)


def pairs() -> tuple[list[str], list[str]]:
    queries = [query for query in QUERIES for _ in TEXTS]
    return queries, list(TEXTS) * len(QUERIES)


@pytest.mark.parametrize("truncation", ["second", "longest_first"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_padded_and_truncated(
    family: str, truncation: str, tmp_path: Path
) -> None:
    model = reference(tmp_path, family, num_labels=3)
    queries, texts = pairs()
    ours = CrossEncoder.load(tmp_path, device="cpu", truncation=truncation).logits(queries, texts)  # type: ignore[arg-type] # of the two that there are
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    side = {"second": "only_second", "longest_first": "longest_first"}[truncation]
    batch = tokenizer(queries, texts, truncation=side, max_length=48, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits.numpy()
    assert ours.shape == theirs.shape == (len(texts), 3)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    assert batch["attention_mask"].sum(dim=1).max() == 48  # some were cut
    assert np.ptp(theirs, axis=0).min() > 0.1  # and they do differ


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_rankings_are_those_of_sentence_transformers(family: str, tmp_path: Path) -> None:
    reference(tmp_path, family)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    ours = CrossEncoder.load(tmp_path, device="cpu", truncation="longest_first")
    queries, texts = pairs()
    wanted = theirs.predict(list(zip(queries, texts, strict=True)), batch_size=5)
    np.testing.assert_allclose(ours.score_pairs(queries, texts), wanted, atol=TOLERANCE)
    for query in QUERIES:
        ranking = [row["corpus_id"] for row in theirs.rank(query, list(TEXTS))]
        scores = ours.score(query, TEXTS)
        assert sorted(range(len(TEXTS)), key=lambda i: -scores[i]) == ranking


RARE = ("ReLU", "GELU", "SiLU", "ELU", "LeakyReLU", "Mish", "Softplus", "SELU", "ReLU6", "Softsign")


@pytest.mark.parametrize("name", ["Identity", "Sigmoid", "Tanh"])
def test_activation_is_read_from_what_sentence_transformers_saves(name: str, tmp_path: Path) -> None:
    reference(tmp_path / "plain", "bert")
    activation = getattr(torch.nn, name)()
    theirs = sentence_transformers.CrossEncoder(
        str(tmp_path / "plain"), device="cpu", activation_fn=activation
    )
    theirs.save_pretrained(str(tmp_path / "saved"))
    ours = CrossEncoder.load(tmp_path / "saved", device="cpu")
    assert ours.folder.activation == name.lower()
    wanted = theirs.predict([(QUERIES[0], text) for text in TEXTS[:3]])
    np.testing.assert_allclose(ours.score(QUERIES[0], TEXTS[:3]), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_we_write_is_read_by_both_libraries_with_the_same_scores(family: str, tmp_path: Path) -> None:
    reference(tmp_path / "from", family, num_labels=1)
    folder = read_classifier_folder(tmp_path / "from")
    save_classifier(
        tmp_path / "to",
        load_classifier(folder),
        folder.tokenizer,
        family=folder.family,
        activation="identity",
    )
    queries, texts = pairs()
    ours = CrossEncoder.load(tmp_path / "to", device="cpu", truncation="longest_first")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "to"), device="cpu")
    wanted = theirs.predict(list(zip(queries, texts, strict=True)))
    np.testing.assert_allclose(ours.score_pairs(queries, texts), wanted, atol=TOLERANCE)
    plain, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "to", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    batch = tokenizer(queries, texts, truncation=True, max_length=48, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = plain.eval()(**batch).logits.numpy()[:, 0]
    np.testing.assert_allclose(ours.logits(queries, texts)[:, 0], logits, atol=TOLERANCE)


def test_every_activation_makes_the_scores_of_sentence_transformers(tmp_path: Path) -> None:
    """The folder is saved once: what is exchanged is the name in its config."""
    reference(tmp_path, "bert")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    path = tmp_path / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    found = set()
    for name in (*RARE, "LogSigmoid", "Hardtanh", "Hardsigmoid", "Hardswish"):
        full = f"torch.nn.modules.activation.{name}"
        content["sentence_transformers"] = {"activation_fn": full}
        path.write_text(json.dumps(content), encoding="utf-8")
        ours = CrossEncoder.load(tmp_path, device="cpu")
        wanted = theirs.predict(
            [(QUERIES[0], text) for text in TEXTS], activation_fn=getattr(torch.nn, name)()
        )
        np.testing.assert_allclose(ours.score(QUERIES[0], TEXTS), wanted, atol=TOLERANCE, err_msg=name)
        found.add(ours.folder.activation)
    assert len(found) == len(RARE) + 4


@pytest.mark.parametrize("labels", [2, 5])
def test_scores_of_several_labels_are_their_logits(labels: int, tmp_path: Path) -> None:
    reference(tmp_path, "deberta", num_labels=labels)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    wanted = theirs.predict([(QUERIES[0], text) for text in TEXTS])
    ours = CrossEncoder.load(tmp_path, device="cpu", truncation="longest_first")
    assert len(ours.folder.labels) == labels
    np.testing.assert_allclose(ours.logits([QUERIES[0]] * len(TEXTS), TEXTS), wanted, atol=TOLERANCE)


def test_labels_and_their_names_survive_both_ways(tmp_path: Path) -> None:
    reference(tmp_path / "from", "bert", num_labels=3)
    folder = read_classifier_folder(tmp_path / "from")
    labels = ("contradiction", "neutral", "entailment")
    save_classifier(
        tmp_path / "to",
        load_classifier(folder),
        folder.tokenizer,
        family="bert",
        labels=labels,
        activation="identity",
    )
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "to")
    assert [theirs.id2label[i] for i in range(3)] == list(labels)
    assert read_classifier_folder(tmp_path / "to").labels == labels
