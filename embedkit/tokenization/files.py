"""The files of a tokenizer: `tokenizer.json`, or vocabularies from which one is built, and what stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models

from embedkit.errors import CheckpointError
from embedkit.tokenization.added_tokens import add_tokens
from embedkit.tokenization.classes import (
    BYTE_LEVEL,
    USUAL_TOKENS,
    WORD_PIECE,
    add_end,
    apply_class,
    read_json,
)
from embedkit.tokenization.sentencepiece import FILES, build

Json = dict[str, Any]  # Any: whatever JSON holds


def read_tokenizer_config(folder: Path) -> Json:
    """Read `tokenizer_config.json`, and `special_tokens_map.json` unless the former lists the added tokens itself.

    Raises:
        CheckpointError: a file is not JSON, or asks for what is not computed.
    """
    path = folder / "tokenizer_config.json"
    config = _read_json(path)
    if config.get("split_special_tokens"):
        raise CheckpointError(
            f"{path}: split_special_tokens is true; special tokens in a text are always read as such here. Set it to false"
        )
    return (
        config
        if "added_tokens_decoder" in config
        else config | _read_json(folder / "special_tokens_map.json")
    )


def class_name(config: Json, model_class: str | None, *, as_is: bool) -> str | None:
    """Return which of transformers' classes reads a folder, without `Fast` at its end; None: tokenizer.json stands as it is."""
    named = config.get("tokenizer_class") or model_class
    return None if as_is or not isinstance(named, str) else named.removesuffix("Fast")


def load_backend(folder: Path, config: Json, name: str | None) -> tokenizers.Tokenizer:
    """Read `tokenizer.json`, or build the tokenizer of `vocab.txt`, or of `vocab.json` and `merges.txt`.

    `name` is the class that transformers would use: it may read a text otherwise than the file says, and adds tokens.

    Raises:
        CheckpointError: none of them is there, a vocabulary is of another class, or it lacks the tokens at the ends of a text.
        Exception: the library's own, bare, for a damaged file.
    """
    if (folder / "tokenizer.json").is_file():
        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        backend, name = _from_vocabulary(folder, config, name)
    backend = add_tokens(backend, config, name, folder)
    apply_class(backend, config, name, folder)
    add_end(backend, config, folder)
    return backend


def _from_vocabulary(folder: Path, config: Json, name: str | None) -> tuple[tokenizers.Tokenizer, str | None]:
    """Build a tokenizer without normalizer and template, which its class adds; also return the class."""
    known: tuple[str, ...]
    pieces = folder / FILES.get(name or "", "-")
    if name in FILES and pieces.is_file():
        return build(pieces, name), name
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if (folder / "vocab.txt").is_file():
        path, known = folder / "vocab.txt", WORD_PIECE
    elif vocab.is_file() and merges.is_file():
        path, known = vocab, BYTE_LEVEL
    else:
        raise CheckpointError(
            f"{folder}: no tokenizer; looked for tokenizer.json, vocab.txt, or vocab.json with merges.txt"
            f"{', or ' + pieces.name if name in FILES else ''}. "
            "Copy one of them from where the model came from"
        )
    if name not in (None, "PreTrainedTokenizer", "TokenizersBackend", *USUAL_TOKENS):
        raise CheckpointError(
            f"{path}: the vocabulary of a {name}; without a tokenizer.json embedkit builds {', '.join(known)}. "
            "Let transformers write one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    model: models.Model
    decoder: decoders.Decoder
    if path is vocab:
        model, decoder = models.BPE.from_file(str(vocab), str(merges)), decoders.ByteLevel()
    else:
        unknown = _token(config.get("unk_token")) or "[UNK]"
        model, decoder = models.WordPiece.from_file(str(path), unk_token=unknown), decoders.WordPiece()
    backend = tokenizers.Tokenizer(model)
    backend.decoder = decoder
    return backend, name if name in known else known[0]


def find_special_tokens(backend: tokenizers.Tokenizer, config: Json) -> dict[str, str]:
    """Find the special tokens: named in the config, else the usual names that the vocabulary holds."""
    usual = {
        "pad": ("[PAD]", "<pad>"),
        "unk": ("[UNK]", "<unk>"),
        "cls": ("[CLS]", "<s>"),
        "sep": ("[SEP]", "</s>"),
        "mask": ("[MASK]", "<mask>"),
    }
    found: dict[str, str] = {}
    for role, names in usual.items():
        named = _token(config.get(f"{role}_token"))
        for token in (named, *names):
            if token is not None and backend.token_to_id(token) is not None:
                found[role] = token
                break
    return found


def _token(entry: Any) -> str | None:
    """Read a token that is written as a string or as an object with its `content`."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _read_json(path: Path) -> Json:
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return content if isinstance(content, dict) else {}
