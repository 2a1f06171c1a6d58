"""A model with its adapter merged, written as any other: what `embedkit model convert` makes of an adapter's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embedkit.checkpoint.adapters import CONFIG
from embedkit.checkpoint.classification import is_classifier, read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier, save_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.json_files import read_json, write_json
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.checkpoint.st_modules import read_modules, write_texts
from embedkit.checkpoint.st_router import has_router
from embedkit.checkpoint.static import is_static
from embedkit.errors import CheckpointError
from embedkit.storage.files import new_folder
from embedkit.types import TextRole

_SIDES: dict[TextRole, str] = {"query": "query", "document": "passage"}  # of a task, as Jina v3 calls them


def has_adapter(folder: Path) -> bool:
    """Say whether a folder, or the first module in it, is an adapter's."""
    return any(path.is_file() for path in (folder / CONFIG, *folder.glob(f"0_*/{CONFIG}")))


def merge_task(source: Path, target: str | Path, task: str) -> None:
    """Write the model that a folder with adapters for several tasks is for one of them, in fp32, with that task's prompt as the default.

    A task that has one adapter for queries and one for passages, as "retrieval" has retrieval.query and retrieval.passage, becomes a
    folder whose queries and documents have modules of their own.

    Raises:
        CheckpointError: it has no such task.
        OutputError: the target exists, or cannot be written.
    """
    if has_roles(source, task):
        _merge_roles(source, target, task)
        return
    read = read_model_folder(source, task=task)
    modules = replace(read.modules, default_prompt_name=task if task in read.modules.prompts else None)
    write_model(target, load_model(read), read.tokenizer, modules, family=read.family)


def has_roles(source: Path, task: str) -> bool:
    """Say whether a task has an adapter for queries and one for passages, and none for both."""
    if has_router(source) or is_static(source):
        return False
    config = read_json(source / read_modules(source).encoder_folder / "config.json", {})
    names = config.get("lora_adaptations") or ()
    return task not in names and all(f"{task}.{side}" in names for side in _SIDES.values())


def _merge_roles(source: Path, target: str | Path, task: str) -> None:
    """Write a router's folder of what queries and documents are encoded with."""
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    prompts: dict[str, str] = {}
    with new_folder(target) as folder:
        for role, side in _SIDES.items():
            name = f"{task}.{side}"
            read = read_model_folder(source, task=name)
            prompts[role] = read.modules.prompts.get(name, "")
            modules = replace(read.modules, prompts={}, default_prompt_name=None)
            write_model(folder / role, load_model(read), read.tokenizer, modules, family=read.family)
            own = _take_apart(folder, role)
            structure[role] = list(own)
            types |= own
        router = {"default_route": "document", "allow_empty_key": True}
        write_json(
            folder / "router_config.json", {"types": types, "structure": structure, "parameters": router}
        )
        rows = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
        write_json(folder / "modules.json", rows)
        write_texts(folder, replace(modules, prompts=prompts))


def _take_apart(folder: Path, role: str) -> dict[str, str]:
    """Turn the folder of a model, called as its role, into a folder for each of its modules; return their names with their types."""
    written = folder / role
    found = {}
    for number, row in enumerate(read_json(written / "modules.json", [])):
        name = f"{role}_{number}_{row['type'].rpartition('.')[2]}"
        found[name] = row["type"]
        if row["path"]:
            (written / row["path"]).replace(folder / name)
    for name in (
        "modules.json",
        "config_sentence_transformers.json",
    ):  # of the whole folder, and not of its first module
        (written / name).unlink()
    written.replace(folder / next(iter(found)))
    return found


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
