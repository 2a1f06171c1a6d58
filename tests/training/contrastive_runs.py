"""Tiny contrastive runs for tests, and what a process of one does: `main(FOLDER, ["key=value", …])`.

FOLDER holds model/ and rows.jsonl; the run goes to FOLDER/run and is resumed where it is there already. `kill=SECONDS` makes the process
kill itself so long after its first step.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.recipe import load_recipe
from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
from embedkit.training.contrastive.guide import load_guide
from embedkit.training.contrastive.head import fields_of, with_head
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.contrastive.training import Contrastive
from embedkit.training.engine.evaluation_sets import load_evaluation_sets
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import launched
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder

ANIMALS = ("dog", "cat", "horse", "girl", "boy", "man", "woman")
DEEDS = ("plays", "runs", "sleeps", "eats", "sings", "walks", "reads", "writes")
THINGS = ("guitar", "piano", "song", "ball", "beach", "water", "word", "index", "vector")

# Adam divides by the size of gradients, so that one of nearly zero (a key's bias) moves as far as any, by rounding alone. With a large
# eps it moves in proportion to its gradient, and rounding stays rounding.
BASE = (
    "run.steps=3",
    "run.precision=fp32",
    "run.evaluate_every=2",
    "run.save_every=2",
    "data.batch_size=8",
    "data.held_out=0.1",
    "data.evaluate_batches=2",
    "optim.lr=0.5",
    "optim.warmup_steps=0",
    "optim.schedule=constant",
    "optim.beta1=0.0",
    "optim.eps=10.0",
    "optim.max_grad_norm=0.0",
    "optim.weight_decay=0.0",
)


def sentence(rng: random.Random) -> str:
    return f"the {rng.choice(ANIMALS)} {rng.choice(DEEDS)} {'and reads ' * rng.randint(0, 3)}in the {rng.choice(THINGS)} {rng.randint(0, 99)}"


def rows_of(kind: str, count: int = 60, *, seed: int = 0) -> list[dict[str, Any]]:  # Any: JSON values
    """Make rows of a kind."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        first, second, third = (sentence(rng) for _ in range(3))
        pair: dict[str, Any] = {"query": first, "positive": f"{second} {number}"}
        match kind:
            case "pairs":
                rows.append(pair)
            case "triplets":
                rows.append(pair | {"negatives": [third, sentence(rng)][: 1 + number % 2]})
            case "scored":
                rows.append({"sentence1": first, "sentence2": second, "score": rng.randint(0, 10) / 10})
            case "classified":
                rows.append({"premise": first, "hypothesis": second, "label": rng.choice("abc")})
            case "alike":
                rows.append({"sentence1": first, "sentence2": second, "label": number % 2})
            case "labelled":
                rows.append({"text": first, "label": f"l{number % 5}"})
            case "texts":
                rows.append({"text": f"{first} {number}"})
            case "vectors":
                rows.append({"text": first, "vector": [rng.uniform(-1, 1) for _ in range(32)]})
            case "distilled":
                rows.append(pair | {"negatives": [third, sentence(rng)], "margins": [rng.uniform(0, 5), 2.0]})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:  # Any: JSON values
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_recipe(*overrides: str) -> ContrastiveRecipe:
    return load_recipe(ContrastiveRecipe, overrides=(*BASE, *overrides))


def make_journey(
    model: Path, data: Sequence[Path | str], recipe: ContrastiveRecipe, *, evaluate: Sequence[str] = ()
) -> Contrastive:
    folder = read_model_folder(model)
    fields = fields_of(folder, recipe)
    folder, encoder = with_head(folder, load_sentence_encoder(folder), recipe)
    read = [read_data_set(str(source), {}, recipe.loss, fields=fields) for source in data]
    made = [make_data_set(rows, recipe, folder, encoder, number=number) for number, rows in enumerate(read)]
    guide = None if recipe.loss.guide is None else load_guide(recipe.loss.guide)
    sets = load_evaluation_sets(evaluate)
    return Contrastive(folder, encoder, made, recipe, origin="test", evaluation=sets, guide=guide)


def main(folder: Path, overrides: list[str]) -> None:
    kills = [float(text.removeprefix("kill=")) for text in overrides if text.startswith("kill=")]
    recipe = make_recipe(*(text for text in overrides if not text.startswith("kill=")))
    with launched("cpu") as ranks:
        journey = make_journey(folder / "model", [folder / "rows.jsonl"], recipe)
        run = RunFolder(folder / "run")
        resume = (run.path / "run.json").exists()
        for report in train(journey, recipe.run, recipe.optim, run, ranks=ranks, resume=resume):
            if kills and isinstance(report, Step):
                threading.Timer(kills.pop(), os.kill, (os.getpid(), signal.SIGKILL)).start()
