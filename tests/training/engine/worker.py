"""A process of a training run for tests of many devices and of kills: `python -m tests.training.engine.worker FOLDER key=value …`.

FOLDER holds texts.jsonl and tokenizer/; the run goes to FOLDER/run and is resumed where it is there already. `kill=SECONDS` makes the
process kill itself so long after its first step. Where there are several, each writes its weights after the last step to
FOLDER/rank-N.safetensors.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from safetensors.torch import save_file

from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import launched
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from tests.training.corpora import make_corpus, make_journey, make_recipe


def main(folder: Path, overrides: list[str]) -> None:
    kills = [float(text.removeprefix("kill=")) for text in overrides if text.startswith("kill=")]
    recipe = make_recipe(*(text for text in overrides if not text.startswith("kill=")))
    tokenizer = Tokenizer.load(folder / "tokenizer")
    with launched("cpu") as ranks:
        corpus = make_corpus(folder / "cache", folder / "texts.jsonl", tokenizer)
        journey = make_journey(corpus, tokenizer, recipe, parts=ranks.world * recipe.run.accumulate)
        run = RunFolder(folder / "run")
        resume = (run.path / "run.json").exists()
        for report in train(journey, recipe.run, recipe.optim, run, ranks=ranks, resume=resume):
            if kills and isinstance(report, Step):
                threading.Timer(kills.pop(), os.kill, (os.getpid(), signal.SIGKILL)).start()
            if isinstance(report, Step) and ranks.world > 1 and recipe.run.strategy == "ddp":
                save_file(dict(journey.module.state_dict()), folder / f"rank-{ranks.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
