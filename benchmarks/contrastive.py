"""Compare contrastive training on this CPU with sentence-transformers: same start, batches, losses, optimizer and steps.

    python benchmarks/contrastive.py [--steps 20] [--batch-size 32] [--model FOLDER] [--output FILE.json]
    python benchmarks/contrastive.py --large 4096 [--micro-tokens 4096]     # one step of a large batch through cached gradients

The data are STS-B (CoSENT) and SQuAD 1.1 train (multiple negatives ranking), one data set per batch. The batches of our run are
recorded, and `SentenceTransformerTrainer` gets the same rows in the same order with the same settings. Each side is a separate
process; they alternate step by step, so that a slow spell of the machine affects all equally. The first two steps are not counted.
A ratio is the median over the steps of their CPU seconds divided by ours. The last column is Spearman's correlation on STS-B dev.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from timing import data_folder, minilm_folder, report

MAX_LENGTH = 128
WARM_UP = 2  # the first steps set up libraries and memory
SIDES = (("theirs", "fp32"), ("ours", "fp32"), ("ours", "bf16"))
LARGE_SIDES = (("ours", "auto"),)


def recipe_of(arguments: argparse.Namespace) -> Any:
    from embedkit.recipe import load_recipe
    from embedkit.training.contrastive.recipe import ContrastiveRecipe

    overrides = [
        f"run.steps={arguments.steps}",
        f"run.precision={arguments.precision}",
        "run.evaluate_every=1000000",
        "run.save_every=1000000",
        f"data.batch_size={arguments.large or arguments.batch_size}",
        f"data.max_length={MAX_LENGTH if not arguments.large else 256}",
        "data.held_out=0.001",
        "data.evaluate_batches=1",
        "data.mixing=0.3",
        "optim.lr=2e-5",
        "optim.warmup_steps=2",
    ]
    if arguments.micro_tokens:
        overrides.append(f"data.micro_tokens={arguments.micro_tokens}")
    return load_recipe(ContrastiveRecipe, preset="contrastive", overrides=overrides)


def journey_of(arguments: argparse.Namespace, recipe: Any) -> Any:
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.checkpoint.weights import load_sentence_encoder
    from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
    from embedkit.training.contrastive.training import Contrastive

    data = data_folder()
    sources = [str(data / "retrieval/squad_v11_train")]
    if not arguments.large:
        sources.append(str(data / "sts/stsb/train.tsv"))
    folder = read_model_folder(arguments.model)
    model = load_sentence_encoder(folder)
    read = [read_data_set(source, {}, recipe.loss) for source in sources]
    sets = [make_data_set(rows, recipe, folder, model, number=number) for number, rows in enumerate(read)]
    return Contrastive(folder, model, sets, recipe, origin="benchmark")


def write_batches(arguments: argparse.Namespace) -> None:
    """Write the batches of our run, one line per step, with its loss and the columns of its rows."""
    journey = journey_of(arguments, recipe_of(arguments))
    with Path(arguments.batches).open("w", encoding="utf-8") as file:
        for step in range(arguments.steps):
            each, entries = journey.entries(step)
            rows, texts = entries.rows, each.examples.texts
            columns = {name: [texts[n] for n in getattr(rows, name)] for name in ("first", "second")}
            if rows.scores is not None:
                columns["score"] = [float(score) for score in rows.scores]
            file.write(json.dumps({"loss": each.loss.name, "columns": columns}) + "\n")


class Turns:
    """A side's end of the pipe: wait for a turn before each step, then report what the step took."""

    def __init__(self) -> None:
        # Libraries print to standard output, so our messages go to a copy of it.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._started = (0.0, 0.0)

    def wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit("the benchmark ended")
        self._started = (time.perf_counter(), time.process_time())

    def made(self, **numbers: float) -> None:
        wall, processor = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.say({"wall": wall, "cpu": processor, "peak GB": peak, **numbers})

    def say(self, found: dict[str, Any]) -> None:
        print(json.dumps(found), file=self._out, flush=True)


def run_ours(arguments: argparse.Namespace, turns: Turns) -> None:
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.engine.loop import train
    from embedkit.training.engine.reporting import Step
    from embedkit.training.engine.run_folder import RunFolder

    recipe = recipe_of(arguments)
    journey = journey_of(arguments, recipe)
    with tempfile.TemporaryDirectory() as folder:
        reports = train(journey, recipe.run, recipe.optim, RunFolder(Path(folder) / "run"))
        turns.wait()
        for report_ in reports:
            if isinstance(report_, Step):
                turns.made(loss=report_.loss, tokens=report_.tokens)
                turns.wait()
        encoder = Encoder.load(Path(folder) / "run", device="cpu")
    turns.say({} if arguments.large else {"stsb dev": spearman(encoder.encode)})


def run_theirs(arguments: argparse.Namespace, turns: Turns) -> None:
    """Train with sentence-transformers' own trainer on the recorded batches."""
    from datasets import Dataset, DatasetDict  # type: ignore[import-untyped] # it has no types
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
    from transformers import TrainerCallback

    lines = Path(arguments.batches).read_text(encoding="utf-8").splitlines()
    order, columns = [], dict[str, dict[str, list[Any]]]()
    for batch in map(json.loads, lines):
        order.append(batch["loss"])
        for name, values in batch["columns"].items():
            columns.setdefault(batch["loss"], {}).setdefault(name, []).extend(values)
    model = SentenceTransformer(str(arguments.model), device="cpu")
    model.max_seq_length = MAX_LENGTH
    tokens: list[int] = []
    model[0].register_forward_pre_hook(
        lambda _, inputs: tokens.append(int(inputs[0]["attention_mask"].sum()))
    )

    class AsWritten(MultiDatasetDefaultBatchSampler):  # type: ignore[misc] # their classes are untyped
        """Each data set's rows are stored batch by batch, after those of the data sets before it."""

        def __iter__(self) -> Iterator[list[int]]:
            following, start = {}, 0
            for loss, each in columns.items():
                following[loss] = start
                start += len(each["first"])
            for loss in order:
                first = following[loss]
                following[loss] += arguments.batch_size
                yield list(range(first, following[loss]))

        def __len__(self) -> int:
            return len(order)

    class Turning(TrainerCallback):  # type: ignore[misc] # as above
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                turns.made(loss=logs["loss"], tokens=sum(tokens))
                tokens.clear()
                turns.wait()

    optim = recipe_of(arguments).optim
    functions = {"info_nce": losses.MultipleNegativesRankingLoss(model), "cosent": losses.CoSENTLoss(model)}
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=optim.lr,
            warmup_steps=optim.warmup_steps,
            lr_scheduler_type=optim.schedule,
            adam_beta1=optim.beta1,
            adam_beta2=optim.beta2,
            adam_epsilon=optim.eps,
            weight_decay=optim.weight_decay,
            max_grad_norm=optim.max_grad_norm,
            multi_dataset_batch_sampler=AsWritten,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        SentenceTransformerTrainer(
            model=model,
            args=settings,
            train_dataset=DatasetDict({loss: Dataset.from_dict(rows) for loss, rows in columns.items()}),
            loss={loss: functions[loss] for loss in columns},
            callbacks=[Turning()],
        ).train()
    model.eval()
    turns.say({"stsb dev": spearman(lambda texts: model.encode(list(texts), show_progress_bar=False))})


def spearman(encode: Callable[[Sequence[str]], Any]) -> float:
    from embedkit.evaluation.similarity import evaluate_similarity, read_scored_pairs

    return evaluate_similarity(read_scored_pairs(data_folder() / "sts/stsb/dev.tsv"), encode).spearman


class Side:
    """The process of one side."""

    def __init__(self, name: str, precision: str, batches: Path) -> None:
        self.name = f"{name} {precision}"
        command = [sys.executable, __file__, *sys.argv[1:], "--side", name, "--precision", precision]
        command += ["--batches", str(batches)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.steps: list[dict[str, float]] = []

    def turn(self) -> dict[str, float]:
        """Let the process continue until it reports something."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: the process ended, see above")
        found: dict[str, float] = json.loads(line)
        return found

    def row(self, base: Side, final: dict[str, float]) -> dict[str, Any]:
        """Summarize the counted steps and compare them with those of another side."""
        counted = self.steps[WARM_UP:] or self.steps
        theirs = base.steps[WARM_UP:] or base.steps
        row: dict[str, Any] = {"with": self.name}
        for what in ("wall", "cpu"):
            row[f"{what} s/step"] = statistics.mean(step[what] for step in counted)
        ratios = [other["cpu"] / step["cpu"] for other, step in zip(theirs, counted, strict=True)]
        row |= {
            "cpu ratio": statistics.median(ratios),
            "slowest": min(ratios),
            "peak GB": counted[-1]["peak GB"],
        }
        row |= {"tokens": sum(step["tokens"] for step in counted)}
        return row | {"first loss": self.steps[0]["loss"], "last loss": self.steps[-1]["loss"], **final}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--large", type=int, default=0, help="rows of one large batch, with embedkit only")
    parser.add_argument("--micro-tokens", type=int, default=None, help="default: the preset's")
    parser.add_argument("--model", type=Path, default=None, help="a model folder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=["ours", "theirs", "batches"], help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    parser.add_argument("--batches", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or minilm_folder()
    if arguments.large:
        arguments.steps = 1
    if arguments.side == "batches":
        write_batches(arguments)
    elif arguments.side:
        (run_ours if arguments.side == "ours" else run_theirs)(arguments, Turns())
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.jsonl"
        if not arguments.large:
            command = [
                sys.executable,
                __file__,
                *sys.argv[1:],
                "--side",
                "batches",
                "--batches",
                str(batches),
            ]
            subprocess.run(command, check=True)
        sides = [Side(*side, batches) for side in (LARGE_SIDES if arguments.large else SIDES)]
        for number in range(arguments.steps):
            # Rotate the order, so that no side always runs after the same other one and finds its data in the caches.
            for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
                side.steps.append(side.turn())
        rows = [side.row(sides[0], side.turn()) for side in sides]
    report("Contrastive training", rows, output=arguments.output)


if __name__ == "__main__":
    main()
