"""Compare pretraining speed with transformers' `Trainer`, with the same model, sequences, optimizer and precision.

    python benchmarks/pretrain.py [--steps 20] [--rounds 3] [--documents 3000] [--output FILE.json]

Both start from the same weights of the `mini` shape and read the same pieces of simplewiki articles, about the same number of
tokens per step. `Trainer` shuffles them itself, pads each batch to its longest sequence and scores the vocabulary at every
position, as its own collator and `BertForMaskedLM` do. Runs alternate; only real tokens count, not padding. After the last round,
both models are evaluated on the same held-out pieces with the same masks.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import data_folder, report

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.pretraining import load_pretraining, write_pretraining
from embedkit.data.reading import read_documents
from embedkit.data.records import ReadOptions
from embedkit.recipe import load_recipe
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.tokenization.train import texts_of, train_tokenizer
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.recipes import PretrainRecipe
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.corpus import Corpus, build_corpus, open_corpus
from embedkit.training.pretraining.masked_batches import BatchMaker
from embedkit.training.pretraining.mlm import Pretraining, fresh_model

UNMEASURED = 3  # the first steps set up libraries and memory


@dataclass(frozen=True)
class Run:
    tokens_per_second: float
    loss: float  # mean of the last five steps
    folder: Path


def prepare(place: Path, documents: int, steps: int) -> tuple[Tokenizer, Corpus, PretrainRecipe]:
    """Read the first articles of simplewiki, train a tokenizer on them and tokenize them."""
    source = data_folder() / "text" / "simplewiki.jsonl.zst"
    articles = list(itertools.islice(read_documents([str(source)]), documents))
    tokenizer, _ = train_tokenizer(texts_of(articles), vocab_size=16_384)
    path = place / "articles.txt"
    path.write_text("".join(" ".join(text.split()) + "\n" for text in texts_of(articles)), encoding="utf-8")
    list(build_corpus([str(path)], ReadOptions(), tokenizer, place / "cache", "benchmark"))
    settings = [f"run.steps={steps}", "text.batch_tokens=4096", "text.held_out=0.05", "optim.warmup_steps=5"]
    settings += [f"run.evaluate_every={steps}", f"run.save_every={steps}", "model.dropout=0.0"]
    return (
        tokenizer,
        open_corpus(place / "cache"),
        load_recipe(PretrainRecipe, preset="mini", overrides=settings),
    )


def ours(start: Path, output: Path, tokenizer: Tokenizer, corpus: Corpus, recipe: PretrainRecipe) -> Run:
    model, _ = load_pretraining(read_model_folder(start))
    journey = Pretraining(model, tokenizer, "bert", corpus, recipe)
    steps = [r for r in train(journey, recipe.run, recipe.optim, RunFolder(output)) if isinstance(r, Step)]
    measured = steps[UNMEASURED:]
    speed = sum(step.tokens for step in measured) / sum(step.seconds for step in measured)
    return Run(speed, sum(step.loss for step in steps[-5:]) / 5, output)


def theirs(start: Path, output: Path, corpus: Corpus, tokenizer: Tokenizer, recipe: PretrainRecipe) -> Run:
    from transformers import (
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    documents, _ = corpus.split(recipe.text.held_out)
    pieces = BatchMaker(corpus, tokenizer, recipe).pieces(documents, recipe.text.sequence_length)
    cls, sep = tokenizer.special_id("cls"), tokenizer.special_id("sep")
    rows = [
        {"input_ids": [cls, *corpus.tokens[begin : begin + length].tolist(), sep]}
        for begin, length in zip(pieces.starts, pieces.lengths, strict=True)
    ]
    mean = sum(len(row["input_ids"]) for row in rows) / len(rows)
    optim, run = recipe.optim, recipe.run
    arguments = TrainingArguments(
        output_dir=str(output / "trainer"),
        max_steps=run.steps,
        per_device_train_batch_size=round(recipe.text.batch_tokens / mean),
        learning_rate=optim.lr,
        warmup_steps=optim.warmup_steps,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        adam_epsilon=optim.eps,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        seed=run.seed,
    )
    collate = DataCollatorForLanguageModeling(
        PreTrainedTokenizerFast.from_pretrained(str(start)), mlm_probability=0.15
    )
    clock = type(
        "Clock", (TrainerCallback,), {"on_step_end": lambda *_, **__: ends.append(time.perf_counter())}
    )
    ends: list[float] = []
    tokens: list[int] = []

    def counted(batch: list[dict[str, Any]]) -> Any:  # Any: transformers' own batch
        tokens.append(sum(len(row["input_ids"]) for row in batch))
        return collate(batch)

    trainer = Trainer(
        BertForMaskedLM.from_pretrained(str(start)),
        arguments,
        data_collator=counted,
        train_dataset=rows,
        callbacks=[clock()],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    speed = sum(tokens[UNMEASURED : run.steps]) / (ends[run.steps - 1] - ends[UNMEASURED - 1])
    trainer.save_model(str(output))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (output / name).write_bytes((start / name).read_bytes())
    return Run(speed, sum(losses[-5:]) / 5, output)


def held_out_loss(folder: Path, tokenizer: Tokenizer, corpus: Corpus, recipe: PretrainRecipe) -> float:
    model, _ = load_pretraining(read_model_folder(folder))
    journey = Pretraining(model.eval(), tokenizer, "bert", corpus, recipe)
    with torch.no_grad():
        return journey.evaluate(model, alone(precision="fp32")).values["loss"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=3_000)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tokenizer, corpus, recipe = prepare(place, given.documents, given.steps)
        start = place / "start"
        start.mkdir()
        model, family = fresh_model(recipe, tokenizer)
        write_pretraining(start, model, tokenizer, family)
        runs: dict[str, list[Run]] = {"embedkit": [], "transformers Trainer": []}
        for number in range(given.rounds):
            runs["embedkit"].append(ours(start, place / f"ours{number}", tokenizer, corpus, recipe))
            runs["transformers Trainer"].append(
                theirs(start, place / f"theirs{number}", corpus, tokenizer, recipe)
            )
        peer = max(run.tokens_per_second for run in runs["transformers Trainer"])
        rows = [
            {
                "library": library,
                "tokens/s": round(max(run.tokens_per_second for run in done)),
                "× Trainer": round(max(run.tokens_per_second for run in done) / peer, 2),
                "loss, last 5 steps": round(done[-1].loss, 3),
                "held-out loss": round(held_out_loss(done[-1].folder, tokenizer, corpus, recipe), 3),
            }
            for library, done in runs.items()
        ]
    report("pretrain", rows, output=given.output)


if __name__ == "__main__":
    main()
