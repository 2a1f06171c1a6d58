"""A tiny adaptation for tests: sixty documents, a tiny model and a tiny cross-encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path

from embedkit.data.records import ReadOptions
from embedkit.pipelines.adapting.adapting import Adaptation
from embedkit.pipelines.adapting.folder import AdaptFolder
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Sources
from embedkit.recipe import load_recipe
from embedkit.types import Computing
from tests.training.contrastive_runs import ANIMALS, DEEDS, THINGS

RECIPE = (
    "steps=4",
    "evaluations=2",
    "batch_size=8",
    "num_negatives=2",
    "lr=0.01",
    "last_rank=10",
    "ranking_steps=3",
)


def write_documents(path: Path, count: int = 60) -> Path:
    """Write documents of a title and two sentences; every fifth has six, more than the tiny model reads."""
    rng = random.Random(0)

    def sentence() -> str:
        return (
            f"The {rng.choice(ANIMALS)} {rng.choice(DEEDS)} in the {rng.choice(THINGS)} {rng.randint(0, 99)}."
        )

    rows = [
        {
            "id": f"d{number}",
            "title": f"Index {number}",
            "text": " ".join(sentence() for _ in range(6 if number % 5 == 0 else 2)),
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_adaptation(
    documents: Path,
    model: Path,
    output: Path,
    *settings: str,
    reranker: Path | None = None,
    generator: Path | None = None,
) -> Adaptation:
    sources = Sources(
        inputs=[str(documents)],
        reading=ReadOptions(),
        model=str(model),
        reranker=None if reranker is None else str(reranker),
        generator=None if generator is None else str(generator),
        evaluation=[],
        computing=Computing(device="cpu", precision="fp32"),
    )
    recipe = load_recipe(AdaptRecipe, overrides=(*RECIPE, *settings))
    return Adaptation(sources, recipe, AdaptFolder(output))
