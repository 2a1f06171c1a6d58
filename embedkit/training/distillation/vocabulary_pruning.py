"""Cut a word-piece vocabulary to the tokens that a corpus uses: most of a small model's weights are its token table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.tokenization.tokenizer import Tokenizer

Ints = NDArray[np.int64]
WINDOW = 4096


@dataclass(frozen=True)
class Pruned:
    """The smaller tokenizer, and which rows of the token table it keeps: (V',) in their old order."""

    tokenizer: Tokenizer
    kept: Ints


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> Ints:
    """Count how often the texts use each token: (V,)."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for start in range(0, len(texts), WINDOW):
        flat = [number for ids in tokenizer.ids(texts[start : start + WINDOW]) for number in ids]
        counts += np.bincount(np.array(flat, dtype=np.int64), minlength=len(counts))
    return counts


def prune_vocabulary(tokenizer: Tokenizer, texts: Sequence[str], *, at_least: int = 1) -> Pruned:
    """Keep the tokens that the texts use `at_least` so often, the special ones and all single characters.

    A word that is left out falls apart into smaller pieces that are kept, never into [UNK] where it was known before:
    for that the single characters stay, at the start of a word and within.

    Raises:
        TrainingError: the tokenizer is not a word-piece one.
    """
    content = json.loads(tokenizer.backend.to_str())
    model = content["model"]
    if model.get("type", "WordPiece") != "WordPiece":
        raise TrainingError(
            f"student.prune_below: the teacher's tokenizer is of type {model.get('type')}; only a WordPiece vocabulary can be cut. "
            "Set it to 0"
        )
    vocabulary: dict[str, int] = model["vocab"]
    counts = count_tokens(tokenizer, texts)
    prefix = model.get("continuing_subword_prefix", "##")
    special = {str(token["content"]) for token in content["added_tokens"]} | {model["unk_token"]}
    kept = [
        (number, token)
        for token, number in vocabulary.items()
        if token in special or len(token.removeprefix(prefix)) == 1 or counts[number] >= at_least
    ]
    kept.sort()
    numbers = [number for number, _ in kept]
    return Pruned(with_tokens(tokenizer, numbers), np.array(numbers, dtype=np.int64))


def with_tokens(tokenizer: Tokenizer, kept: Sequence[int]) -> Tokenizer:
    """Return a word-piece tokenizer with some of the tokens, numbered in the given order; the special ones are to be among them."""
    content = json.loads(tokenizer.backend.to_str())
    names = {number: token for token, number in content["model"]["vocab"].items()}
    renumbered = {names[number]: new for new, number in enumerate(kept)}
    content["model"]["vocab"] = renumbered
    for token in content["added_tokens"]:
        token["id"] = renumbered[token["content"]]
    _renumber_template(content.get("post_processor"), renumbered)
    return replace(tokenizer, backend=tokenizers.Tokenizer.from_str(json.dumps(content)))


def _renumber_template(processor: Any, renumbered: dict[str, int]) -> None:  # Any: whatever JSON holds
    """Give the special tokens around a text their new numbers."""
    if processor is None:
        return
    for each in processor.get("processors", [processor]):
        for role in ("sep", "cls"):  # BertProcessing: ["[SEP]", 102]
            if isinstance(each.get(role), list):
                each[role][1] = renumbered[each[role][0]]
        special = each.get("special_tokens")
        for token in special.values() if isinstance(special, dict) else ():  # TemplateProcessing
            token["ids"] = [renumbered[name] for name in token["tokens"]]
