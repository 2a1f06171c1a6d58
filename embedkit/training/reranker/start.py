"""What a reranker's training starts from: a cross-encoder, or any encoder with a fresh head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedkit.checkpoint.classification import is_classifier, read_classifier_folder
from embedkit.checkpoint.classification_weights import classifier_from_encoder, load_classifier
from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.names import Family
from embedkit.errors import TrainingError
from embedkit.model.classification import SequenceClassifier
from embedkit.models import find_model
from embedkit.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model to train; `origin` is the SHA-256 of its weights, `fresh_head` says that the head is new, `is_adapter` that its folder changes another's."""

    model: SequenceClassifier
    tokenizer: Tokenizer
    family: Family
    token_types: bool
    origin: str
    fresh_head: bool
    path: Path
    is_adapter: bool


def start_from(path: str | Path, *, num_labels: int, seed: int, max_seq_length: int | None = None) -> Start:
    """Load the model of a folder to train it further.

    Raises:
        CheckpointError: the folder is neither encoder nor cross-encoder, or its weights cannot be used.
        TrainingError: it is a cross-encoder with another number of labels, or a static model.
    """
    if not is_classifier(find_model(path)):
        encoder = read_model_folder(path, max_seq_length=max_seq_length)
        if encoder.static:
            raise TrainingError(
                f"{path}: a static model is a table of token vectors, which cannot read two texts together. "
                "Start from a transformer encoder"
            )
        # An encoder's own limit is that of single texts; a pair needs room for both.
        tokenizer = encoder.tokenizer.with_max_length(max_seq_length or encoder.config.max_tokens)
        return Start(
            model=classifier_from_encoder(encoder, num_labels=num_labels, seed=seed),
            tokenizer=tokenizer,
            family=encoder.family,
            token_types=encoder.config.type_vocab_size > 1,
            origin=str(fingerprint(encoder)["weights"]),
            fresh_head=True,
            path=encoder.encoder_path,
            is_adapter=encoder.adapter is not None,
        )
    folder = read_classifier_folder(path, max_seq_length=max_seq_length)
    if folder.answers is not None:
        raise TrainingError(
            f"{path}: a language model that answers yes or no cannot be trained on here. Start from an encoder or a cross-encoder"
        )
    if folder.modular is not None:
        raise TrainingError(
            f"{path}: the head of this cross-encoder is a list of modules, which is computed, but not trained further. Start from an encoder "
            "or another cross-encoder"
        )
    if len(folder.labels) != num_labels:
        raise TrainingError(
            f"{path}: the cross-encoder has {len(folder.labels)} labels ({', '.join(folder.labels)}); the data needs {num_labels}. "
            "Start from an encoder, whose head is new, or give other data"
        )
    return Start(
        model=load_classifier(folder),
        tokenizer=folder.tokenizer,
        family=folder.family,
        token_types=folder.token_types,
        origin=str(folder.fingerprint["weights"]),
        fresh_head=False,
        path=folder.path,
        is_adapter=folder.adapter is not None,
    )
