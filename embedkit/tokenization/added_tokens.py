"""Tokens that a folder adds to its vocabulary, in any of the five places where transformers looks for them.

`tokenizer_config.json` lists them with their numbers (`added_tokens_decoder`) or, in older folders, `added_tokens.json` does
beside what `tokenizer.json` holds; special tokens that are only named (`mask_token`, `additional_special_tokens`,
`special_tokens_map.json`) become tokens of their own too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from embedkit.errors import CheckpointError
from embedkit.tokenization.classes import USUAL_TOKENS, read_json, special_token

Json = Mapping[str, Any]  # Any: whatever JSON holds
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def add_tokens(
    backend: tokenizers.Tokenizer, config: Json, name: str | None, folder: Path
) -> tokenizers.Tokenizer:
    """Return the tokenizer with the tokens that a folder adds; `name` is the class that transformers reads it with.

    Raises:
        CheckpointError: a token would get another number than the folder says.
    """
    listed = _listed(backend, config, name, folder)
    # A special token that a role only names is none where the vocabulary lacks it; one that is listed as extra is new.
    specials = {
        content: token
        for content, token, is_extra in _specials(config, name, folder)
        if is_extra or backend.token_to_id(content) is not None
    }
    if name in USUAL_TOKENS:
        backend = _without_unlisted(backend, {token.content for token in listed.values()} | specials.keys())
    there = {token.content: repr(token) for token in backend.get_added_tokens_decoder().values()}
    new = [token for _, token in sorted(listed.items()) if there.get(token.content) != repr(token)]
    known = there.keys() | {token.content for token in new}
    backend.add_tokens([*new, *(token for content, token in specials.items() if content not in known)])
    for number, token in sorted(listed.items()):
        found = backend.token_to_id(token.content)
        if found != number:
            raise CheckpointError(
                f"{folder}: the added token {token.content!r} would be number {found}; the folder says {number}. "
                "Take all tokenizer files from the same model"
            )
    return backend


def _listed(
    backend: tokenizers.Tokenizer, config: Json, name: str | None, folder: Path
) -> dict[int, AddedToken]:
    """Return the tokens that a folder lists with their numbers."""
    path = folder / "added_tokens.json"
    if "added_tokens_decoder" in config:
        entries = config["added_tokens_decoder"]
        where = folder / "tokenizer_config.json"
        if not isinstance(entries, dict):
            raise CheckpointError(
                f"{where}: added_tokens_decoder is {entries!r}; it must be an object. Copy it again"
            )
        return {_number(number, where): _as_token(entry, where) for number, entry in entries.items()}
    listed: dict[int, AddedToken] = {}
    if path.is_file():
        special = {content for content, _, _ in _specials(config, name, folder)}
        for content, number in _read_object(path).items():
            is_special = content in special
            listed[_number(number, path)] = AddedToken(content, normalized=not is_special, special=is_special)
    return listed | backend.get_added_tokens_decoder()


def _specials(config: Json, name: str | None, folder: Path) -> Iterator[tuple[str, AddedToken, bool]]:
    """Yield the tokens that a folder names, or that its class has anyway, and whether each is one beside the usual roles."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    if not isinstance(extra, list | dict):
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: the extra special tokens are {extra!r}; they must be a list. Copy it again"
        )
    others = [
        value
        for key, value in config.items()
        if key.endswith("_token") and key.removesuffix("_token") not in ROLES
    ]
    named = [(special_token(config, name, role), False) for role in ROLES]
    own_mask = USUAL_TOKENS.get(name or "", {}).get("mask")
    more = [*others, *(extra.values() if isinstance(extra, dict) else extra)]
    for entry, is_extra in (*named, *((entry, True) for entry in more)):
        content = entry.get("content") if isinstance(entry, dict) else entry
        if not isinstance(content, str) or not content:
            continue
        lstrip = content == own_mask == "<mask>"  # it takes the space before it, as in RoBERTa
        rstrip = False
        if isinstance(entry, dict):
            lstrip, rstrip = bool(entry.get("lstrip")), bool(entry.get("rstrip"))
        token = AddedToken(content, lstrip=lstrip, rstrip=rstrip, normalized=False, special=True)
        yield content, token, is_extra


def _without_unlisted(backend: tokenizers.Tokenizer, wanted: set[str]) -> tokenizers.Tokenizer:
    """Drop the added tokens of tokenizer.json that a class, which takes the vocabulary alone, does not know of."""
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    return _without(backend, added - wanted)


def _without(backend: tokenizers.Tokenizer, dropped: Collection[str]) -> tokenizers.Tokenizer:
    """Return a tokenizer without some added tokens; itself where there are none."""
    if not dropped:
        return backend
    content = json.loads(backend.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in dropped]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def without_rowless(
    backend: tokenizers.Tokenizer, num_rows: int, roles: Collection[str]
) -> tokenizers.Tokenizer:
    """Drop the special tokens behind the last row of a token table, such as Gemma's for images: such a name in a text is then plain text.

    What is no special token, or is one of `roles` or stands around a text, stays: it is of another model than the table.
    """
    beyond = {
        number: token.content
        for number, token in backend.get_added_tokens_decoder().items()
        if number >= num_rows and token.special and token.content not in roles
    }
    if not beyond:  # as nearly always: no text is read for it
        return backend
    around = {*backend.encode("").ids, *backend.encode("a", "a").ids}
    return _without(backend, {content for number, content in beyond.items() if number not in around})


def _as_token(entry: Any, where: Path) -> AddedToken:  # Any: whatever JSON holds
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise CheckpointError(
            f"{where}: an added token is {entry!r}; it must be an object with its content. Copy the file again"
        )
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(entry["content"], **{flag: bool(entry[flag]) for flag in flags if flag in entry})


def _number(value: Any, where: Path) -> int:  # Any: whatever JSON holds
    try:
        return int(value)
    except (TypeError, ValueError) as exc:
        raise CheckpointError(
            f"{where}: the number of an added token is {value!r}; it must be a whole number. Copy the file again"
        ) from exc


def _read_object(path: Path) -> Json:
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a JSON {type(content).__name__}; it must be an object. Copy it again"
        )
    return content
