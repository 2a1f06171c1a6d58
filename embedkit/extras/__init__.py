"""The only place that reaches optional packages; each module here wraps one of them."""

from __future__ import annotations

from importlib import import_module, util
from types import ModuleType

from embedkit.errors import MissingExtraError

# Where the extra is named otherwise than its module here.
_INSTALLED_BY = {
    "sentence_transformers": "parity",
    "onnxruntime": "onnx",
    "pdf": "documents",
    "sheets": "documents",
}
# extra (as in `pip install 'embedkit[extra]'`) -> the import name of its package
EXTRAS = {
    "code": "tree_sitter",
    "pdf": "pypdfium2",
    "sheets": "python_calamine",
    "zstd": "zstandard",
    "parquet": "pyarrow",
    "hub": "huggingface_hub",
    "plot": "matplotlib",
    "tensorboard": "tensorboard",
    "sentence_transformers": "sentence_transformers",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "mcp": "mcp",
    "serve": "starlette",
    "pgvector": "psycopg",
    "lancedb": "lancedb",
    "qdrant": "qdrant_client",
    "chroma": "chromadb",
    "milvus": "pymilvus",
    "ray": "ray",
}


def has_extra(extra: str) -> bool:
    """Say whether the package behind `extra` is installed, without importing it."""
    return util.find_spec(EXTRAS[extra]) is not None


def load_extra(extra: str, *, purpose: str) -> ModuleType:
    """Import `embedkit.extras.<extra>`, or say what to install for `purpose`.

    Raises:
        MissingExtraError: the package behind the extra is not installed.
    """
    need_extra(extra, purpose=purpose)
    return import_module(f"embedkit.extras.{extra}")


def need_extra(extra: str, *, purpose: str) -> None:
    """Say what to install for `purpose` where the package behind `extra` is not there; nothing is imported.

    Raises:
        MissingExtraError: the package is not installed.
    """
    if not has_extra(extra):
        raise MissingExtraError(
            f"{purpose} needs the package {EXTRAS[extra]!r}, which is not installed. "
            f"Install it with: pip install 'embedkit[{_INSTALLED_BY.get(extra, extra)}]'"
        )
