"""What sentence-transformers' two settings files say: of texts and vectors (`config_sentence_transformers.json`), and of the encoder.

Whatever in them would change vectors in a way that we do not compute is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.errors import CheckpointError

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Json = Mapping[str, Any]  # Any: whatever JSON holds

# How weights and files are loaded, not what is computed with them.
_HARMLESS = frozenset(
    {
        *(
            "attn_implementation",
            "dtype",
            "torch_dtype",
            "device_map",
            "low_cpu_mem_usage",
            "use_safetensors",
        ),
        *("trust_remote_code", "use_fast", "add_pooling_layer"),
    }
)
_ARGUMENTS = tuple(
    f"{part}_{kind}" for part in ("model", "tokenizer", "processor", "config") for kind in ("args", "kwargs")
)
_UNKNOWN = (
    "processing_kwargs",
    "query_length",
    "document_length",
    "query_expansion",
    "tokenizer_name_or_path",
)
Task = Literal["feature-extraction", "fill-mask"]
_TASKS = {"feature-extraction": "a sentence encoder", "fill-mask": "a learned sparse model"}
_OUTPUTS: dict[Task, str] = {"feature-extraction": "last_hidden_state", "fill-mask": "logits"}


def read_texts(
    path: Path, *, kind: str = "SentenceTransformer", similarity: Similarity = "cosine"
) -> dict[str, Any]:
    """Read a `config_sentence_transformers.json`, which may be missing: the fields of `SentenceModules` that it holds.

    `kind` is the one of model that is wanted, `similarity` that of a folder that says none.

    Raises:
        CheckpointError: it is unreadable, or of another kind of model.
    """
    content = read_json(path, {})
    found = json_field(content, "model_type", kind, str(path))
    if found != kind:
        raise CheckpointError(
            f"{path}: model_type is {found!r}, another kind of model than the {kind!r} that embedkit computes here"
        )
    prompts = json_field(content, "prompts", dict[str, Any](), str(path))
    prompts = {name: "" if prompt is None else prompt for name, prompt in prompts.items()}
    default = json_field(content, "default_prompt_name", "", str(path)) or None
    compared = json_field(content, "similarity_fn_name", str(similarity), str(path)) or similarity
    truncate_dim = (
        json_field(content, "truncate_dim", 1, str(path)) if content.get("truncate_dim") is not None else None
    )
    if not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise CheckpointError(f"{path}: prompts is {prompts}; each must be a string. Correct the file")
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{path}: default_prompt_name is {default!r}; prompts has: {', '.join(prompts) or 'none'}. Correct the file"
        )
    if compared not in get_args(Similarity):
        raise CheckpointError(
            f"{path}: similarity_fn_name is {compared!r}; known are {', '.join(get_args(Similarity))}"
        )
    if truncate_dim is not None and truncate_dim < 1:
        raise CheckpointError(
            f"{path}: truncate_dim is {truncate_dim}; it must be at least 1. Correct the file"
        )
    names = {"prompts": prompts, "default_prompt_name": default}
    return {**names, "similarity": compared, "truncate_dim": truncate_dim}


def read_limits(
    encoder_folder: Path, *, others: Sequence[str] = (), task: Task = "feature-extraction"
) -> tuple[int | None, bool]:
    """Return the longest text in tokens (None: the tokenizer's own limit), and whether texts are lower-cased first.

    `others` are settings that the caller reads by itself, of `limits_path`; `task` is what the encoder is asked for: token vectors, or
    a masked language model's logits.

    Raises:
        CheckpointError: the file is unreadable, or asks for what we do not compute.
    """
    path = limits_path(encoder_folder)
    content = {key: value for key, value in read_json(path, {}).items() if key not in others}
    check_task(content, path, task)
    check_arguments(content, path)
    _check_input(content, path, task)
    max_seq_length = json_field(content, "max_seq_length", 0, str(path)) or None
    return max_seq_length, json_field(content, "do_lower_case", False, str(path))


def limits_path(encoder_folder: Path) -> Path:
    """Return the file with the encoder's settings, which older releases named after its family."""
    kinds = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
    paths = [encoder_folder / f"sentence_{kind}_config.json" for kind in kinds]
    return next((path for path in paths if path.is_file()), paths[0])


def check_task(content: Json, path: Path, wanted: Task) -> None:
    task = content.get("transformer_task", wanted)
    if task != wanted:
        raise CheckpointError(
            f"{path}: transformer_task is {task!r}; {_TASKS[wanted]} has {wanted!r}. Is this another kind of model?"
        )


def check_arguments(content: Json, path: Path) -> None:
    """Refuse settings that change how texts or the model are read, beside the files in which we look for that.

    Raises:
        CheckpointError: there are some.
    """
    for key in _UNKNOWN:
        if content.get(key):
            raise CheckpointError(
                f"{path}: {key} is {content[key]!r}, which embedkit does not compute. Set it to null"
            )
    for key in _ARGUMENTS:
        arguments = json_field(content, key, dict[str, Any](), str(path))
        others = sorted(arguments.keys() - _HARMLESS)
        if others:
            file = {"model": "config.json", "config": "config.json"}.get(
                key.partition("_")[0], "tokenizer_config.json"
            )
            raise CheckpointError(
                f"{path}: {key} sets {', '.join(others)}, which embedkit does not read there. Write it into {file}"
            )


def _check_input(content: Json, path: Path, task: Task) -> None:
    """Refuse what takes something else from the encoder than what the task needs of a text."""
    wanted = {"method": "forward", "method_output_name": _OUTPUTS[task]}
    inputs = json_field(content, "modality_config", {"text": dict(wanted)}, str(path))
    text = inputs.get("text")
    if "message" in inputs or text != wanted:
        raise CheckpointError(
            f"{path}: modality_config is {inputs}; only a text's {_OUTPUTS[task]} is computed"
        )
    output = json_field(content, "module_output_name", "token_embeddings", str(path))
    if output != "token_embeddings":
        raise CheckpointError(
            f"{path}: module_output_name is {output!r}; only 'token_embeddings' is computed"
        )
