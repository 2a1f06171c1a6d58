"""Tiny runs of text generators for tests, and what a process of one does: `main(KIND, FOLDER, ["key=value", …])`.

KIND is pairs (FOLDER holds model/ and pairs.jsonl) or lm (texts.jsonl, tokenizer/, cache/). The run goes to FOLDER/run and is resumed
where it is there already. `kill=SECONDS` makes the process kill itself so long after its first step.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Literal

from embedkit.recipe import load_recipe
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import Ranks, launched
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.generation.language_model import LanguageModelTraining
from embedkit.training.generation.pairs import read_source_targets
from embedkit.training.generation.recipe import GenerationRecipe, LanguageModelRecipe
from embedkit.training.generation.start import start_from_folder, start_language_model
from embedkit.training.generation.training import GenerationTraining
from tests.training.corpora import make_corpus

ANIMALS = ("dog", "cat", "horse", "girl", "boy", "man", "woman")
DEEDS = ("plays", "runs", "sleeps", "eats", "sings", "walks", "reads", "writes")
THINGS = ("guitar", "piano", "song", "ball", "beach", "water", "word", "index", "vector")
Kind = Literal["pairs", "lm"]

DECODER = (
    "decoder.num_hidden_layers=1",
    "decoder.num_attention_heads=2",
    "decoder.intermediate_size=32",
    "decoder.max_position_embeddings=32",
    "generation.max_new_tokens=16",
)
RUN = (
    "run.steps=4",
    "run.precision=fp32",
    "run.evaluate_every=2",
    "run.save_every=2",
    "optim.lr=3e-3",
    "optim.warmup_steps=1",
)
OF_KIND: dict[Kind, tuple[str, ...]] = {
    "pairs": ("batch_sources=6", "targets_per_source=2", "max_target_tokens=16", "held_out=0.2"),
    "lm": (
        *("decoder.hidden_size=32", "sequence_length=16", "batch_tokens=128", "held_out=0.1"),
        "evaluate_tokens=512",
    ),
}


def pair_rows(count: int = 40, *, seed: int = 0) -> list[dict[str, object]]:
    """Sentences about somebody who does something, and one or two questions that follow from them."""
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        who, deed, what = rng.choice(ANIMALS), rng.choice(DEEDS), rng.choice(THINGS)
        questions = [f"who {deed}?", f"which {what}?"][: 1 + number % 2]
        rows.append({"passage": f"the {who} {deed} in the {what} {number}", "query": questions})
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs_recipe(*overrides: str) -> GenerationRecipe:
    return load_recipe(GenerationRecipe, overrides=(*RUN, *DECODER, *OF_KIND["pairs"], *overrides))


def lm_recipe(*overrides: str) -> LanguageModelRecipe:
    return load_recipe(LanguageModelRecipe, overrides=(*RUN, *DECODER, *OF_KIND["lm"], *overrides))


def make_run(
    kind: Kind, folder: Path, overrides: list[str], *, parts: int = 1
) -> GenerationTraining | LanguageModelTraining:
    """Make the journey of a folder."""
    if kind == "pairs":
        recipe = pairs_recipe(*overrides)
        pairs = read_source_targets([str(folder / "pairs.jsonl")])
        return GenerationTraining(start_from_folder(folder / "model", recipe), pairs, recipe, parts=parts)
    wanted = lm_recipe(*overrides)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    corpus = make_corpus(folder / "cache", folder / "texts.jsonl", tokenizer)
    return LanguageModelTraining(
        start_language_model(wanted, tokenizer=tokenizer), corpus, wanted, parts=parts
    )


def main(kind: Kind, folder: Path, overrides: list[str]) -> None:
    kills = [float(text.removeprefix("kill=")) for text in overrides if text.startswith("kill=")]
    settings = [text for text in overrides if not text.startswith("kill=")]
    recipe = pairs_recipe(*settings) if kind == "pairs" else lm_recipe(*settings)
    with launched("cpu") as ranks:
        journey = make_run(kind, folder, settings, parts=parts_of(ranks, recipe.run.accumulate))
        run = RunFolder(folder / "run")
        resume = (run.path / "run.json").exists()
        for report in train(journey, recipe.run, recipe.optim, run, ranks=ranks, resume=resume):
            if kills and isinstance(report, Step):
                threading.Timer(kills.pop(), os.kill, (os.getpid(), signal.SIGKILL)).start()


def parts_of(ranks: Ranks, accumulate: int) -> int:
    return ranks.world * accumulate
