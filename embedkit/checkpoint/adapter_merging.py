"""A model with its adapter merged, written as any other: what `embedkit model convert` makes of an adapter's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embedkit.checkpoint.adapters import CONFIG
from embedkit.checkpoint.classification import is_classifier, read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier, save_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.errors import CheckpointError


def has_adapter(folder: Path) -> bool:
    """Say whether a folder, or the first module in it, is an adapter's."""
    return any(path.is_file() for path in (folder / CONFIG, *folder.glob(f"0_*/{CONFIG}")))


def merge_task(source: Path, target: str | Path, task: str) -> None:
    """Write the model that a folder with adapters for several tasks is for one of them, in fp32, with that task's prompt as the default.

    Raises:
        CheckpointError: it has no such task.
        OutputError: the target exists, or cannot be written.
    """
    read = read_model_folder(source, task=task)
    modules = replace(read.modules, default_prompt_name=task if task in read.modules.prompts else None)
    write_model(target, load_model(read), read.tokenizer, modules, family=read.family)


def merge_adapter(source: Path, target: str | Path) -> None:
    """Write the model that an adapter and its base are together, in fp32.

    Raises:
        CheckpointError: it is none that we compute, or a reranker that answers yes or no.
        OutputError: the target exists, or cannot be written.
    """
    if not is_classifier(source):
        read = read_model_folder(source)
        write_model(target, load_model(read), read.tokenizer, read.modules, family=read.family)
        return
    judge = read_classifier_folder(source)
    if judge.answers is not None:
        raise CheckpointError(
            f"{source}: a reranker that answers yes or no is not written without its question. Rerank with the adapter's folder"
        )
    save_classifier(
        target,
        load_classifier(judge),
        judge.tokenizer,
        family=judge.family,
        labels=judge.labels,
        activation=judge.activation,
        rerank_weight=judge.rerank_weight,
    )
