"""The files of a tokenizer: `tokenizer.json`, or vocabularies from which one is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from embedkit.errors import CheckpointError


def read_tokenizer_config(folder: Path) -> dict[str, Any]:  # Any: whatever JSON holds
    """Read what `tokenizer_config.json` and `special_tokens_map.json` say, where they are there."""
    return _read_json(folder / "tokenizer_config.json") | _read_json(folder / "special_tokens_map.json")


def load_backend(folder: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """Read `tokenizer.json`, or build the tokenizer of `vocab.txt`, or of `vocab.json` and `merges.txt`.

    Raises:
        CheckpointError: none of them is there, or a vocabulary lacks the tokens at the ends of a text.
        Exception: the library's own, bare, for a damaged file.
    """
    if (folder / "tokenizer.json").is_file():
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.txt").is_file():
        return _wordpiece(folder / "vocab.txt", config)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_level_bpe(folder / "vocab.json", folder / "merges.txt", config)
    raise CheckpointError(
        f"{folder}: no tokenizer; looked for tokenizer.json, vocab.txt, or vocab.json with merges.txt. "
        "Copy one of them from where the model came from"
    )


def _wordpiece(vocab: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """Build BERT's tokenizer from its vocabulary, as its authors' code splits and normalises text."""
    lowercase = bool(config.get("do_lower_case", True))
    unknown = _token(config.get("unk_token")) or "[UNK]"
    backend = tokenizers.Tokenizer(models.WordPiece.from_file(str(vocab), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    known = {
        role: _token(config.get(f"{role}_token")) or f"[{role.upper()}]"
        for role in ("pad", "unk", "cls", "sep", "mask")
    }
    backend.add_special_tokens([token for token in known.values() if backend.token_to_id(token) is not None])
    sep, cls = (_end_token(backend, vocab, known[role]) for role in ("sep", "cls"))
    backend.post_processor = processors.BertProcessing(sep, cls)
    return backend


def _byte_level_bpe(vocab: Path, merges: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """Build RoBERTa's tokenizer from its vocabulary and merges."""
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    prefix = bool(config.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    usual = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    known = {role: _token(config.get(f"{role}_token")) or token for role, token in usual.items()}
    backend.add_special_tokens([token for token in known.values() if backend.token_to_id(token) is not None])
    mask = _token(config.get("mask_token")) or "<mask>"
    if backend.token_to_id(mask) is not None:  # the mask takes the space before it, as in RoBERTa
        backend.add_special_tokens([tokenizers.AddedToken(mask, lstrip=True, special=True)])
    sep, cls = (_end_token(backend, vocab, known[role]) for role in ("sep", "cls"))
    backend.post_processor = processors.RobertaProcessing(
        sep, cls, trim_offsets=True, add_prefix_space=prefix
    )
    return backend


def _end_token(backend: tokenizers.Tokenizer, vocab: Path, token: str) -> tuple[str, int]:
    found = backend.token_to_id(token)
    if found is None:
        raise CheckpointError(
            f"{vocab}: there is no {token!r}, which stands at an end of every text. Take the model's own vocabulary"
        )
    return token, found


def find_special_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> dict[str, str]:
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


def _read_json(path: Path) -> dict[str, Any]:  # Any: whatever JSON holds
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(
            f"{path}: not JSON ({exc}). Copy the file again from where the model came from"
        ) from exc
    return content if isinstance(content, dict) else {}
