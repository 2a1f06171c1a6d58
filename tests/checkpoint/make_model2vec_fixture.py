"""Make tests/checkpoint/fixtures/model2vec with model2vec itself: a folder in its own layout, and the vectors that it gives.

python -m tests.checkpoint.make_model2vec_fixture      (model2vec 0.10.0 made what is there)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.tiny import tiny_tokenizer

FOLDER = Path(__file__).parent / "fixtures" / "model2vec"
TEXTS = [
    "the dog runs",
    "",
    "\u200b",
    "東京 dog é",  # two unknown tokens, which model2vec drops
    "東京",
    "a small red horse eats a large green guitar",  # more tokens than the 7 that are kept
    "extraordinarily long words end earlier, by their characters",
]


def main() -> None:
    from model2vec import StaticModel  # type: ignore[import-not-found] # what the tests need is here already

    tokenizer = tiny_tokenizer()
    rng = np.random.default_rng(0)
    model = StaticModel(
        rng.standard_normal((12, 6)).round(2).astype(np.float32),
        tokenizer.backend,
        weights=rng.random(tokenizer.vocab_size).round(2).astype(np.float32),
        token_mapping=rng.integers(0, 12, tokenizer.vocab_size),
        normalize=True,
        max_length=7,
    )
    model.save_pretrained(FOLDER)
    (FOLDER / "modules.json").unlink()  # with it the folder would be sentence-transformers'
    (FOLDER / "README.md").unlink()
    vectors = dict(zip(TEXTS, StaticModel.from_pretrained(FOLDER).encode(TEXTS).tolist(), strict=True))
    text = json.dumps(vectors, indent=1, ensure_ascii=False)
    (FOLDER / "vectors.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
