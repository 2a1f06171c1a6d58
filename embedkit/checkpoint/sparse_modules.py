"""What a learned sparse model's folder says of its modules: sentence-transformers' `SparseEncoder`, read. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.st_modules import module_path
from embedkit.checkpoint.st_router import has_router, read_module_list
from embedkit.errors import CheckpointError
from embedkit.model.sparse_config import TermPooling
from embedkit.types import TextRole

TRANSFORMER, MLM_TRANSFORMER, POOLING = "Transformer", "MLMTransformer", "SpladePooling"
STATIC, AUTO_ENCODER = "SparseStaticEmbedding", "SparseAutoEncoder"
MODEL_TYPE = "SparseEncoder"
_SPARSE = (MLM_TRANSFORMER, POOLING, STATIC, AUTO_ENCODER)
_KNOWN = f"{TRANSFORMER}, {POOLING}; or {STATIC} alone"


@dataclass(frozen=True)
class SideModules:
    """The modules of one role: an encoder and how its logits are pooled, or (None) a table of weights; `folder` holds either."""

    folder: str
    pooling: TermPooling | None


def is_sparse(path: str | Path) -> bool:
    """Say whether a folder holds a learned sparse model, whether we compute it or not."""
    folder = Path(path)
    config = folder / "config_sentence_transformers.json"
    if not (folder / "modules.json").is_file():
        return False
    if read_json(config, {}).get("model_type") == MODEL_TYPE:
        return True
    rows = [row for role in _roles(folder) for row in read_module_list(folder, role)]
    return any(_name(row).rpartition(".")[2] in _SPARSE for row in rows)


def sparse_refusal(path: Path, wanted: str = "a dense model") -> CheckpointError:
    """Say that a folder is of this kind where another one is wanted."""
    return CheckpointError(
        f"{path}: this is a learned sparse model (SPLADE), whose vectors are weights of terms; here {wanted} is wanted. "
        "encode, index build, search and evaluate retrieval take it; serve and mcp its indexes"
    )


def read_side(folder: Path, role: TextRole) -> SideModules:
    """Read and check the modules that the texts of a role go through.

    Raises:
        CheckpointError: a file is unreadable, or names a module or a setting that we do not compute.
    """
    rows = read_module_list(folder, role)
    kinds = [_kind(row, folder) for row in rows]
    paths = [module_path(row, folder) for row in rows]
    if kinds == [STATIC]:
        return SideModules(paths[0], None)
    if kinds not in ([TRANSFORMER, POOLING], [MLM_TRANSFORMER, POOLING]):
        raise CheckpointError(
            f"{folder / 'modules.json'}: a {role} goes through {', '.join(kinds) or 'no module'}; of a learned sparse model "
            f"embedkit computes {_KNOWN}"
        )
    return SideModules(paths[0], read_term_pooling(folder / paths[1] / "config.json"))


def read_term_pooling(path: Path) -> TermPooling:
    """Read the config of a `SpladePooling`."""
    content: Mapping[str, Any] = read_json(path, {})
    strategy = json_field(content, "pooling_strategy", "max", str(path))
    activation = json_field(content, "activation_function", "relu", str(path))
    try:
        return TermPooling(strategy=strategy, activation=activation)  # type: ignore[arg-type] # checked within
    except ValueError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc


def term_pooling_content(pooling: TermPooling, dimension: int) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return what `read_term_pooling` reads."""
    return {
        "pooling_strategy": pooling.strategy,
        "activation_function": pooling.activation,
        "embedding_dimension": dimension,
    }


def _roles(folder: Path) -> Sequence[TextRole | None]:
    return ("query", "document") if has_router(folder) else (None,)


def _name(row: Any) -> str:  # Any: whatever JSON holds
    name = row.get("type") if isinstance(row, Mapping) else None
    return name if isinstance(name, str) and name.startswith("sentence_transformers.") else repr(name)


def _kind(row: Any, folder: Path) -> str:  # Any: whatever JSON holds
    """Return the last part of a module's class.

    Raises:
        CheckpointError: it is not one that we compute.
    """
    kind = _name(row).rpartition(".")[2]
    if kind == AUTO_ENCODER:
        raise CheckpointError(
            f"{folder / 'modules.json'}: {AUTO_ENCODER} (CSR), sparse codes over a dense vector that stand for no words, is not computed. "
            "Choose a SPLADE model"
        )
    if kind not in (TRANSFORMER, MLM_TRANSFORMER, POOLING, STATIC):
        raise CheckpointError(
            f"{folder / 'modules.json'}: module type {_name(row)!r} is not one that embedkit computes in a learned sparse model "
            f"(sentence_transformers' {_KNOWN}); code that a model brings along is never run"
        )
    return kind
