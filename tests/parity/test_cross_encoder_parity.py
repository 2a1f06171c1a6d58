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
from embedkit.checkpoint.folder import read_model_folder
from embedkit.errors import CheckpointError, TrainingError
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.reranker.start import start_from
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


def modular(
    folder: Path, *middle: Any, pooling: str = "cls", num_labels: int = 1, **settings: Any
) -> Any:  # Any: untyped library
    """Write a cross-encoder as a list of modules, as sentence-transformers does from its release 5.4 on, and return it loaded."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(4)
    name, shape = FAMILIES[settings.pop("family", "modernbert")]
    encoder = getattr(transformers, f"{name}Model")(
        getattr(transformers, f"{name}Config")(**shape | {"num_attention_heads": 1})
    ).eval()
    encoder.save_pretrained(folder / "plain")
    write_tokenizer(folder / "plain", "modernbert", 48)
    last = Dense(32, num_labels, activation_function=torch.nn.Identity(), module_output_name="scores")
    modules = [Transformer(str(folder / "plain")), Pooling(32, pooling_mode=pooling), *middle, last]
    sentence_transformers.CrossEncoder(modules=modules, device="cpu", **settings).save_pretrained(
        str(folder / "m")
    )
    return sentence_transformers.CrossEncoder(str(folder / "m"), device="cpu", local_files_only=True)


def middle_modules(*, norm: bool, activation: Any = None) -> list[Any]:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    layer = LayerNorm(32)
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.norm.bias)
    dense = Dense(32, 32, bias=not norm, activation_function=activation or torch.nn.GELU())
    return [dense, layer] if norm else [dense]


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("family", ["modernbert", "xlm-roberta"])
@pytest.mark.parametrize("case", ["ettin", "no norm", "scores alone, of the mean", "three labels"])
def test_heads_that_are_lists_of_modules(case: str, family: str, backend: Any, tmp_path: Path) -> None:
    how: dict[str, Any] = {"family": family}
    middle = middle_modules(norm=True)
    if case == "no norm":
        middle = middle_modules(norm=False)
    elif case == "scores alone, of the mean":
        middle, how = [], how | {"pooling": "mean", "activation_fn": torch.nn.Identity()}
    elif case == "three labels":
        how |= {"num_labels": 3}
    theirs = modular(tmp_path, *middle, **how)
    queries, texts = pairs()
    wanted = theirs.predict(list(zip(queries, texts, strict=True)), batch_size=3)
    assert np.ptp(wanted) > 1e-3
    ours = CrossEncoder.load(tmp_path / "m", device="cpu", backend=backend)
    if case == "three labels":
        assert ours.folder.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        found = ours.logits(queries, texts)
    else:
        found = np.concatenate([ours.score(query, TEXTS) for query in QUERIES])
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pooling", "pooling is max; of a cross-encoder one of cls, mean, last is computed"),
        ("activation", "the activation of the first Dense is mish; known are tanh, gelu"),
        (
            "order",
            "the modules are Transformer, Pooling, LayerNorm, Dense; of a cross-encoder with modules Transformer",
        ),
        ("output", "module_output_name is ''; the last module writes 'scores'"),
        ("size", r"take and give \[\(32, 16\), \(16, 1\)\] numbers"),
    ],
)
def test_lists_of_modules_that_are_not_computed_are_refused(
    change: str, message: str, tmp_path: Path
) -> None:
    middle = middle_modules(norm=True, activation=torch.nn.Mish() if change == "activation" else None)
    modular(
        tmp_path,
        *(middle[1:] if change == "order" else middle),
        pooling="max" if change == "pooling" else "cls",
    )
    dense, out = tmp_path / "m" / "2_Dense" / "config.json", tmp_path / "m" / "4_Dense" / "config.json"
    if change == "output":
        out.write_text(json.dumps(json.loads(out.read_text()) | {"module_output_name": ""}), encoding="utf-8")
    if change == "size":
        modules = json.loads((tmp_path / "m" / "modules.json").read_text())
        (tmp_path / "m" / "modules.json").write_text(json.dumps([*modules[:3], modules[4]]), encoding="utf-8")
        dense.write_text(json.dumps(json.loads(dense.read_text()) | {"out_features": 16}), encoding="utf-8")
        out.write_text(json.dumps(json.loads(out.read_text()) | {"in_features": 16}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        CrossEncoder.load(tmp_path / "m", device="cpu")


def test_such_a_cross_encoder_is_neither_a_sentence_encoder_nor_trained_further(tmp_path: Path) -> None:
    modular(tmp_path, *middle_modules(norm=True))
    with pytest.raises(CheckpointError, match="this is a cross-encoder, whose modules end in scores"):
        read_model_folder(tmp_path / "m")
    with pytest.raises(TrainingError, match="the head of this cross-encoder is a list of modules"):
        start_from(tmp_path / "m", num_labels=1, seed=0)


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
