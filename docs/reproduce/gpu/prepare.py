"""Write all that training reads, as numbers: token ids of the texts, pairs, dev sets, and which tokens are used how often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from collecting import (
    ANSWERS,
    LONG,
    Collection,
    collect_answers,
    collect_open,
    collect_open_pairs,
    collect_varied,
)
from dev_sets import DevSets, read_dev_sets
from numpy.typing import NDArray
from progress import say
from sources import KeptOut

from embedkit.checkpoint.folder import read_model_folder
from embedkit.tokenization.tokenizer import Tokenizer

TOKENS, LONG_TOKENS = 254, 510  # of a text, without [CLS] and [SEP]
WINDOW = 20_000


def prepare(data: Path, output: Path, *, start: str) -> None:
    """Write `texts.npz` and `about.json` into `output`; `start` is the model whose tokenizer is used.

    texts.npz: flat (uint16) the ids of all texts, one after another; lens (uint16) (N,); dev_flat, dev_lens likewise;
    `pairs|SOURCE` (P, 2) and `singles|SOURCE` (P,) numbers of texts; `dev|SET|FIELD` as in `DevSets`; counts (V,).
    """
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = read_model_folder(start).tokenizer
    kept_out = KeptOut(data)
    say("the evaluation sets are read")
    found = Collection(kept_out)
    collect_varied(found, data)
    say(f"{len(found.numbers):,} texts of the varied sets")
    collect_open(found, data, kept_out)
    say(f"{len(found.numbers):,} texts; rows refused: {dict(found.refused)}")
    dev = read_dev_sets(data)
    say(
        "dev sets:",
        ", ".join(f"{name} ({len(each.get('q', each.get('a', ())))})" for name, each in dev.sets.items()),
    )
    _write(output, found, dev, tokenizer)


def write_texts(data: Path, output: Path, *, limit: int, seed: int = 0) -> None:
    """Write a sample of the texts that one model is trained on as JSON lines, for `embedkit train distill`."""
    kept_out = KeptOut(data)
    found = Collection(kept_out)
    collect_varied(found, data)
    collect_open(found, data, kept_out)
    texts = list(found.numbers)
    Random(seed).shuffle(texts)
    with output.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[:limit])
    say(f"{min(limit, len(texts)):,} of {len(texts):,} texts")


def write_pairs(data: Path, output: Path, *, limit: int, seed: int = 0) -> None:
    """Write pairs of every source, at most `limit` of each, as {"query", "positive"}: what to mine negatives for.

    A source's pairs are drawn at random, but for `ANSWERS`, whose paragraphs stay whole: a sentence that answers nothing
    is the best negative of one that does.
    """
    kept_out = KeptOut(data)
    found = Collection(kept_out)
    collect_varied(found, data)
    collect_open_pairs(found, data, kept_out)
    collect_answers(found, data)
    texts = list(found.numbers)
    output.mkdir(parents=True, exist_ok=True)
    for name, numbered in found.pairs.items():
        pairs = list(dict.fromkeys(numbered))
        if name != ANSWERS:
            Random(f"{seed} {name}").shuffle(pairs)
        with (output / f"{name.replace(' ', '_')}.jsonl").open("w", encoding="utf-8") as file:
            for query, positive in pairs[:limit]:
                row = {"query": texts[query], "positive": texts[positive]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        say(f"{min(limit, len(pairs)):,} of {len(pairs):,} pairs", name)


def _write(output: Path, found: Collection, dev: DevSets, tokenizer: Tokenizer) -> None:
    is_long = set(found.singles.get(LONG, []))
    limits = [LONG_TOKENS if number in is_long else TOKENS for number in range(len(found.numbers))]
    flat, lens = _encode(tokenizer, list(found.numbers), limits)
    say(f"{len(flat):,} tokens")
    dev_flat, dev_lens = _encode(tokenizer, list(dev.numbers), [TOKENS] * len(dev.numbers))
    np.savez(
        output / "texts.npz",
        flat=flat,
        lens=lens,
        dev_flat=dev_flat,
        dev_lens=dev_lens,
        counts=np.bincount(flat, minlength=tokenizer.vocab_size),
        **{f"pairs|{name}": np.array(pairs, np.int32) for name, pairs in found.pairs.items()},
        **{f"singles|{name}": np.array(texts, np.int32) for name, texts in found.singles.items()},
        **{f"dev|{name}|{field}": array for name, each in dev.sets.items() for field, array in each.items()},
    )
    about = {
        "texts": len(lens),
        "tokens": len(flat),
        "pairs": {name: len(pairs) for name, pairs in found.pairs.items()},
        "singles": {name: len(texts) for name, texts in found.singles.items()},
        "refused": dict(found.refused),
    }
    (output / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _encode(
    tokenizer: Tokenizer, texts: Sequence[str], limits: Sequence[int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the ids of all texts, cut to their limits, one after another, and how many each has."""
    parts, lens = [], []
    for start in range(0, len(texts), WINDOW):
        window = tokenizer.backend.encode_batch_fast(
            list(texts[start : start + WINDOW]), add_special_tokens=False
        )
        for each, limit in zip(window, limits[start:], strict=False):
            ids = each.ids[:limit]
            parts.append(np.array(ids, np.uint16))
            lens.append(len(ids))
    return np.concatenate(parts), np.array(lens, np.uint16)
