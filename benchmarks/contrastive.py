"""Contrastive training on this CPU beside sentence-transformers: the same start, rows, losses, optimizer and steps.

    python benchmarks/contrastive.py [--steps 20] [--batch-size 32] [--model FOLDER] [--output FILE.json]
    python benchmarks/contrastive.py --large 4096 [--micro-tokens 4096]     # one step of a large batch through cached gradients

Data are STS-B (CoSENT) and SQuAD 1.1 train (multiple negatives ranking), one data set a batch. Each side runs in a process of its own, which
reports wall and processor seconds of the steps (the first two are not counted), its peak of memory, and in the end Spearman's
correlation on STS-B dev. Theirs is `SentenceTransformerTrainer` with the same settings on the same rows; it draws its own order of batches.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import data_folder, minilm_folder, report

MAX_LENGTH = 128
WARM_UP = 2  # steps that set things up


def recipe_of(arguments: argparse.Namespace) -> Any:
    from embedkit.recipe import load_recipe
    from embedkit.training.contrastive_recipe import ContrastiveRecipe

    overrides = [
        f"run.steps={arguments.steps}",
        f"run.precision={arguments.precision}",
        "run.evaluate_every=1000000",
        "run.save_every=1000000",
        f"data.batch_size={arguments.large or arguments.batch_size}",
        f"data.max_length={MAX_LENGTH if not arguments.large else 256}",
        f"data.micro_tokens={arguments.micro_tokens}",
        "data.held_out=0.001",
        "data.evaluate_batches=1",
        "data.mixing=0.3",
        "optim.lr=2e-5",
        "optim.warmup_steps=2",
    ]
    return load_recipe(ContrastiveRecipe, preset="contrastive", overrides=overrides)


def journey_of(arguments: argparse.Namespace, recipe: Any) -> Any:
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.checkpoint.weights import load_sentence_encoder
    from embedkit.training.contrastive import Contrastive
    from embedkit.training.contrastive_data import make_data_set, read_data_set

    data = data_folder()
    sources = [str(data / "retrieval/squad_v11_train")]
    if not arguments.large:
        sources.append(str(data / "sts/stsb/train.tsv"))
    folder = read_model_folder(arguments.model)
    model = load_sentence_encoder(folder)
    sets = []
    for number, source in enumerate(sources):
        examples, loss, why = read_data_set(source, {}, recipe.loss)
        sets.append(make_data_set(examples, loss, why, recipe, folder, model, number=number))
    return Contrastive(folder, model, sets, recipe, origin="benchmark")


def run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.loop import Step, train
    from embedkit.training.state import RunFolder

    recipe = recipe_of(arguments)
    journey = journey_of(arguments, recipe)
    losses, clock = [], Clock()
    with tempfile.TemporaryDirectory() as folder:
        for report_ in train(journey, recipe.run, recipe.optim, RunFolder(Path(folder) / "run")):
            if isinstance(report_, Step):
                losses.append(report_.loss)
                clock.tick()
        found = clock.numbers(arguments.steps)
        encoder = Encoder.load(Path(folder) / "run", device="cpu")
    return found | {"losses": losses, "stsb dev": None if arguments.large else spearman(encoder.encode)}


def run_theirs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with sentence-transformers' own trainer on the rows that our run draws, in batches of the same size."""
    from datasets import Dataset, DatasetDict
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    recipe = recipe_of(arguments)
    optim = recipe.optim
    columns = rows_drawn(journey_of(arguments, recipe), arguments.steps)
    model = SentenceTransformer(str(arguments.model), device="cpu")
    model.max_seq_length = MAX_LENGTH
    functions = {"info_nce": losses.MultipleNegativesRankingLoss(model), "cosent": losses.CoSENTLoss(model)}
    clock = Clock()

    class Ticking(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=optim.lr,
            warmup_steps=optim.warmup_steps,
            lr_scheduler_type=optim.schedule,
            adam_beta1=optim.beta1,
            adam_beta2=optim.beta2,
            adam_epsilon=optim.eps,
            weight_decay=optim.weight_decay,
            max_grad_norm=optim.max_grad_norm,
            multi_dataset_batch_sampler="proportional",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=settings,
            train_dataset=DatasetDict({loss: Dataset.from_dict(rows) for loss, rows in columns.items()}),
            loss={loss: functions[loss] for loss in columns},
            callbacks=[Ticking()],
        )
        trainer.train()
    values = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    model.eval()
    return clock.numbers(arguments.steps) | {
        "losses": values,
        "stsb dev": spearman(lambda texts: model.encode(texts, show_progress_bar=False)),
    }


def rows_drawn(journey: Any, steps: int) -> dict[str, dict[str, list[Any]]]:
    """Collect the rows of the journey's first batches: loss -> columns of a data set."""
    found: dict[str, dict[str, list[Any]]] = {}
    for step in range(steps):
        each, entries = journey.entries(step)
        rows, texts = entries.rows, each.examples.texts
        columns = found.setdefault(each.loss, {})
        for name, numbers in (("first", rows.first), ("second", rows.second)):
            columns.setdefault(name, []).extend(texts[n] for n in numbers)
        if rows.scores is not None:
            columns.setdefault("score", []).extend(float(score) for score in rows.scores)
    return found


class Clock:
    """Wall and processor time of the steps after the first few, and the peak of memory."""

    def __init__(self) -> None:
        self._ticks: list[tuple[float, float]] = []

    def tick(self) -> None:
        self._ticks.append((time.perf_counter(), time.process_time()))

    def numbers(self, steps: int) -> dict[str, Any]:
        first = min(WARM_UP, steps) - 1
        wall, processor = (self._ticks[-1][i] - self._ticks[first][i] for i in (0, 1))
        counted = max(1, steps - 1 - first)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {"wall s/step": wall / counted, "cpu s/step": processor / counted, "peak GB": peak}


def spearman(encode: Any) -> float:
    from embedkit.evaluation.similarity import evaluate_similarity, read_scored_pairs

    return evaluate_similarity(read_scored_pairs(data_folder() / "sts/stsb/dev.tsv"), encode).spearman


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--large", type=int, default=0, help="rows of one large batch, ours alone")
    parser.add_argument("--micro-tokens", type=int, default=16_384)
    parser.add_argument("--model", type=Path, default=None, help="a model folder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or minilm_folder()
    if arguments.large:
        arguments.steps = 1
    if arguments.side:
        print(json.dumps((run_ours if arguments.side == "ours" else run_theirs)(arguments)))
        return
    sides = [("theirs", "fp32"), ("ours", "fp32"), ("ours", "bf16")]
    rows: list[dict[str, Any]] = []
    base: dict[str, Any] | None = None
    for side, precision in sides[1:2] if arguments.large else sides:
        started = time.perf_counter()
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--precision", precision]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            rows.append({"with": f"{side} {precision}", "losses": "failed, see above"})
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        base = base or found
        losses = found.pop("losses")
        rows.append(
            {"with": f"{side} {precision}", **{k: v for k, v in found.items() if v is not None}}
            | {
                "cpu ratio": base["cpu s/step"] / found["cpu s/step"] if found["cpu s/step"] else "",
                "first loss": losses[0],
            }
            | {"last loss": losses[-1], "whole run s": time.perf_counter() - started}
        )
    report("Contrastive training", rows, output=arguments.output)


if __name__ == "__main__":
    main()
