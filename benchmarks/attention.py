"""Compare the time of the forms of attention, by the length of texts: encoding, and a training step forward and backward.

    python benchmarks/attention.py [--lengths 32 128 512] [--tokens 2048] [--rounds 5] [--presets mini mini-local ...] [--output FILE.json]

Each is the whole encoder of a preset of `train mlm` with random weights, over a batch of so many tokens, in fp32 with torch on one
thread. The presets alternate; the best round counts, in the processor's own time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timing import report

from embedkit.model.encoder import TransformerEncoder
from embedkit.recipe import load_recipe, preset_names
from embedkit.training.engine.diversity import DiversityPenalty, watch_heads
from embedkit.training.engine.recipes import PretrainRecipe


@dataclass(frozen=True)
class Subject:
    """An encoder, and the penalty on its heads where its preset has one."""

    encoder: TransformerEncoder
    penalty: DiversityPenalty | None


def subject_of(preset: str, longest: int) -> Subject:
    """Make the encoder of a preset, for texts of up to `longest` tokens."""
    recipe = load_recipe(PretrainRecipe, preset=preset, overrides=["run.steps=1"])
    config = recipe.model.config(vocab_size=8192, pad_token_id=0)
    encoder = TransformerEncoder(
        replace(config, max_position_embeddings=max(longest, config.max_position_embeddings))
    )
    return Subject(encoder, watch_heads(encoder, recipe.head_diversity))


def encode(subject: Subject, ids: torch.Tensor, lengths: list[int]) -> None:
    subject.encoder.eval()
    with torch.inference_mode():
        subject.encoder.forward_packed(ids, lengths)


def step(subject: Subject, ids: torch.Tensor, lengths: list[int]) -> None:
    subject.encoder.train()
    subject.encoder.zero_grad()
    loss = subject.encoder.forward_packed(ids, lengths).square().mean()
    if subject.penalty is not None:
        loss = loss + subject.penalty.take(len(ids)) / len(ids)
    torch.autograd.backward(loss)


Task = Callable[[Subject, torch.Tensor, list[int]], None]


def measure(
    subjects: dict[str, Subject], length: int, tokens: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a thousand tokens, of each preset and task."""
    count = max(1, tokens // length)
    ids, lengths = torch.randint(5, 8192, (count * length,)), [length] * count
    tasks: dict[str, Task] = {"encode": encode, "train": step}
    best = {name: dict.fromkeys(tasks, float("inf")) for name in subjects}
    for number in range(rounds + 1):  # the first warms up
        for name, subject in subjects.items():
            for what, task in tasks.items():
                started = time.process_time()
                task(subject, ids, lengths)
                taken = (time.process_time() - started) * 1e6 / len(ids)
                if number:
                    best[name][what] = min(best[name][what], taken)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    variants = [name for name in preset_names() if name == "mini" or name.startswith("mini-")]
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", default=variants)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    subjects = {name: subject_of(name, max(given.lengths)) for name in given.presets}
    rows: dict[str, dict[str, Any]] = {name: {"preset": name} for name in subjects}
    for length in given.lengths:
        for name, taken in measure(subjects, length, given.tokens, given.rounds).items():
            rows[name] |= {f"{what} {length}, ms per 1,000 tokens": taken[what] for what in taken}
    report("attention", list(rows.values()), output=given.output)


if __name__ == "__main__":
    main()
