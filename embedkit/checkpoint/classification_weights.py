"""The tensors of a cross-encoder's folder: read into the network strictly, written from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from embedkit.checkpoint.classification import ClassifierFolder, classifier_config
from embedkit.checkpoint.classification_heads import default_head
from embedkit.checkpoint.folder import WEIGHTS, ModelFolder, check_one_model, weight_files
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import BASE_PREFIX, Family, head_names, own_names, stripped_names
from embedkit.checkpoint.unfilled import unfilled
from embedkit.checkpoint.weight_checks import check_dense_empty, check_nothing_left
from embedkit.checkpoint.weights import (
    assign,
    assign_encoder,
    export_encoder,
    export_tensors,
    read_model_tensors,
    read_tensors,
    save_tensors,
)
from embedkit.checkpoint.yes_no import YesNo
from embedkit.model.classification import SequenceClassifier
from embedkit.model.config import DenseActivation
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.shapes import head_shapes
from embedkit.storage.files import new_folder
from embedkit.tokenization.tokenizer import Tokenizer


def load_classifier(folder: ClassifierFolder) -> SequenceClassifier:
    """Build the model of a folder with its weights, in fp32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or the file is damaged.
    """
    with unfilled():
        model = SequenceClassifier(TransformerEncoder(folder.config), folder.head)
    tensors = read_model_tensors(folder.weights_path, folder.adapter, folder.family, model=folder.path)
    rows = tensors.get("lm_head.weight")
    assign_encoder(model.encoder, folder.family, tensors, folder.path)
    if folder.answers is not None:
        table = model.encoder.embeddings.tokens.weight if rows is None else rows.float()
        model.head.out.weight = torch.nn.Parameter(_answer_weight(table, folder.answers))
        check_nothing_left(tensors, folder.family, folder.path, what="reranker")
        return model.eval()
    if folder.modular is not None:
        stored = folder.modular.weights(
            lambda part: read_tensors(weight_files(folder.path / part, model=folder.path))
        )
        assign(model.head, own_names(head_shapes(folder.config, folder.head)), stored, folder.path)
        check_dense_empty(stored, folder.path)
        check_nothing_left(tensors, folder.family, folder.path, what="cross-encoder")
        return model.eval()
    names = stripped_names(head_names(folder.family, folder.config, folder.head), folder.family)
    assign(model.head, names, tensors, folder.path)
    check_nothing_left(tensors, folder.family, folder.path, what="cross-encoder")
    return model.eval()


def _answer_weight(rows: Tensor, answers: YesNo) -> Tensor:
    """Return what "yes" has of the output layer more than "no", (1, D)."""
    weight = rows[answers.true_token]
    if answers.false_token is not None:
        weight = weight - rows[answers.false_token]
    return weight.detach()[None].clone()


def classifier_from_encoder(folder: ModelFolder, *, num_labels: int, seed: int) -> SequenceClassifier:
    """Put a fresh head, drawn from the seed, on the encoder of a folder.

    Raises:
        CheckpointError: the encoder's weights are missing, mis-shaped, or the file is damaged.
    """
    check_one_model(folder, "training a reranker")
    head = default_head(folder.family, folder.config, num_labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceClassifier(TransformerEncoder(folder.config), head)
    tensors = read_model_tensors(folder.weights_path, folder.adapter, folder.family)
    assign_encoder(model.encoder, folder.family, tensors, folder.encoder_path)
    return model


def save_classifier(
    target: str | Path,
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    *,
    family: Family,
    labels: tuple[str, ...] = ("LABEL_0",),
    activation: DenseActivation = "sigmoid",
    rerank_weight: float = 1.0,
) -> None:
    """Write a folder that transformers and sentence-transformers' `CrossEncoder` load.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    with new_folder(target) as folder:
        write_classifier(
            folder,
            model,
            tokenizer,
            family=family,
            labels=labels,
            activation=activation,
            rerank_weight=rerank_weight,
        )


def write_classifier(
    folder: Path,
    model: SequenceClassifier,
    tokenizer: Tokenizer,
    *,
    family: Family,
    labels: tuple[str, ...] = ("LABEL_0",),
    activation: DenseActivation = "sigmoid",
    rerank_weight: float = 1.0,
) -> None:
    """Write the model's files into an existing folder.

    Raises:
        ValueError: there are more or fewer labels than the head has.
    """
    config, head = model.encoder.config, model.config
    content = classifier_config(
        config, head, family=family, labels=labels, activation=activation, rerank_weight=rerank_weight
    )
    write_json(folder / "config.json", content)
    tensors = export_encoder(model.encoder, family, prefix=BASE_PREFIX[family])
    tensors |= export_tensors(model.head, head_names(family, config, head))
    save_tensors(tensors, folder / WEIGHTS)
    tokenizer.save(folder, token_types=config.type_vocab_size > 1)
