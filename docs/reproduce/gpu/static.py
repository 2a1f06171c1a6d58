"""A static model: each token's vector by itself, weighted by its rank and turned to the axes, then trained on texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import DEVICE, Numbers, Special, Texts, on_device
from evaluation import Results, measure
from losses import similarity_loss
from numpy.typing import NDArray
from progress import rounded, say
from sampling import Batch, Sampler
from teacher import Teacher
from torch import Tensor, nn
from training import Step, train, trapezoid

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.model.config import SentenceConfig
from embedkit.model.static import StaticEncoder

RATE, WARMUP = 3e-3, 0.014
TEMPERATURE = 0.05
COSINE, SIMILARITIES = 2.0, 0.5  # weights of the losses
MOST_ROWS, MOST_COMPARED = 20_000, 4096


class StaticModel(nn.Module):
    """The mean of a text's token vectors, without special tokens, scaled to length 1."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.clone())

    def forward(self, texts: Texts, numbers: Numbers) -> Tensor:
        """Compute the vectors of some texts, none of them empty: (B, E)."""
        lens = on_device(texts.lens[numbers])
        ends = F.pad(lens.cumsum(0), (1, 0))
        sequence = torch.repeat_interleave(torch.arange(len(lens), device=DEVICE), lens)
        at = (
            texts.starts[on_device(numbers)][sequence]
            + torch.arange(len(sequence), device=DEVICE)
            - ends[sequence]
        )
        means = F.embedding_bag(texts.flat[at].long(), self.table, ends[:-1], mode="mean")
        return F.normalize(means + 1e-12, dim=1)


@torch.no_grad()
def first_table(teacher: Teacher, counts: NDArray[np.int64], size: int) -> Tensor:
    """Turn the centred token vectors to the first axes, and let rare tokens count more: (V, E').

    Zipf's law lets the rank stand for the frequency: a token weighs log(1 + rank).
    Source: Tulkens and van Dongen 2024, Model2Vec, https://github.com/MinishLab/model2vec
    """
    centred = teacher.tokens.float() - teacher.tokens.float().mean(0)
    turned = centred @ teacher.axes[:size].T
    rank = np.empty(len(counts))
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    weight = torch.from_numpy(np.log1p(rank)).float().to(DEVICE)
    weighted = turned * (weight / weight.mean())[:, None]
    return weighted / weighted.norm(dim=1).mean()


def static(state: Path, *, start: str, tokens: int, dimension: int, seconds: float) -> Results:
    """Train a static model and write the folder `static` into `state`; return what it reached before and after."""
    torch.manual_seed(0)
    folder = read_model_folder(start)
    texts, teacher = Texts(state / "texts.npz", Special.of(folder)), Teacher.load(state)
    size = min(dimension, len(teacher.axes))
    model = StaticModel(first_table(teacher, texts.counts, size))
    results = {"static, untrained": _measure(model, texts)}
    sampler = Sampler(texts, teacher, 2 * tokens, 5, clustered=False)
    cost = _train(model, sampler, texts, teacher, seconds)
    results["static"] = _measure(model, texts) | cost
    for name, result in results.items():
        say(name, rounded(result))
    encoder = StaticEncoder(len(texts.counts), size)
    with torch.no_grad():
        encoder.tokens.weight.copy_(model.table)
    modules = SentenceModules(sentence=SentenceConfig(normalize=True))
    write_model(state / "static", encoder, folder.tokenizer, modules, family=None)
    return results


def _train(
    model: StaticModel, sampler: Sampler, texts: Texts, teacher: Teacher, seconds: float
) -> dict[str, float]:
    def step() -> Step:
        batch = sampler.batch(MOST_ROWS)
        given = model(texts, batch.rows.flatten()).view(*batch.rows.shape, -1)  # (n, c, E')
        loss = _loss(given, teacher.of(batch.rows), teacher.axes[: given.shape[-1]], batch)
        return Step(loss, {"loss": loss.detach()}, int(texts.lens[batch.rows].sum()))

    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.99))
    return train(
        model, step, optimizer, trapezoid(RATE, WARMUP), name="static", seconds=seconds, clip=math.inf
    )


def _loss(given: Tensor, wanted: Tensor, axes: Tensor, batch: Batch) -> Tensor:
    loss = COSINE * (1 - (given * F.normalize(wanted @ axes.T, dim=-1)).sum(-1)).mean()
    compared = min(len(given), MOST_COMPARED)
    if compared <= 8:
        return loss
    ours, theirs = (each[:compared, 0] @ each[:compared, -1].T for each in (given, wanted))  # (n, n)
    return loss + SIMILARITIES * similarity_loss(ours, theirs, paired=batch.paired, temperature=TEMPERATURE)


@torch.no_grad()
def _measure(model: StaticModel, texts: Texts, window: int = 5000) -> dict[str, float]:
    found = torch.zeros(len(texts.dev_rows), model.table.shape[1], device=DEVICE)  # an empty text keeps zeros
    some = np.flatnonzero(texts.lens[texts.dev_rows])
    for start in range(0, len(some), window):
        part = some[start : start + window]
        found[on_device(part)] = model(texts, part + texts.num_train)
    return measure(found, texts)
