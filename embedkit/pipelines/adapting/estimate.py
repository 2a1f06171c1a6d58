"""What an adaptation would take: each stage tried on a few texts, nothing kept.

What is trained on in the trial has random passages in place of hard negatives and the same margin everywhere: as many tokens, no more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import numpy as np

from embedkit.data.records import Document, titled_text
from embedkit.encoding.encoder import Encoder
from embedkit.generation.generator import Generator
from embedkit.pipelines.adapting.adapting import Adaptation
from embedkit.pipelines.adapting.folder import AdaptFolder, write_rows
from embedkit.pipelines.adapting.mapping import MOST_RANKED, search_by_words
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.recipe import Sources, Stage
from embedkit.pipelines.adapting.training import SEARCHED, held_out_set, make_journey, make_pretraining
from embedkit.pipelines.models import load_encoder
from embedkit.training.engine.estimate import estimate
from embedkit.training.engine.ranks import launched
from embedkit.training.hybrid_ranking import AskedPassages, learn_hybrid_ranking, most_steps
from embedkit.training.whitening import LinearMap

TRIED = 64  # texts, or pairs of texts
GENERATED = 8
FORWARD = 1 / 3  # of a training step's work: going backward takes twice as long


@dataclass(frozen=True, kw_only=True)
class AdaptEstimate:
    """What there is to do and the seconds that each stage would take; `memory_bytes` is the most that training took."""

    documents: int
    passages: int
    train_queries: int
    held_out_queries: int
    seconds: dict[Stage, float]
    memory_bytes: int

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def estimate_adaptation(sources: Sources, adaptation: Adaptation) -> AdaptEstimate:
    """Derive the queries, then try each stage on a few of them; those that a generator would write besides are not counted.

    Raises:
        TrainingError: there are too few passages, as in the run itself.
    """
    with TemporaryDirectory(prefix="embedkit-adapt-") as place:
        trial = Adaptation(replace(sources, generator=None), adaptation.recipe, AdaptFolder(place))
        trial.folder.work.mkdir(parents=True)
        began = time.perf_counter()
        for _ in trial.derive():
            pass
        seconds: dict[Stage, float] = {"queries": time.perf_counter() - began}
        passages, pairs, recipe = trial.passages, trial.pairs, trial.recipe
        rng = random.Random(0)
        sample = rng.sample(passages, min(TRIED, len(passages)))
        texts = [_text(each) for each in sample]
        if sources.generator is not None:
            seconds["generate"] = _generating(sources, texts) * len(passages)
        embedder = load_encoder(sources.model, sources.computing)
        per_text = _timed(lambda: embedder.encode(texts, on_truncate="ok"), len(texts))
        memory = 0
        if recipe.steps:
            memory = _until_trained(trial, embedder, texts, per_text, seconds)
        mapping = per_text * len(passages)
        if recipe.whitening:
            seconds["whiten"], mapping = mapping, 0.0
        if recipe.ranking_steps:
            seconds["rank"] = mapping + _ranking(trial, embedder)
        # Vectors of passages that a map was found from serve again: before, unless the encoder was trained, and after.
        again = (not recipe.maps) + (not recipe.maps or bool(recipe.steps))
        seconds["measure"] = per_text * (again * len(passages) + 4 * len(trial.held_out))
        return AdaptEstimate(
            documents=int(trial.counts["documents"]),
            passages=len(passages),
            train_queries=len(pairs),
            held_out_queries=len(trial.held_out),
            seconds=seconds,
            memory_bytes=memory,
        )


def _ranking(trial: Adaptation, encoder: Encoder) -> float:
    """Return the seconds that learning from hybrid search takes: encoding the queries, searching by words, and the steps."""
    asking, count = min(MOST_RANKED, len(trial.pairs)), min(MOST_RANKED, len(trial.passages))
    queries = [each.query for each in trial.pairs[:TRIED]]
    per_query = _timed(lambda: encoder.encode(queries, on_truncate="ok"), len(queries))
    began = time.perf_counter()
    search_by_words(trial.folder, trial.passages[:TRIED], trial.pairs[:TRIED])
    by_words = (time.perf_counter() - began) * max(asking, count) / TRIED
    vectors = np.random.default_rng(0).standard_normal((asking + count, encoder.dimension), np.float32)
    some = AskedPassages(
        queries=vectors[:asking],
        passages=vectors[asking:],
        query_documents=np.zeros(asking, np.int64),
        passage_documents=np.arange(count),
        hits=np.zeros((asking, 1), np.int64),
        scores=np.ones((asking, 1), np.float32),
    )
    start = LinearMap(np.eye(encoder.dimension))
    per_step = _timed(lambda: list(learn_hybrid_ranking(start, some, steps=1, seed=0)), 1)
    return per_query * asking + by_words + per_step * most_steps(trial.recipe.ranking_steps, asking)


def _until_trained(
    trial: Adaptation, encoder: Encoder, texts: Sequence[str], per_text: float, seconds: dict[Stage, float]
) -> int:
    """Try mining, labelling and training: add their seconds, and return the bytes that training took."""
    recipe = trial.recipe
    pairs = trial.pairs[: recipe.train_queries]
    queries = [each.query for each in pairs[:TRIED]]
    per_query = _timed(lambda: encoder.encode(queries, on_truncate="ok"), len(queries))
    seconds["index"] = per_text * len(trial.passages)
    seconds["mine"] = (per_query + per_text) * len(pairs)
    cross_encoder = trial.cross_encoder()
    if cross_encoder is not None:
        asked = [pairs[i % len(pairs)].query for i in range(len(texts))]
        per_pair = _timed(lambda: cross_encoder.log_odds(asked, texts), len(texts))
        seconds["label"] = per_pair * len(pairs) * (1 + recipe.num_negatives)
    return _training(trial, pairs, texts, seconds)


def _training(
    trial: Adaptation,
    pairs: Sequence[QueryPassage],
    texts: Sequence[str],
    seconds: dict[Stage, float],
) -> int:
    """Try the training stages: add their seconds, and return the bytes that they took."""
    folder, recipe, judged = trial.folder, trial.recipe, trial.sources.reranker is not None
    with launched(trial.sources.computing.device) as ranks:
        if recipe.mlm_steps:
            pretraining, wanted = make_pretraining(folder, recipe, trial.model)
            seconds["mlm"] = estimate(pretraining, wanted.run, wanted.optim, ranks=ranks).seconds
        rows = [
            {
                "query": each.query,
                "positive": each.passage,
                "negatives": [texts[number % len(texts)]],
                **({"margins": [1.0]} if judged else {}),
            }
            for number, each in enumerate(pairs)
        ]
        write_rows(folder.rows, rows)
        held_out = held_out_set(folder.held_out, trial.held_out, trial.passages, most=SEARCHED)
        scale = 20.0 if judged else None
        journey, contrastive = make_journey(folder.rows, recipe, trial.model, scale, held_out, None)
        found = estimate(journey, contrastive.run, contrastive.optim, ranks=ranks)
    per_passage = int(trial.model.tokenizer.encode(texts).lengths.sum()) / len(texts)
    evaluated = per_passage * len(held_out.documents) * recipe.evaluations  # tokens, which go forward alone
    seconds["train"] = found.seconds + evaluated * FORWARD / found.tokens_per_second
    return found.memory_bytes


def _generating(sources: Sources, texts: Sequence[str]) -> float:
    assert sources.generator is not None
    generator = Generator.load(sources.generator, device=sources.computing.device)
    some = texts[:GENERATED]
    return _timed(lambda: generator.generate(some, generator.options()), len(some))


def _text(passage: Document) -> str:
    return titled_text(passage.title, passage.text)


def _timed(work: Callable[[], object], count: int) -> float:
    """Return the seconds that one of `count` takes, the second time: the first also starts threads and reads weights."""
    work()
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / count
