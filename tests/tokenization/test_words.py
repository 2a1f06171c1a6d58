"""Words looked up between spaces."""

from __future__ import annotations

import json
from pathlib import Path

from embedkit.tokenization.blocks import BLOCK_CHARS
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.tokenization.words import FILE, read_words


def test_unknown_words_of_a_text_longer_than_a_block_are_dropped_too(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"vocab": ["bread", "sea"], "stop_words": []}), encoding="utf-8")
    rules, backend = read_words(tmp_path)
    tokenizer = Tokenizer(backend, {}, 100, words=rules)
    batch = tokenizer.encode(["unheard of " * BLOCK_CHARS + "the sea"])
    assert batch.input_ids.tolist() == [1]
    assert not batch.truncated.any()
