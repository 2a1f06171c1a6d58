"""The tokenizer of a checkpoint: text in, packed token ids out; cuts are counted, threads are safe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from embedkit.errors import CheckpointError
from embedkit.tokenization.batch import TokenBatch

Truncation = Literal["second", "longest_first"]


@dataclass(frozen=True)
class Template:
    """The special tokens around one text, or before, between and after two; read off the tokenizer itself."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    type_ids: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # of prefix, first, middle, second, suffix

    @property
    def num_special(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True)
class Tokenizer:
    """Wraps `tokenizers.Tokenizer`, whose own truncation and padding stay off: it is never changed after loading."""

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str]  # role ("pad", "cls", "sep", "mask", "unk") -> token
    max_length: int
    lowercase: bool = False

    def __post_init__(self) -> None:
        self.backend.no_truncation()
        self.backend.no_padding()
        if self.max_length <= self.single.num_special:
            raise ValueError(
                f"max_length is {self.max_length}; with {self.single.num_special} special tokens it must be larger"
            )

    @classmethod
    def load(cls, folder: str | Path, *, max_length: int | None = None, lowercase: bool = False) -> Tokenizer:
        """Read `tokenizer.json`, or `vocab.txt`, or `vocab.json` and `merges.txt`.

        Raises:
            CheckpointError: none of them is there, or one cannot be read.
        """
        folder = Path(folder)
        config = _read_json(folder / "tokenizer_config.json") | _read_json(folder / "special_tokens_map.json")
        try:
            backend = _load_backend(folder, config)
        except CheckpointError:
            raise
        except Exception as exc:  # the library raises bare Exception for every damaged file
            raise CheckpointError(
                f"{folder}: the tokenizer files cannot be read ({exc}). Copy them again from where the model came from"
            ) from exc
        special = _special_tokens(backend, config)
        if max_length is None:
            given = config.get("model_max_length")
            max_length = given if isinstance(given, int) and given < 10**6 else 512
        return cls(backend, special, max_length, lowercase)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`."""
        folder = Path(folder)
        self.backend.save(str(folder / "tokenizer.json"))
        names = {f"{role}_token": token for role, token in self.special_tokens.items()}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_length, **names}
        for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the ids of a text."""
        content = self.backend.to_str() + ("|lowercase" if self.lowercase else "")
        return hashlib.sha256(content.encode("utf-8")).hexdigest()

    def special_id(self, role: str) -> int:
        """Return the id of the "pad", "cls", "sep", "mask" or "unk" token.

        Raises:
            CheckpointError: the tokenizer has no such token.
        """
        token = self.special_tokens.get(role)
        found = None if token is None else self.backend.token_to_id(token)
        if found is None:
            known = ", ".join(sorted(self.special_tokens)) or "none"
            raise CheckpointError(
                f"the tokenizer has no {role} token; it has: {known}. Name it in special_tokens_map.json"
            )
        return found

    @cached_property
    def single(self) -> Template:
        """The template around one text."""
        probe = self.backend.encode("")
        plain = self.backend.encode("a")
        # Special tokens before the first and after the last token of the text itself.
        own = [
            i
            for i, sequence in enumerate(plain.sequence_ids)
            if sequence == 0 and not plain.special_tokens_mask[i]
        ]
        before = own[0] if own else len(probe.ids)
        return Template(tuple(probe.ids[:before]), (), tuple(probe.ids[before:]))

    @cached_property
    def pair(self) -> Template:
        """The template around two texts."""
        plain = self.backend.encode("a", "a")
        special = [bool(flag) for flag in plain.special_tokens_mask]
        start = special.index(False)
        middle = special.index(True, start)
        second = special.index(False, middle)
        end = special.index(True, second) if True in special[second:] else len(special)
        ids, types = plain.ids, [*plain.type_ids, 0]
        kinds = (types[0], types[start], types[middle], types[second], types[end] if end < len(ids) else 0)
        return Template(tuple(ids[:start]), tuple(ids[middle:second]), tuple(ids[end:]), kinds)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids without special tokens and without cutting."""
        if self.lowercase:
            texts = [text.lower() for text in texts]
        return [
            encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Turn B texts into token ids with special tokens, each cut to `max_length`."""
        template = self.single
        room = self.max_length - template.num_special
        flat: list[int] = []
        lengths = np.empty(len(texts), dtype=np.int64)
        full = np.empty(len(texts), dtype=np.int64)
        for i, ids in enumerate(self.ids(texts)):
            full[i] = len(ids) + template.num_special
            lengths[i] = min(full[i], self.max_length)
            flat += template.prefix
            flat += ids if len(ids) <= room else ids[:room]
            flat += template.suffix
        return TokenBatch(np.array(flat, dtype=np.int64), lengths, None, full)

    def encode_chunks(self, texts: Sequence[str]) -> tuple[TokenBatch, NDArray[np.int64]]:
        """Turn B texts into C ≥ B sequences: each text in as many pieces of at most `max_length` as it needs.

        Shapes:
            returns: a batch of C sequences, and (C,) the number of the text that each piece is of, ascending
        """
        template = self.single
        room = self.max_length - template.num_special
        flat: list[int] = []
        lengths: list[int] = []
        owners: list[int] = []
        for i, ids in enumerate(self.ids(texts)):
            for start in range(0, max(len(ids), 1), room):
                piece = ids[start : start + room]
                flat += template.prefix
                flat += piece
                flat += template.suffix
                lengths.append(len(piece) + template.num_special)
                owners.append(i)
        batch = TokenBatch(np.array(flat, dtype=np.int64), np.array(lengths, dtype=np.int64))
        return batch, np.array(owners, dtype=np.int64)

    def encode_pairs(
        self, first: Sequence[str], second: Sequence[str], *, truncation: Truncation = "second"
    ) -> TokenBatch:
        """Turn B pairs into [CLS] first [SEP] second [SEP], or as the tokenizer's own template says.

        `truncation` cuts the second text only, or the longer of the two token by token. A first text that leaves
        the second no room is itself cut, to `max_length` less the special tokens and one token.

        Raises:
            ValueError: the two lists differ in length.
        """
        if len(first) != len(second):
            raise ValueError(
                f"{len(first)} first texts and {len(second)} second texts; there must be as many of each"
            )
        distinct = list(dict.fromkeys(first))  # a query stands beside many texts: it is tokenized once
        ids_of = dict(zip(distinct, self.ids(distinct), strict=True))
        template = self.pair
        room = self.max_length - template.num_special
        flat: list[int] = []
        types: list[int] = []
        lengths = np.empty(len(first), dtype=np.int64)
        full = np.empty(len(first), dtype=np.int64)
        for i, (text, right) in enumerate(zip(first, self.ids(second), strict=True)):
            left = ids_of[text]
            full[i] = len(left) + len(right) + template.num_special
            keep_left, keep_right = _fit(len(left), len(right), room, truncation)
            parts = (template.prefix, left[:keep_left], template.middle, right[:keep_right], template.suffix)
            before = len(flat)
            for part, kind in zip(parts, template.type_ids, strict=True):
                flat += part
                types += [kind] * len(part)
            lengths[i] = len(flat) - before
        return TokenBatch(np.array(flat, dtype=np.int64), lengths, np.array(types, dtype=np.int64), full)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of the text starts and ends, in characters; special tokens left out."""
        encoding = self.backend.encode(text.lower() if self.lowercase else text, add_special_tokens=False)
        return list(encoding.offsets)

    def with_max_length(self, max_length: int) -> Tokenizer:
        return replace(self, max_length=max_length)


def _fit(left: int, right: int, room: int, truncation: Truncation) -> tuple[int, int]:
    """Return how many tokens of each side to keep so that both fit into `room`."""
    excess = left + right - room
    if excess <= 0:
        return left, right
    if truncation == "second":
        left = min(left, room - 1)
        return left, min(right, room - left)
    # Taking one token at a time from the longer side ends at equal halves; an odd one stays with the longer.
    shorter, longer = sorted((left, right))
    if room - shorter >= shorter:
        return (room - right, right) if left > right else (left, room - left)
    half, rest = room // 2, room - room // 2
    return (rest, half) if left > right else (half, rest)


def _read_json(path: Path) -> dict[str, Any]:  # Any: whatever JSON holds
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise CheckpointError(
            f"{path}: not JSON ({exc}). Copy the file again from where the model came from"
        ) from exc
    return content if isinstance(content, dict) else {}


def _load_backend(folder: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
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


def _special_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> dict[str, str]:
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
