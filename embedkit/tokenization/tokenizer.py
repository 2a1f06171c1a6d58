"""The tokenizer of a checkpoint: text in, packed token ids out; cuts are counted, threads are safe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import normalizers

from embedkit.errors import CheckpointError
from embedkit.storage.files import is_utf8
from embedkit.tokenization.added_tokens import without_rowless
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.blocks import BLOCK_CHARS, Span, ids_at_one_end
from embedkit.tokenization.classes import lowercases
from embedkit.tokenization.files import class_name, find_special_tokens, load_backend, read_tokenizer_config
from embedkit.tokenization.framing import cut, frame
from embedkit.tokenization.pieces import PieceReader, split
from embedkit.tokenization.words import WordRules, described

Truncation = Literal["second", "longest_first"]
Side = Literal["right", "left"]


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
    """Wraps `tokenizers.Tokenizer`, whose own truncation and padding stay off: it is never changed after loading.

    `truncation_side` is where a text that is too long loses its tokens. A model2vec model cuts it to `max_chars` characters
    first, and then drops the unknown tokens of what is left (`drop_unknown`). Of a table of word vectors `words` say which words of a text
    are looked up.
    """

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str]  # role ("pad", "cls", "sep", "mask", "unk") -> token
    max_length: int
    truncation_side: Side = "right"
    max_chars: int | None = None
    drop_unknown: bool = False
    words: WordRules | None = None
    pieces: PieceReader = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # made at once, and shared by copies

    def __post_init__(self) -> None:
        if self.pieces is None or self.pieces.backend is not self.backend:
            object.__setattr__(self, "pieces", PieceReader(self.backend))
        self.backend.no_truncation()
        self.backend.no_padding()
        if self.max_length <= self.single.num_special:
            raise ValueError(
                f"max_length is {self.max_length}; with {self.single.num_special} special tokens it must be larger"
            )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        max_length: int | None = None,
        default_max_length: int = 512,
        lowercase: bool = False,
        model_class: str | None = None,
        as_is: bool = False,
    ) -> Tokenizer:
        """Read `tokenizer.json`, or `vocab.txt`, or `vocab.json` and `merges.txt`, as transformers reads them.

        `max_length` None takes what `tokenizer_config.json` says, else `default_max_length`. `model_class` is the class of
        transformers' that stands for the model where that file names none; with `as_is` no class overrules `tokenizer.json`.
        `lowercase` lower-cases every text first.

        Raises:
            CheckpointError: none of them is there, or one cannot be read, or it asks for what is not computed.
        """
        folder = Path(folder)
        config = read_tokenizer_config(folder)
        if max_length is None:
            given = config.get("model_max_length", config.get("max_len"))
            # Where the model sets no limit, its config holds an absurdly large number.
            max_length = given if isinstance(given, int) and given < 10**6 else default_max_length
        try:
            backend = load_backend(folder, config, class_name(config, model_class, as_is=as_is))
            side = config.get("truncation_side") or (backend.truncation or {}).get("direction", "right")
            if lowercase and not lowercases(backend):
                own = [] if backend.normalizer is None else [backend.normalizer]
                backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
            return cls(backend, find_special_tokens(backend, config), max_length, _side(side, folder))
        except CheckpointError:
            raise
        except Exception as exc:  # the library raises bare Exception for every damaged file
            raise _unreadable(folder, exc) from exc

    @classmethod
    def load_file(cls, path: str | Path, *, default_max_length: int) -> Tokenizer:
        """Read a `tokenizer.json` with nothing beside it; the limit is the file's own, where it has one.

        Raises:
            CheckpointError: the file is missing or cannot be read.
        """
        path = Path(path)
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as exc:  # the library raises bare Exception for every damaged file
            raise _unreadable(path, exc) from exc
        cut = backend.truncation or {}
        side = _side(cut.get("direction", "right"), path)
        return cls(
            backend,
            find_special_tokens(backend, {}),
            min(cut.get("max_length", default_max_length), default_max_length),
            side,
        )

    def save(self, folder: str | Path, *, token_types: bool = True) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

        `token_types` says whether the model takes any: transformers gives a model the inputs that its tokenizer names.
        """
        folder = Path(folder)
        self.backend.save(str(folder / "tokenizer.json"), pretty=False)
        names = {f"{role}_token": token for role, token in self.special_tokens.items()}
        types = ["token_type_ids"] if token_types and any(self.backend.encode("a", "a").type_ids) else []
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.max_length,
            "model_input_names": ["input_ids", *types, "attention_mask"],
            **names,
        }
        if self.truncation_side == "left":
            config["truncation_side"] = "left"
        for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the ids of a text."""
        content = self.backend.to_str()
        content += "|cut on the left" if self.truncation_side == "left" else ""
        content += "" if self.max_chars is None else f"|cut to {self.max_chars} characters"
        content += "|without unknown tokens" if self.drop_unknown else ""
        content += "" if self.words is None else f"|words {described(self.words)}"
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
        places: tuple[list[int], list[int]] = ([], [])
        for i, sequence in enumerate(plain.sequence_ids):
            if sequence is not None and not plain.special_tokens_mask[i]:
                places[sequence].append(i)
        start, middle, second, end = places[0][0], places[0][-1] + 1, places[1][0], places[1][-1] + 1
        ids, types = plain.ids, plain.type_ids
        kinds = (
            types[0],
            types[start],
            types[middle],
            types[second],
            types[end] if end < len(ids) else 0,
        )
        return Template(tuple(ids[:start]), tuple(ids[middle:second]), tuple(ids[end:]), kinds)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids without special tokens and without cutting.

        Raises:
            TypeError: one is no string.
        """
        if self.words is not None:
            for number, text in enumerate(texts):
                refuse_no_text(text, number)
            texts = [self.words.kept(text) for text in texts]
        elif (fast := self.pieces.ids(texts)) is not None:
            return split(*fast)
        return self._ids_by_library(texts)

    def _ids_by_library(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            found = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            for number, text in enumerate(texts):
                refuse_no_text(text, number)
            raise
        return [encoding.ids for encoding in found]

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Turn B texts into token ids with special tokens, each cut to `max_length`.

        What is cut of a text longer than a block (`blocks`) is not tokenized: its untruncated length is what was.
        """
        limit = self.max_chars
        ids, counts, whole = self._flat_ids(texts if limit is None else [text[:limit] for text in texts])
        if limit is not None:
            whole &= np.array([len(text) <= limit for text in texts], np.bool_)
        template = self.single
        room = self.max_length - template.num_special
        dropped = self._unknown if self.drop_unknown else None
        kept, kept_counts = cut(ids, counts, room, side=self.truncation_side, dropped=dropped)
        framed, lengths = frame(kept, kept_counts, template.prefix, template.suffix)
        longer = np.maximum(counts + template.num_special, lengths + 1)
        return TokenBatch(framed, lengths, None, np.where(whole & (counts <= room), lengths, longer))

    def _flat_ids(
        self, texts: Sequence[str]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
        """Return the ids of B texts, one after the other, how many each has, (B,), and whether these are all of them, (B,)."""
        if self.words is not None or any(isinstance(text, str) and len(text) > BLOCK_CHARS for text in texts):
            read = list(self.ids_to_cut(texts, self.max_length - self.single.num_special))
        elif (fast := self.pieces.ids(texts)) is not None:
            return *fast, np.ones(len(texts), np.bool_)
        else:
            read = list(zip(self._ids_by_library(texts), repeat(True)))
        counts = np.array([len(ids) for ids, _ in read], np.int64)
        flat = np.fromiter((number for ids, _ in read for number in ids), np.int32, int(counts.sum()))
        return flat, counts, np.array([all_ids for _, all_ids in read], np.bool_)

    def encode_chunks(self, texts: Sequence[str], *, repeat: int = 0) -> tuple[TokenBatch, NDArray[np.int64]]:
        """Turn B texts into C ≥ B sequences: each text in as many pieces of at most `max_length` as it needs.

        The first `repeat` tokens of a text, its prompt, stand before each of its pieces.

        Shapes:
            returns: a batch of C sequences, and (C,) the number of the text that each piece is of, ascending
        Raises:
            ValueError: the special tokens and the repeated ones leave no room.
        """
        template = self.single
        room = self.max_length - template.num_special - repeat
        if room < 1:
            raise ValueError(
                f"max_length is {self.max_length}; {template.num_special} special tokens and {repeat} repeated ones "
                "leave no room"
            )
        flat: list[int] = []
        lengths: list[int] = []
        owners: list[int] = []
        for i, ids in enumerate(self.ids(texts)):
            head = [*template.prefix, *ids[:repeat]]
            for start in range(repeat, max(len(ids), repeat + 1), room):
                before = len(flat)
                flat += head
                flat += self._known(ids[start : start + room])
                flat += template.suffix
                lengths.append(len(flat) - before)
                owners.append(i)
        batch = TokenBatch(np.array(flat, dtype=np.int64), np.array(lengths, dtype=np.int64))
        return batch, np.array(owners, dtype=np.int64)

    def encode_pairs(
        self, first: Sequence[str], second: Sequence[str], *, truncation: Truncation = "second"
    ) -> TokenBatch:
        """Turn B pairs into [CLS] first [SEP] second [SEP], or as the tokenizer's own template says.

        `truncation` cuts the second text only, or the longer of the two token by token. A first text that leaves
        the second no room is itself cut, to `max_length` less the special tokens and one token. Untruncated lengths are
        as in `encode`.

        Raises:
            ValueError: the two lists differ in length.
        """
        if len(first) != len(second):
            raise ValueError(
                f"{len(first)} first texts and {len(second)} second texts; there must be as many of each"
            )
        template = self.pair
        room = self.max_length - template.num_special
        distinct = list(dict.fromkeys(first))  # a query stands beside many texts: it is tokenized once
        # One token more than there is room for says that a text is cut; which of two such texts is the longer decides about a
        # single token, and beyond a block is not asked.
        ids_of = {
            text: ids for text, (ids, _) in zip(distinct, self.ids_to_cut(distinct, room + 1), strict=True)
        }
        flat: list[int] = []
        types: list[int] = []
        lengths = np.empty(len(first), dtype=np.int64)
        full = np.empty(len(first), dtype=np.int64)
        for i, (text, (right, _)) in enumerate(zip(first, self.ids_to_cut(second, room + 1), strict=True)):
            left = ids_of[text]
            full[i] = len(left) + len(right) + template.num_special
            keep_left, keep_right = _fit(len(left), len(right), room, truncation)
            first_ids, second_ids = self._first(left, keep_left), self._first(right, keep_right)
            parts = (template.prefix, first_ids, template.middle, second_ids, template.suffix)
            before = len(flat)
            for part, kind in zip(parts, template.type_ids, strict=True):
                flat += part
                types += [kind] * len(part)
            lengths[i] = len(flat) - before
        return TokenBatch(np.array(flat, dtype=np.int64), lengths, np.array(types, dtype=np.int64), full)

    def ids_to_cut(self, texts: Sequence[str], count: int) -> Iterator[tuple[list[int], bool]]:
        """Return of each text the ids that it keeps when cut to `count` and perhaps more, and whether these are all.

        Raises:
            TypeError: one is no string.
        """
        # What is no string is refused with the short ones. Words are cheap to look up, and the rules are for whole texts.
        long = [isinstance(text, str) and len(text) > BLOCK_CHARS for text in texts]
        if self.words is not None or not any(long):
            return zip(self.ids(texts), repeat(True))
        return self._ids_of_long(texts, long, count)

    def _ids_of_long(
        self, texts: Sequence[str], long: Sequence[bool], count: int
    ) -> Iterator[tuple[list[int], bool]]:
        short = iter(self.ids([text for text, is_long in zip(texts, long, strict=True) if not is_long]))
        for text, is_long in zip(texts, long, strict=True):
            if is_long:
                yield ids_at_one_end(self._tokens, text, count, left=self.truncation_side == "left")
            else:
                yield next(short), True

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of the text starts and ends, in characters; special tokens left out."""
        return list(self.backend.encode(text, add_special_tokens=False).offsets)

    def extent(self, text: str) -> tuple[int, Span] | None:
        """Return how many tokens a text has, at most, and where they start and stop, where that is found without looking at each; None elsewhere."""
        if len(text) > BLOCK_CHARS or self.words is not None:
            return None
        return self.pieces.extent(text)

    def without_rowless(self, num_rows: int) -> Tokenizer:
        """Return the tokenizer without the special tokens that a token table of so many rows has no vector for, and no text needs."""
        backend = without_rowless(self.backend, num_rows, self.special_tokens.values())
        return self if backend is self.backend else replace(self, backend=backend)

    def with_max_length(self, max_length: int) -> Tokenizer:
        return replace(self, max_length=max_length)

    def _first(self, ids: list[int], count: int) -> list[int]:
        """Return the `count` tokens that a cut leaves of a text: the first, or where it is cut on the left the last."""
        if len(ids) <= count:
            return ids
        return ids[:count] if self.truncation_side == "right" else ids[len(ids) - count :]

    def _known(self, ids: list[int]) -> list[int]:
        if not self.drop_unknown:
            return ids
        unknown = self._unknown
        return [number for number in ids if number != unknown]

    @cached_property
    def unknown_id(self) -> int | None:
        """The number of the token that stands for what the vocabulary lacks; None where there is none."""
        token = self.special_tokens.get("unk")
        return None if token is None else self.backend.token_to_id(token)

    @cached_property
    def _unknown(self) -> int | None:
        """The number of what the vocabulary itself calls unknown."""
        model = json.loads(self.backend.to_str())["model"]
        token = model.get("unk_token")
        return model.get("unk_id") if token is None else self.backend.token_to_id(token)


def refuse_no_text(text: object, number: int) -> None:
    """Refuse what is no string: None and NaN come from tables with gaps.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"text {number} is {text!r:.60}, of type {type(text).__name__}; each must be a string"
        )


def _side(side: object, where: Path) -> Side:
    if side not in get_args(Side):
        raise CheckpointError(f"{where}: truncation_side is {side!r}; it must be right or left. Correct it")
    return cast("Side", side)


def _unreadable(where: Path, exc: Exception) -> CheckpointError:
    if not is_utf8(where):
        return CheckpointError(
            f"{where}: a name in this path is not UTF-8, and tokenizers and weights cannot be read there. Rename it"
        )
    return CheckpointError(
        f"{where}: the tokenizer files cannot be read ({exc}). Copy them again from where the model came from"
    )


def _fit(left: int, right: int, room: int, truncation: Truncation) -> tuple[int, int]:
    """Return how many tokens of each side to keep so that both fit into `room`."""
    excess = left + right - room
    if excess <= 0:
        return left, right
    if truncation == "second":
        left = min(left, room - 1)
        return left, min(right, room - left)
    # Taking one token at a time from the longer side ends at equal halves; an odd one stays with the longer.
    shorter = min(left, right)
    if room - shorter >= shorter:
        return (room - right, right) if left > right else (left, room - left)
    half, rest = room // 2, room - room // 2
    return (rest, half) if left > right else (half, rest)
