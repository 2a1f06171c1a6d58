"""The modules of a multi-vector folder: what sentence-transformers 6 and PyLate write around an encoder."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.st_modules import module_path
from embedkit.checkpoint.st_parts import check_names, read_layer
from embedkit.checkpoint.st_settings import limits_path, read_limits
from embedkit.errors import CheckpointError
from embedkit.model.config import HeadLayer
from embedkit.types import TextRole

Style = Literal["sentence-transformers", "pylate", "colbert"]  # who wrote a folder
MultiVectorSimilarity = Literal["maxsim", "meanmaxsim"]
Json = Mapping[str, Any]  # Any: whatever JSON holds

TOKENS = "token_embeddings"  # what the modules read and write
PUNCTUATION = tuple(string.punctuation)  # what ColBERT and PyLate leave out of documents
COLBERT_QUERY_TOKENS = 32  # to which ColBERT fills queries up (Khattab and Zaharia 2020, section 3.2)
_SETTINGS = ("query_length", "document_length", "query_expansion")
_LENGTHS = _SETTINGS[:2]
# What only PyLate writes into config_sentence_transformers.json.
_PYLATE = (
    *_SETTINGS,
    "query_prefix",
    "document_prefix",
    "skiplist_words",
    "do_query_expansion",
    "attend_to_expansion_tokens",
)
MODULE_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "HierarchicalTokenPooling": "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling",
}
_LIBRARIES = ("sentence_transformers.", "pylate.")


@dataclass(frozen=True, kw_only=True)
class QueryExpansion:
    """Queries are filled up to `length` tokens, special ones included, with `token` (None: the mask token).

    `fixed` cuts longer queries to that length. Without `attend` no token attends to those that fill up; these attend to the query's own.
    Source: Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832, section 3.2.
    """

    length: int = COLBERT_QUERY_TOKENS
    token: str | None = None
    attend: bool = False
    fixed: bool = True


@dataclass(frozen=True, kw_only=True)
class TokenPooling:
    """Of a text's vectors one is kept for every `factor`, but for the first `protected`; see `embedkit.encoding.token_pooling`."""

    factor: float = 1.0
    protected: int = 1
    roles: tuple[str, ...] = ("document",)


@dataclass(frozen=True, kw_only=True)
class MultiVectorModules:
    """What a multi-vector folder says beyond the encoder itself.

    `layers` project each token's vector, `layer_folders` hold their weights. `markers` are prompts that stand for one token each, which the
    tokenizer is still to learn. `query_length` and `document_length` are the longest texts in tokens; None: as the encoder reads. Tokens of the
    `skiplist` have no vectors in texts of `skiplist_roles`.
    """

    style: Style = "sentence-transformers"
    layers: tuple[HeadLayer, ...] = ()
    layer_folders: tuple[str, ...] = ()
    encoder_folder: str = ""
    prompts: Mapping[str, str] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    query_length: int | None = None
    document_length: int | None = None
    max_seq_length: int | None = None
    lowercase: bool = False
    expansion: QueryExpansion | None = None
    skiplist: tuple[str, ...] = ()
    skiplist_roles: tuple[str, ...] = ("document",)
    pooling: TokenPooling | None = None
    similarity: MultiVectorSimilarity = "maxsim"

    def prompt(self, role: TextRole) -> str:
        """Return the prompt for queries or documents, marker included; "" where there is none."""
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        return next((self.prompts[name] for name in names if name in self.prompts), "")


def says_multi_vector(folder: Path) -> bool:
    """Say whether the settings or modules that sentence-transformers or PyLate write are of a multi-vector model."""
    texts = read_json(folder / "config_sentence_transformers.json", {})
    if texts.get("model_type") in ("MultiVectorEncoder", "ColBERT") or "query_prefix" in texts:
        return True
    rows = read_json(folder / "modules.json", [])
    names = [str(row.get("type")) for row in rows if isinstance(row, dict)]
    return any(name.startswith("pylate.") or name.endswith(".MultiVectorMask") for name in names)


def read_multi_vector_modules(folder: Path) -> MultiVectorModules:
    """Read a folder of sentence-transformers' `MultiVectorEncoder`, or of PyLate.

    Raises:
        CheckpointError: a file is missing or unreadable, or names a module or a setting that we do not compute.
    """
    path = folder / "config_sentence_transformers.json"
    texts = read_json(path, {})
    pylate = texts.get("model_type") != "MultiVectorEncoder" and any(key in texts for key in _PYLATE)
    pylate = pylate or texts.get("model_type") == "ColBERT"
    found: dict[str, Any] = {"style": "pylate" if pylate else "sentence-transformers"}
    similarity = json_field(texts, "similarity_fn_name", "maxsim", str(path))
    if similarity in get_args(MultiVectorSimilarity):
        found["similarity"] = similarity
    elif not pylate:  # whose folders may name the similarity of the model that they began with
        raise CheckpointError(
            f"{path}: similarity_fn_name is {similarity!r}; known are {', '.join(get_args(MultiVectorSimilarity))}"
        )
    found |= _read_prompts(texts, path)
    found |= _read_rows(folder, pylate=pylate)
    encoder_folder = folder / found["encoder_folder"]
    limits = limits_path(encoder_folder)
    knobs = _read_knobs(texts, path, pylate=pylate) | {
        key: value for key, value in read_json(limits, {}).items() if key in _SETTINGS
    }
    for key in _LENGTHS:
        found[key] = json_field(knobs, key, 0, str(limits)) or None
    found["expansion"] = _read_expansion(knobs.get("query_expansion"), limits)
    if pylate:
        listed = json_field(texts, "skiplist_words", list(PUNCTUATION), str(path))
        found["skiplist"] = tuple(map(str, listed))
    max_seq_length, lowercase = read_limits(encoder_folder, others=_SETTINGS)
    return MultiVectorModules(**found, max_seq_length=max_seq_length, lowercase=lowercase)


def _read_prompts(texts: Json, path: Path) -> dict[str, Any]:
    """Read the prompts; a marker of PyLate's stands before the prompt of its role."""
    prompts = json_field(texts, "prompts", dict[str, Any](), str(path))
    prompts = {name: "" if prompt is None else prompt for name, prompt in prompts.items()}
    markers = []
    for key, role in (("query_prefix", "query"), ("document_prefix", "document")):
        if marker := json_field(texts, key, "", str(path)):
            markers.append(marker)
            prompts[role] = marker + str(prompts.get(role, "")).removeprefix(marker)
    if not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise CheckpointError(f"{path}: prompts is {prompts}; each must be a string. Correct the file")
    return {"prompts": prompts, "markers": tuple(markers)}


def _read_knobs(texts: Json, path: Path, *, pylate: bool) -> dict[str, Any]:
    """Read what PyLate writes beside the prompts; its queries are filled up unless the file says that they are not."""
    if not pylate or not any(key in texts for key in _PYLATE):
        return {}
    knobs = {key: texts[key] for key in _SETTINGS if key in texts}
    if "query_expansion" not in knobs:
        knobs["query_expansion"] = None
        if json_field(texts, "do_query_expansion", True, str(path)):
            length = json_field(texts, "query_length", COLBERT_QUERY_TOKENS, str(path))
            attend = json_field(texts, "attend_to_expansion_tokens", False, str(path))
            knobs |= {"query_length": None}
            knobs["query_expansion"] = {"strategy": "fixed", "attend": attend, "length": length}
    return knobs


def _read_expansion(content: Any, path: Path) -> QueryExpansion | None:  # Any: whatever JSON holds
    if content is None:
        return None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: query_expansion is {content!r}; it must be an object. Correct the file"
        )
    strategy = content.get("strategy")
    length = json_field(content, "length", 0, str(path))
    if strategy not in ("fixed", "min") or length < 1:
        raise CheckpointError(
            f"{path}: query_expansion is {content}; its strategy must be fixed or min, its length at least 1. Correct the file"
        )
    token = content.get("token")
    if token is not None and not isinstance(token, str):
        raise CheckpointError(f"{path}: query_expansion.token is {token!r}; it must be a string or null")
    attend = json_field(content, "attend", False, str(path))
    return QueryExpansion(length=length, token=token, attend=attend, fixed=strategy == "fixed")


def _read_rows(folder: Path, *, pylate: bool) -> dict[str, Any]:
    """Read `modules.json` and the configs of the modules after the encoder."""
    where = folder / "modules.json"
    rows = read_json(where, [])
    kinds = [_kind(row, where) for row in rows]
    names = [module_path(row, folder) for row in rows]
    wanted = ["Transformer", "Dense, MultiVectorMask, Normalize and HierarchicalTokenPooling in this order"]
    order = ["Transformer", "Pooling", "Dense", "MultiVectorMask", "Normalize", "HierarchicalTokenPooling"]
    # The mask may stand anywhere before the pooling: it changes no vector.
    places = [order.index(kind) for kind in kinds if kind != "MultiVectorMask"]
    if not kinds or kinds[0] != "Transformer" or places != sorted(places) or kinds.count("Transformer") > 1:
        raise CheckpointError(
            f"{where}: the modules are {', '.join(kinds) or 'none'}; wanted {', then '.join(wanted)}"
        )
    if not pylate and ("Normalize" not in kinds or "MultiVectorMask" not in kinds):
        missing = "Normalize" if "Normalize" not in kinds else "MultiVectorMask"
        raise CheckpointError(
            f"{where}: there is no {missing}, without which token vectors are not what MaxSim compares here. "
            "Save the model with it"
        )
    found: dict[str, Any] = {"encoder_folder": names[0]}
    reads = (TOKENS, "sentence_embedding") if pylate else (TOKENS,)
    layers = [
        (name, read_layer("Dense", folder / name / "config.json", reads=reads))
        for kind, name in zip(kinds, names, strict=True)
        if kind == "Dense"
    ]
    found |= {"layers": tuple(layer for _, layer in layers), "layer_folders": tuple(n for n, _ in layers)}
    for kind, name in zip(kinds, names, strict=True):
        path = folder / name / "config.json"
        if kind == "Normalize" and not pylate:
            check_names(read_json(path, {}), path, reads=(TOKENS,))
        elif kind == "MultiVectorMask":
            found |= _read_mask(path)
        elif kind == "HierarchicalTokenPooling":
            found["pooling"] = _read_token_pooling(path)
    return found


def _kind(row: Any, where: Path) -> str:  # Any: whatever JSON holds
    name = row.get("type") if isinstance(row, dict) else None
    kind = name.rpartition(".")[2] if isinstance(name, str) else ""
    if not isinstance(name, str) or not name.startswith(_LIBRARIES) or kind not in (*MODULE_TYPES, "Pooling"):
        raise CheckpointError(
            f"{where}: module type {name!r} is not one that embedkit computes in a multi-vector model "
            f"({', '.join(MODULE_TYPES)}); code that a model brings along is never run"
        )
    return kind


def _read_mask(path: Path) -> dict[str, Any]:
    content = read_json(path, {})
    words = json_field(content, "skiplist_words", list[Any](), str(path))
    if content.get("keep_only_token_ids"):
        raise CheckpointError(
            f"{path}: keep_only_token_ids names tokens of images; texts alone are computed. Set it to null"
        )
    return {"skiplist": tuple(map(str, words)), "skiplist_roles": _roles(content, "skiplist_tasks", path)}


def _roles(content: Json, key: str, path: Path) -> tuple[str, ...]:
    """Read the roles of texts that something is done to: a name or a list of names; documents where there is none."""
    if isinstance(content.get(key), str):
        return (content[key],)
    return tuple(map(str, json_field(content, key, ["document"], str(path))))


def _read_token_pooling(path: Path) -> TokenPooling:
    content, where = read_json(path, {}), str(path)
    if not json_field(content, "normalize_embeddings", False, where):
        raise CheckpointError(
            f"{path}: normalize_embeddings is not true, and pooled vectors would be shorter than 1, which MaxSim here does "
            "not compare. Set it to true"
        )
    factor = json_field(content, "pool_factor", 1.0, where)
    protected = json_field(content, "num_protected_tokens", 1, where)
    if factor < 1 or protected < 0:
        raise CheckpointError(
            f"{path}: pool_factor is {factor:g} and num_protected_tokens {protected}; they must be at least 1 and 0. Correct the file"
        )
    return TokenPooling(factor=factor, protected=protected, roles=_roles(content, "tasks", path))


def known_words(words: Sequence[str], ids: Mapping[str, int], unknown: str | None) -> list[int]:
    """Return the numbers of those words that are single tokens of a vocabulary; others have none, unless they are its unknown token."""
    return [
        ids[word]
        for word in words
        if word in ids and (ids[word] != ids.get(unknown or "") or word == unknown)
    ]
