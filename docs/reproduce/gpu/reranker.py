"""Train a cross-encoder from the small encoder's layers, on negatives that the teacher mines, with the objective that wins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cross_encoder import CrossStudent, save_cross
from data import DEVICE, Numbers, Special, Texts, mixed_precision, on_device, pair_tokens
from evaluation import Results, means, ndcg
from mining import CANDIDATES, mine
from model import Student, embed, load_trained
from progress import rounded, say
from teacher import Teacher
from torch import Tensor
from training import Step, adamw, train, trapezoid

from embedkit.checkpoint.folder import read_model_folder
from embedkit.errors import TrainingError

CAP = 256  # tokens of a query and a text
POWER, WARMUP = 0.55, 0.06
DEPTH = 20  # hits that are reranked
TRIAL_QUERIES, QUERIES = 60, 120  # of each dev set
# Too few, too short or too alike to learn an order from.
UNUSED = ("tatoeba", "debian_name", "o_coco", "o_leads", "recipes")

Objective = Callable[
    [Tensor, Tensor], Tensor
]  # logits and teacher cosines, (n, 8) each, the right text first -> ()


def softmax(logits: Tensor, _: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def softmax_with_teacher(logits: Tensor, cosines: Tensor) -> Tensor:
    """Cross-entropy to a target of which the teacher's softmax holds three tenths (Hinton et al. 2015, section 2)."""
    right = torch.zeros_like(logits)
    right[:, 0] = 1
    target = 0.7 * right + 0.3 * (cosines / 0.05).softmax(1)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def binary(logits: Tensor, _: Tensor) -> Tensor:
    right = torch.zeros_like(logits)
    right[:, 0] = 1
    negatives = torch.tensor(logits.shape[1] - 1.0, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits, right, pos_weight=negatives)


def ranknet(logits: Tensor, _: Tensor) -> Tensor:
    """Burges et al. 2005, https://doi.org/10.1145/1102351.1102363, section 3."""
    return F.softplus(logits[:, 1:] - logits[:, :1]).mean()


def lambda_loss(logits: Tensor, _: Tensor) -> Tensor:
    """Wang et al. 2018, https://doi.org/10.1145/3269206.3271784: each pair weighs what nDCG its exchange would change."""
    rank = logits.argsort(1, descending=True).argsort(1).float()
    discount = 1 / torch.log2(rank + 2)
    weight = (discount[:, :1] - discount[:, 1:]).abs()
    return (F.softplus(logits[:, 1:] - logits[:, :1]) * weight).sum(1).mean()


def margin_mse(logits: Tensor, cosines: Tensor) -> Tensor:
    """Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666, eq. 6, with the cosines scaled to the size of logits."""
    return F.mse_loss(logits[:, :1] - logits[:, 1:], 20 * (cosines[:, :1] - cosines[:, 1:]))


OBJECTIVES: dict[str, Objective] = {
    "softmax": softmax,
    "softmax with teacher": softmax_with_teacher,
    "bce": binary,
    "ranknet": ranknet,
    "lambda": lambda_loss,
    "margin mse": margin_mse,
}


@dataclass(frozen=True)
class RerankerOptions:
    teacher_margin: float
    tokens: int
    rate: float
    ablation_seconds: float
    seconds: float
    compiled: bool


class Lists:
    """Queries with a right text and seven mined ones, drawn from sources of pairs in proportion to their size to a power."""

    def __init__(self, texts: Texts, negatives: dict[str, Numbers], tokens: int, seed: int) -> None:
        self._texts, self._tokens = texts, tokens
        self._sources = [(texts.pairs[name], found) for name, found in negatives.items()]
        weights = np.array([len(pairs) ** POWER for pairs, _ in self._sources])
        self._weights = weights / weights.sum()
        self._rng = np.random.default_rng(seed)

    def batch(self) -> tuple[Numbers, Numbers, int]:
        """Return queries and documents of about `tokens` tokens, (n, 8) each, and how many tokens they have."""
        queries, documents, total = list[Numbers](), list[Numbers](), 0
        while True:
            pairs, negatives = self._sources[int(self._rng.choice(len(self._sources), p=self._weights))]
            for row in self._rng.integers(len(pairs), size=CANDIDATES):
                found = negatives[row][negatives[row] >= 0]
                if len(found) < CANDIDATES - 1:
                    continue
                listed = np.append(pairs[row, 1], self._rng.permutation(found)[: CANDIDATES - 1])
                query = np.full(CANDIDATES, pairs[row, 0])
                size = int(pair_tokens(self._texts, query, listed, cap=CAP).sum())
                if queries and total + size > self._tokens:
                    return np.stack(queries), np.stack(documents), total
                queries.append(query)
                documents.append(listed)
                total += size


def reranker(state: Path, options: RerankerOptions) -> Results:
    """Train a cross-encoder and write the folder `rerank` into `state`; return what each objective reached.

    Raises:
        TrainingError: no source has enough negatives.
    """
    folder = read_model_folder(state / "small")
    texts, teacher = Texts(state / "texts.npz", Special.of(folder)), Teacher.load(state)
    small = load_trained(folder)
    dev = F.normalize(embed(small, texts, texts.dev_rows, options.tokens), dim=1)
    sources = [name for name in texts.pairs if name not in UNUSED]
    negatives = mine(texts, teacher, sources, margin=options.teacher_margin)
    if not negatives:
        raise TrainingError(
            f"{state}: no source has {CANDIDATES - 1} negatives for a query below {1 - options.teacher_margin:g} of the right text's "
            "cosine to the teacher; prepare more texts, or lower --relative-margin"
        )
    results: Results = {}

    def run(objective: str, name: str, seconds: float, queries: int, seed: int) -> CrossStudent:
        model = _fresh(small, options)
        lists = Lists(texts, negatives, options.tokens, seed)
        cost = _train(model, lists, texts, teacher, OBJECTIVES[objective], name, seconds, options.rate)
        first, alone = measure_reranking(model, texts, dev, queries)
        results[name], results[f"first stage, {queries} queries"] = alone | cost, first
        say(name, rounded(alone))
        return model

    best = "softmax"
    if options.ablation_seconds:
        for name in OBJECTIVES:
            run(name, f"ablation: {name}", options.ablation_seconds, TRIAL_QUERIES, 0)
        best = max(OBJECTIVES, key=lambda name: _both(results[f"ablation: {name}"]))
    say("chosen:", best)
    save_cross(state / "rerank", run(best, "reranker", options.seconds, QUERIES, 7), folder)
    return results


def _both(result: dict[str, float]) -> float:
    return result["mean others"] + result["mean varied"]


def _fresh(small: Student, options: RerankerOptions) -> CrossStudent:
    torch.manual_seed(0)
    encoder = copy.deepcopy(small.model.encoder)
    return CrossStudent(encoder, size=options.tokens if options.compiled else 0).to(DEVICE)


def _train(
    model: CrossStudent,
    lists: Lists,
    texts: Texts,
    teacher: Teacher,
    objective: Objective,
    name: str,
    seconds: float,
    rate: float,
) -> dict[str, float]:
    def step() -> Step:
        queries, documents, tokens = lists.batch()
        with mixed_precision():
            logits = model.scores(texts, queries.ravel(), documents.ravel(), cap=CAP)
        cosines = (teacher.of(queries) * teacher.of(documents)).sum(-1)  # (n, 8)
        loss = objective(logits.view(queries.shape), cosines)
        return Step(loss, {"loss": loss.detach()}, tokens)

    return train(model, step, adamw(model, rate), trapezoid(rate, WARMUP), name=name, seconds=seconds)


@torch.no_grad()
def measure_reranking(
    model: CrossStudent, texts: Texts, dev: Tensor, queries: int, window: int = 800
) -> tuple[dict[str, float], dict[str, float]]:
    """Rerank the small encoder's first hits without its scores; return nDCG@10 before and after: dev (M, D)."""
    before, after = {}, {}
    for name, each in texts.dev.items():
        if "q" not in each:
            continue
        count, depth = min(queries, len(each["q"])), min(DEPTH, len(each["d"]))
        first = dev[on_device(each["q"][:count])] @ dev[on_device(each["d"])].T
        values, hits = first.topk(depth, dim=1)
        asked = np.repeat(each["q"][:count], depth) + texts.num_train
        found = each["d"][hits.flatten().cpu().numpy()] + texts.num_train
        parts = []
        for start in range(0, len(asked), window):
            with mixed_precision():
                end = start + window
                parts.append(model.scores(texts, asked[start:end], found[start:end], cap=CAP))
        rel = each["rel"][each["rel"][:, 0] < count]
        for scores, results in ((values, before), (torch.cat(parts).view(count, depth), after)):
            spread = torch.full_like(first, -1e9).scatter_(1, hits, scores.float())
            results[name] = ndcg(spread, rel)
    return before | means(before), after | means(after)
