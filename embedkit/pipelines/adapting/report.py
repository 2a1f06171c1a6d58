"""What adapting brought: held-out queries and general texts before and after, examples, and whether it is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.evaluation.agreement import spearman
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.evaluation.significance import randomisation_test
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.training.engine.evaluation_sets import EvaluationSet, search
from embedkit.types import Float32

NDCG = Metric("ndcg", 10)
DEPTH = 100  # ranks are told up to this one
EXAMPLES = 5  # of queries whose passage rose most, and of those whose fell most
# Keep what helps held-out queries beyond chance …
MOST_CHANCE = 0.05
# Where nothing but a map was found, they are at least not to get worse: a fall that is hardly chance speaks against it.
HARM_CHANCE = 0.2
# … and leaves other texts as they were: by the order of their cosines, and on sets to within a hundredth.
# Measured on CACM, CISI, TIME, SciFact and forum questions: above .92, STS-B and SICK lose less than half a hundredth.
LEAST_AGREEMENT = 0.92
MOST_LOSS = 0.01


@dataclass(frozen=True)
class ModelStanding:
    """One model: the rank of each held-out query's passage (None beyond `DEPTH`), its nDCG@10, and what other sets gave."""

    ranks: Sequence[int | None]
    ndcg: Sequence[float]
    sample: Float32  # (N, E) vectors of the sample texts
    sets: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """A measure before and after."""

    name: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class Example:
    """A held-out query whose passage rose or fell; ranks are None beyond 100."""

    query: str
    kind: str
    passage_id: str
    before: int | None
    after: int | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Before and after: nDCG@10 of held-out queries, all and by kind; other sets; and how far cosines of general texts kept their order.

    `p_value` is that of no change over the held-out queries. `mean_cosine` is that of two passages before, None where no map was found.
    `keep` is the verdict, `why` its reasons.
    """

    queries: int
    passages: int
    held_out: Sequence[BeforeAfter]
    p_value: float
    agreement: float
    mean_cosine: float | None
    sets: Sequence[BeforeAfter]
    better: int
    worse: int
    rose: Sequence[Example]
    fell: Sequence[Example]
    keep: bool
    why: Sequence[str]


def encode_as(encoder: Encoder, texts: Sequence[str], role: str) -> Float32:
    """Encode texts as queries or as documents, (N, E); that some are cut is said elsewhere."""
    kind: Literal["query", "document"] = "query" if role == "query" else "document"
    vectors = encoder.of_role(kind).encode(texts, prompt=encoder.role_prompt(kind), on_truncate="ok")
    return encoder.as_queries(vectors) if kind == "query" else vectors


@dataclass(frozen=True)
class KnownVectors:
    """Vectors of texts as documents that need not be encoded again: `rows` says which of `vectors`, (N, E), is a text's."""

    rows: Mapping[str, int]
    vectors: Float32

    def encode_as(self, encoder: Encoder, texts: Sequence[str], role: str) -> Float32:
        """Return the same as `encode_as`, but for the length of vectors."""
        if role != "document":
            return encode_as(encoder, texts, role)
        rows = np.array([self.rows.get(text, -1) for text in texts])
        found = self.vectors[rows, : encoder.dimension]
        # A text without tokens is zeros, whatever a map makes of these.
        missing = (rows < 0) | ~found.any(axis=1)
        if missing.any():
            found[missing] = encode_as(
                encoder, [texts[row] for row in np.flatnonzero(missing).tolist()], role
            )
        return found


def measure(
    encoder: Encoder,
    held_out: EvaluationSet,
    sets: Sequence[EvaluationSet],
    known: KnownVectors | None = None,
) -> ModelStanding:
    """Search the held-out queries among all passages, some of whose vectors are `known`, encode the sample texts, and measure other sets."""
    embed = partial(encode_as, encoder)
    find = embed if known is None else partial(known.encode_as, encoder)
    run = search(find, held_out.queries, held_out.documents, k=DEPTH)
    per_query = evaluate_retrieval(held_out.qrels, run, (NDCG,)).per_query[str(NDCG)]
    return ModelStanding(
        ranks=[_rank(run[number], next(iter(held_out.qrels[number]))) for number in held_out.queries],
        ndcg=[per_query[number] for number in held_out.queries],
        sample=encoder.encode(SAMPLE_TEXTS, on_truncate="ok"),
        sets={each.measure_name: each.measure(embed) for each in sets},
    )


def _rank(hits: Mapping[str, float], doc_id: str) -> int | None:
    if doc_id not in hits:
        return None
    return 1 + sum(score > hits[doc_id] for score in hits.values())


def agreement(before: Float32, after: Float32) -> float:
    """Say how far two models order all couples of N texts alike by their cosines: Spearman's correlation, -1 to 1.

    What each model's vectors have in common is taken away first: whitening changes that, and no search suffers from it.
    """
    upper = np.triu_indices(len(before), k=1)
    one, other = (_cosines(each)[upper] for each in (before, after))
    return spearman(one.astype(np.float64), other.astype(np.float64))


def _cosines(vectors: Float32) -> Float32:
    """Return the cosines of N vectors about their mean: (N, N)."""
    unit = normalize(vectors)
    centred = normalize(unit - unit.mean(axis=0))
    return centred @ centred.T


def compare(
    pairs: Sequence[QueryPassage],
    before: ModelStanding,
    after: ModelStanding,
    *,
    passages: int,
    mean_cosine: float | None,
    trained: bool,
) -> Report:
    """Compare a model with what became of it, and judge."""
    kinds = sorted({each.kind for each in pairs})
    places = {"all": list(range(len(pairs)))} | {
        kind: [number for number, each in enumerate(pairs) if each.kind == kind] for kind in kinds
    }
    held_out = [_change(name, before.ndcg, after.ndcg, rows) for name, rows in places.items()]
    p_value = randomisation_test(np.subtract(after.ndcg, before.ndcg)).p_value
    sets = [
        BeforeAfter(name=name, before=value, after=after.sets[name]) for name, value in before.sets.items()
    ]
    same = agreement(before.sample, after.sample)
    moved = [
        Example(
            query=each.query,
            kind=each.kind,
            passage_id=each.passage_id,
            before=before.ranks[i],
            after=after.ranks[i],
        )
        for i, each in enumerate(pairs)
        if before.ranks[i] != after.ranks[i]
    ]
    rose = sorted((each for each in moved if _climb(each) > 0), key=_climb, reverse=True)
    fell = sorted((each for each in moved if _climb(each) < 0), key=_climb)
    why = _objections(held_out[0], p_value, same, sets, trained=trained)
    return Report(
        queries=len(pairs),
        passages=passages,
        held_out=held_out,
        p_value=p_value,
        agreement=same,
        mean_cosine=mean_cosine,
        sets=sets,
        better=len(rose),
        worse=len(fell),
        rose=rose[:EXAMPLES],
        fell=fell[:EXAMPLES],
        keep=not why,
        why=why
        or [
            "held-out queries find their passages better than by chance, and other texts kept their order"
            if trained
            else f"nothing speaks against it: held-out queries changed by {held_out[0].gain:+.3f} nDCG@10 (p = {p_value:.2f}), and other texts kept their order"
        ],
    )


def _change(name: str, before: Sequence[float], after: Sequence[float], rows: Sequence[int]) -> BeforeAfter:
    one, other = (float(np.mean([values[row] for row in rows])) for values in (before, after))
    return BeforeAfter(name=name, before=one, after=other)


def _climb(example: Example) -> float:
    """Say how far a passage rose, in reciprocal ranks: near the top each rank counts for more."""
    old, new = (0.0 if rank is None else 1 / rank for rank in (example.before, example.after))
    return new - old


def _objections(
    held_out: BeforeAfter, p_value: float, same: float, sets: Sequence[BeforeAfter], *, trained: bool
) -> list[str]:
    """Say what speaks against a model. A map alone need not help held-out queries, which are their passages' own words; it must not harm them."""
    found = []
    if not trained:
        if held_out.gain < 0 and p_value <= HARM_CHANCE:
            found.append(
                f"held-out queries find their passages worse ({held_out.gain:+.3f} nDCG@10, p = {p_value:.3f})"
            )
    elif held_out.gain <= 0:
        found.append(f"held-out queries find their passages no better ({held_out.gain:+.3f} nDCG@10)")
    elif p_value > MOST_CHANCE:
        found.append(
            f"the gain on held-out queries ({held_out.gain:+.3f} nDCG@10) may be chance (p = {p_value:.2f})"
        )
    if same < LEAST_AGREEMENT:
        found.append(
            f"cosines of general texts no longer have the order that they had (agreement {same:.3f}; at least {LEAST_AGREEMENT} is wanted)"
        )
    for each in sets:
        if each.after < each.before * (1 - MOST_LOSS):
            found.append(f"{each.name} fell from {each.before:.4f} to {each.after:.4f}")
    return found
