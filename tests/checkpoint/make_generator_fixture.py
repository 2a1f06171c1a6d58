"""Make tests/checkpoint/fixtures/generators-1: text generators' folders of format 1, and what they generate.

python -m tests.checkpoint.make_generator_fixture
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedkit.generation.generator import Generator
from tests.tiny_generator import write_tiny_generator

FOLDER = Path(__file__).parent / "fixtures" / "generators-1"
TEXTS = ["the dog runs", "a small red horse", "she sings"]
SHAPE: dict[str, Any] = {
    "seed": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}


def main() -> None:
    generation = {"max_new_tokens": 5, "num_beams": 2}
    pairs = FOLDER / "pairs"
    write_tiny_generator(pairs, stored="int8", generation=generation, share_embeddings=True, **SHAPE)
    write_tiny_generator(FOLDER / "lm", stored="fp16", generation=generation, encoder_size=None, **SHAPE)
    for path in (pairs, FOLDER / "lm"):
        generator = Generator.load(path, device="cpu")
        outputs = [own[0].text for own in generator.generate(TEXTS, generator.options()).outputs]
        text = json.dumps(dict(zip(TEXTS, outputs, strict=True)), indent=1, ensure_ascii=False)
        (path / "outputs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
