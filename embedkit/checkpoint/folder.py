"""A model folder as data: what it holds, where its weights lie, and its fingerprint. No torch here.

The tensors themselves are read and written by `embedkit.checkpoint.weights`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from embedkit.checkpoint.adapters import Adapter, read_adapter
from embedkit.checkpoint.colbert import says_colbert
from embedkit.checkpoint.digests import weights_digest
from embedkit.checkpoint.folder_checks import check_is_encoder, check_layers, check_widths
from embedkit.checkpoint.hf_config import TOKENIZER_CLASSES, read_config
from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.modular_head import is_modular
from embedkit.checkpoint.multi_vector_modules import says_multi_vector
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.sparse_modules import is_sparse, sparse_refusal
from embedkit.checkpoint.st_modules import SentenceModules, read_modules
from embedkit.checkpoint.st_router import default_role, has_router
from embedkit.checkpoint.static import is_static, read_static
from embedkit.checkpoint.task_adapters import TaskAdapters, read_task_adapters
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig
from embedkit.models import find_model, missing_model, model_name
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import TextRole

_LOG = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
RUN_FOLDER = "training"  # the states and log of a training run, beside the model that it made
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model*.bin"  # one file, or shards
# What is read of a text where neither the tokenizer nor the folder sets a limit, of families that have none themselves.
USUAL_TOKENS: dict[Family, int] = {"t5": 512, "mt5": 512}


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A sentence encoder on disk, read but for its weights.

    Of a `static` model's config only `vocab_size` and `hidden_size` mean something: it has no layers. Where queries and documents have
    modules of their own, `routes` are both, and the folder itself is that of texts of no role. `beside` names weights in the encoder's
    files that are of something else. `tasks` are those that the same files have adapters for.
    """

    path: Path
    family: Family
    config: EncoderConfig
    modules: SentenceModules
    tokenizer: Tokenizer
    static: bool = False
    adapter: Adapter | None = None
    tasks: TaskAdapters | None = None
    beside: tuple[str, ...] = ()
    routes: Mapping[TextRole, ModelFolder] = field(default_factory=dict)
    kind: Literal["dense"] = "dense"

    @property
    def name(self) -> str:
        """What to call the model: the name of a shipped one, else its path."""
        return model_name(self.path)

    @property
    def encoder_path(self) -> Path:
        return self.path / self.modules.encoder_folder

    @property
    def weights_path(self) -> Path:
        """Where the encoder's weights lie: of an adapter, those of the model that it changes."""
        return self.encoder_path if self.adapter is None else self.adapter.base

    @property
    def embedding_size(self) -> int:
        """How long the vectors are that the model computes."""
        return self.modules.sentence.embedding_size(self.config.hidden_size)

    @property
    def recursions(self) -> int | None:
        """How often the layers that recur are run, where that is less than the model was trained with."""
        recursion = self.config.recursion
        return None if recursion is None or recursion.trained_recursions is None else recursion.num_recursions

    @property
    def dimension(self) -> int:
        """How many dimensions of them are kept: all, unless the folder's `truncate_dim` says fewer."""
        return min(self.modules.truncate_dim or self.embedding_size, self.embedding_size)


def read_model_folder(
    folder: str | Path,
    *,
    max_seq_length: int | None = None,
    recursions: int | None = None,
    task: str | None = None,
) -> ModelFolder:
    """Read and check everything in a model folder but the weights; the name of a shipped model stands for its folder.

    `max_seq_length` None takes the folder's own limit, which never exceeds the position table. `recursions` runs the layers of a
    model that recur fewer times than it was trained with. `task` names the one whose adapter is merged, of a model that has several;
    None: the folder's default prompt, where it is named after one.

    Raises:
        CheckpointError: the folder or a file in it is missing, unreadable, or of a kind that we do not compute; or nothing recurs
            so often.
    """
    path = find_model(folder)
    if not path.is_dir():
        raise CheckpointError(missing_model(str(folder)))
    if says_multi_vector(path) or says_colbert(path):
        raise CheckpointError(
            f"{path}: this is a multi-vector model, which gives a text a vector for each token; here one vector is wanted. "
            "With such a model embedkit encodes, builds indexes, searches and serves them, and reranks (--rerank, rerank --maxsim)"
        )
    if is_sparse(path):
        raise sparse_refusal(path)
    if is_modular(path):
        raise CheckpointError(
            f"{path}: this is a cross-encoder, whose modules end in scores of pairs of texts; it gives no vectors. "
            "Rerank with it: embedkit rerank, or search --rerank"
        )
    if task is not None and (has_router(path) or is_static(path)):
        raise CheckpointError(f"{path}: task {task!r} was asked for; the model has no task adapters")
    if not has_router(path):
        return _read_folder(path, max_seq_length, recursions, task=task)
    roles: tuple[TextRole, ...] = get_args(TextRole)
    routes = {role: _read_folder(path, max_seq_length, recursions, role) for role in roles}
    sizes = {route.dimension for route in routes.values()}
    if len(sizes) > 1:
        raise CheckpointError(
            f"{path}: the vectors of queries have {routes['query'].dimension} dimensions, those of documents "
            f"{routes['document'].dimension}. Take all modules from the same model"
        )
    return replace(routes[default_role(path)], routes=routes)


def _read_folder(
    path: Path,
    max_seq_length: int | None,
    recursions: int | None,
    role: TextRole | None = None,
    *,
    task: str | None = None,
) -> ModelFolder:
    if is_static(path, role):
        if recursions is not None:
            raise CheckpointError(
                f"{path}: recursions {recursions} was asked for; a static model has no layers. Leave it out"
            )
        return _static_folder(path, max_seq_length, role)
    modules = read_modules(path, role)
    encoder_path = path / modules.encoder_folder
    adapter = read_adapter(encoder_path)
    config_path = (encoder_path if adapter is None else adapter.base) / "config.json"
    content = read_json(config_path, None)
    family, config = read_config(content, str(config_path))
    if recursions is not None:
        config = _with_recursions(config, recursions, path, modules)
    tasks = read_task_adapters(content, str(config_path), task=task, default=modules.default_prompt_name)
    if tasks is not None and tasks.chosen is None:
        _LOG.warning(
            "%s: computed without the adapter of a task. The model has some for %s: write one of them as a model of its own with "
            "embedkit model convert %s --task TASK --output NEW",
            path,
            ", ".join(tasks.names),
            path,
        )
    if adapter is not None and adapter.task == "SEQ_CLS":
        content = {**content, "architectures": ["ForSequenceClassification"]}
    check_is_encoder(path, content)
    check_widths(path, config, modules)
    check_layers(path, config, content, modules)
    where = tokenizer_path(encoder_path, adapter)
    tokenizer = read_tokenizer(where, family, config, content, lowercase=modules.lowercase)
    tokenizer = fit_tokenizer(
        tokenizer, config, path, own_limit=modules.max_seq_length, max_seq_length=max_seq_length
    )
    return ModelFolder(
        path=path,
        family=family,
        config=config,
        modules=modules,
        tokenizer=tokenizer,
        adapter=adapter,
        tasks=tasks,
        beside=_token_head(content),
    )


def _token_head(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the weights of a head that classifies tokens, as gte-multilingual-base has one for its sparse vectors."""
    names = content.get("architectures") or []
    named = any(str(name).endswith("ForTokenClassification") for name in names)
    return ("classifier.weight", "classifier.bias") if named else ()


def _with_recursions(
    config: EncoderConfig, recursions: int, path: Path, modules: SentenceModules
) -> EncoderConfig:
    try:
        fewer = config.with_recursions(recursions)
    except ValueError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    if fewer != config and modules.sentence.layer_start is not None:
        raise CheckpointError(
            f"{path}: recursions {recursions} was asked for; its token vectors are a mean of the {config.num_hidden_layers} layers "
            f"of all {config.recursion.num_depths if config.recursion else 0} recursions. Leave it out"
        )
    return fewer


def _static_folder(path: Path, max_seq_length: int | None, role: TextRole | None) -> ModelFolder:
    found = read_static(path, role)
    config = EncoderConfig(
        vocab_size=found.num_tokens,
        hidden_size=found.embedding_size,
        num_attention_heads=1,
        intermediate_size=1,
    )
    tokenizer = found.tokenizer if max_seq_length is None else found.tokenizer.with_max_length(max_seq_length)
    return ModelFolder(
        path=path, family="bert", config=config, modules=found.modules, tokenizer=tokenizer, static=True
    )


def read_tokenizer(
    folder: Path, family: Family, config: EncoderConfig, content: Mapping[str, Any], *, lowercase: bool
) -> Tokenizer:
    """Read an encoder's tokenizer as transformers does; `content` is that of its config.json.

    Raises:
        CheckpointError: the files are missing or unreadable, or a single text's tokens are of more than one type.
    """
    where = str(folder / "config.json")
    tokenizer = Tokenizer.load(
        folder,
        lowercase=lowercase,
        default_max_length=min(config.max_tokens, USUAL_TOKENS.get(family, config.max_tokens)),
        model_class=json_field(content, "tokenizer_class", TOKENIZER_CLASSES[family], where),
        as_is=family == "modernbert",  # whatever class is named
    ).without_rowless(config.vocab_size)
    if config.type_vocab_size and any(tokenizer.backend.encode("a").type_ids):
        raise CheckpointError(
            f"{folder}: the tokenizer gives tokens of a single text a type other than 0, which is not computed. "
            "Correct the post_processor in tokenizer.json"
        )
    return tokenizer


def tokenizer_path(folder: Path, adapter: Adapter | None) -> Path:
    """Return where the tokenizer lies: an adapter's folder may have one of its own, or leave it to its model's."""
    own = any(
        (folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model")
    )
    return folder if adapter is None or own else adapter.base


def fit_tokenizer(
    tokenizer: Tokenizer,
    config: EncoderConfig,
    path: Path,
    *,
    own_limit: int | None,
    max_seq_length: int | None,
) -> Tokenizer:
    """Return a folder's tokenizer with the limit asked for, else the folder's own, within the position table.

    Raises:
        CheckpointError: the tokenizer has more tokens than the model, or the limit is too large or too small.
    """
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the token table {config.vocab_size} rows. "
            "Take tokenizer and weights from the same model"
        )
    if max_seq_length is not None and max_seq_length > config.max_tokens:
        raise CheckpointError(
            f"{path}: max_seq_length {max_seq_length} was asked for; the position table ends at {config.max_tokens} "
            "tokens. Ask for fewer"
        )
    limit = max_seq_length or min(
        own_limit or min(tokenizer.max_length, config.usual_tokens), config.max_tokens
    )
    try:
        return tokenizer.with_max_length(limit)
    except ValueError as exc:
        raise CheckpointError(
            f"{path}: {exc}. Correct the folder's own limit", ", or pass --max-seq-length"
        ) from exc


def weight_files(folder: Path, *, model: Path | None = None) -> list[Path]:
    """List the safetensors files of a folder: one, or the shards that the index names.

    `model` is the model's whole folder, where `folder` is a part of it.

    Raises:
        CheckpointError: there are none, a shard is missing, or there is only a pickled file.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / WEIGHTS_INDEX).is_file():
        index = str(folder / WEIGHTS_INDEX)
        shards = json_field(read_json(folder / WEIGHTS_INDEX, None), "weight_map", dict[str, Any](), index)
        names = sorted({str(name) for name in shards.values()})
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise CheckpointError(
                f"{index}: the shard {outside[0]!r} is not a file of this folder. Take the model's own"
            )
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise CheckpointError(
                f"{folder / WEIGHTS_INDEX}: names {len(names)} shards, of which {len(missing)} are missing "
                f"({', '.join(missing) or '-'}). Copy them from where the model came from"
            )
        return [folder / name for name in names]
    pickled = sorted(folder.glob(PICKLED))
    if pickled:
        raise CheckpointError(
            f"{pickled[0]}: a pickled file, which could run code when it is read. "
            f"Convert it safely with: embedkit model convert {model or folder} --output NEW_FOLDER"
        )
    raise CheckpointError(f"{folder}: no {WEIGHTS}. Copy it from where the model came from")


def check_one_model(folder: ModelFolder, what: str) -> None:
    """Refuse a folder whose queries and documents have modules of their own; `what` is done with one model alone.

    Raises:
        CheckpointError: they have.
    """
    if folder.routes:
        raise CheckpointError(
            f"{folder.path}: its queries and documents have modules of their own (Router), and {what} takes one model. "
            "With such a folder embedkit encodes, builds indexes and searches"
        )


def all_weight_files(folder: ModelFolder) -> list[Path]:
    """List the files with the weights of the encoder and of what stands on it."""
    modules = folder.modules
    parts = [folder.weights_path]
    parts += [folder.path / name for name in (*modules.dense_folders, *modules.parts.values())]
    files = [file for part in parts for file in weight_files(part, model=folder.path)]
    return files if folder.adapter is None else [*files, folder.adapter.file]


def fingerprint(folder: ModelFolder) -> dict[str, Any]:
    """Say what decides the vectors of a text, as plain JSON values: a query must be encoded with the same.

    The weights' SHA-256 runs over the files' bytes.
    """
    sentence = folder.modules.sentence
    learned = sentence.similarity
    similarity: dict[str, Any] = {} if learned is None else {"similarity": learned.kind}
    if learned is not None and learned.fields:
        similarity["fields"] = list(learned.fields)
    return {
        "weights": weights_digest(all_weight_files(folder)),
        "tokenizer": folder.tokenizer.fingerprint,
        "pooling": sentence.described_pooling + ("" if sentence.pool_prompt else " without prompt"),
        "normalize": sentence.normalize,
        "prompts": dict(folder.modules.prompts),
        "default_prompt": folder.modules.default_prompt_name,
        "max_seq_length": folder.tokenizer.max_length,
        "dimension": folder.dimension,
        **({} if folder.recursions is None else {"recursions": folder.recursions}),
        **({} if folder.tasks is None else {"task": folder.tasks.chosen}),
        **(
            {"routes": {role: fingerprint(route) for role, route in folder.routes.items()}}
            if folder.routes
            else {}
        ),
    } | similarity
