"""Words between spaces, as sentence-transformers' `WhitespaceTokenizer` looks them up: for tables of word vectors such as GloVe."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers

from embedkit.errors import CheckpointError
from embedkit.tokenization.classes import read_json

FILE = "whitespacetokenizer_config.json"


@dataclass(frozen=True)
class WordRules:
    """Which words of a text are looked up: as they are, else without the signs around them, else in lower case; others are dropped.

    >>> rules = WordRules({"dog": 0, "New": 1}, frozenset({"the"}))
    >>> rules.kept("The dog, in New York: DOG!")
    'dog New dog'
    """

    numbers: Mapping[str, int] = field(repr=False)
    stop_words: frozenset[str] = frozenset()
    lowercase: bool = False

    def kept(self, text: str) -> str:
        """Return the words of a text that are looked up, in the form in which they are found."""
        words = (text.lower() if self.lowercase else text).split()
        return " ".join(found for found in map(self._found, words) if found)

    def _found(self, word: str) -> str:
        bare = word.strip(string.punctuation)
        for form in (word, bare, bare.lower()):
            if form in self.stop_words:
                return ""
            if form and form in self.numbers:
                return form
        return ""


def read_words(folder: Path) -> tuple[WordRules, tokenizers.Tokenizer]:
    """Read a folder's words: the rules, and a tokenizer for what they leave of a text.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: no {FILE}; of WordEmbeddings' tokenizers WhitespaceTokenizer alone is computed"
        )
    content = read_json(path)
    vocabulary = content.get("vocab") if isinstance(content, dict) else None
    stops = content.get("stop_words", []) if isinstance(content, dict) else None
    if (
        not isinstance(vocabulary, list)
        or not vocabulary
        or not all(isinstance(word, str) for word in vocabulary)
    ):
        raise CheckpointError(f"{path}: vocab must be a list of words. Copy the file again")
    if not isinstance(stops, list):
        raise CheckpointError(f"{path}: stop_words is {stops!r:.60}; it must be a list. Copy the file again")
    numbers = {word: number for number, word in enumerate(vocabulary)}
    rules = WordRules(numbers, frozenset(map(str, stops)), bool(content.get("do_lower_case")))
    # The rules leave known words alone; the library wants a name for others all the same.
    backend = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token=vocabulary[0]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return rules, backend


def described(rules: WordRules) -> str:
    """Return what of the rules decides a text's tokens besides the vocabulary, as a line."""
    return json.dumps({"stop_words": sorted(rules.stop_words), "lowercase": rules.lowercase})
