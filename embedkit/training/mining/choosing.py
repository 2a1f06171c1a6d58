"""Which of the hits of a search become the negatives of a row: steps 1 to 5 of `embedkit.training.mining.mining`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedkit.data.records import Hit, titled_text
from embedkit.training.mining.recipe import MiningRecipe
from embedkit.training.rows.examples import Examples

# Q queries and a depth -> the hits of each, best first
Search = Callable[[Sequence[str], int], list[list[Hit]]]
# queries and for each some texts -> a score for each text, higher is nearer
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[float]]]


@dataclass(frozen=True)
class Mined:
    """One row with its negatives; `likely_positive` is the nearest candidate that was left out for its score."""

    query: str
    positive: str
    negatives: list[str]
    negative_scores: list[float | None]
    positive_score: float | None
    candidates: int
    too_near: int
    likely_positive: str | None = None
    likely_positive_score: float | None = None


def mine_window(
    examples: Examples,
    rows: Sequence[int],
    known: Mapping[int, set[str]],
    searches: Sequence[Search],
    score: Score | None,
    recipe: MiningRecipe,
) -> list[Mined]:
    """Mine some rows; `known` holds the positives of each query, as `titled_text` has them."""
    assert examples.second is not None
    texts = examples.texts
    numbers = list(dict.fromkeys(int(examples.first[row]) for row in rows))
    queries = {number: texts[number] for number in numbers}
    depth = recipe.last_rank + max(len(known[number]) for number in numbers)
    found = [dict(zip(numbers, search(list(queries.values()), depth), strict=True)) for search in searches]
    candidates = {
        number: _window(
            [hits[number] for hits in found], known[number] | {titled_text("", queries[number])}, recipe
        )
        for number in numbers
    }
    pairs = [(int(examples.first[row]), texts[int(examples.second[row])]) for row in rows]
    scores: list[list[float]] | None = None
    if score is not None:
        asked = [[positive, *candidates[number]] for number, positive in pairs]
        scores = score([queries[number] for number, _ in pairs], asked)
    mined = []
    for place, (row, (number, positive)) in enumerate(zip(rows, pairs, strict=True)):
        own = None if scores is None else scores[place]
        mined.append(_choose(row, queries[number], positive, candidates[number], own, recipe))
    return mined


def _window(hit_lists: Sequence[Sequence[Hit]], known: set[str], recipe: MiningRecipe) -> list[str]:
    """Return the texts of the rank window of each search, taken in turn, each text once."""
    windows = []
    for hits in hit_lists:
        texts = (titled_text(hit.title, hit.text) for hit in hits)
        unknown = dict.fromkeys(text for text in texts if text not in known)
        windows.append(list(unknown)[recipe.first_rank - 1 : recipe.last_rank])
    longest = max(map(len, windows), default=0)
    turns = (window[i] for i in range(longest) for window in windows if i < len(window))
    return list(dict.fromkeys(turns))


def _choose(
    row: int,
    query: str,
    positive: str,
    candidates: Sequence[str],
    scores: Sequence[float] | None,
    recipe: MiningRecipe,
) -> Mined:
    kept = list(range(len(candidates)))
    near: list[int] = []
    if scores is not None:
        limit = recipe.limit(scores[0])
        near = [i for i in kept if scores[i + 1] > limit]
        kept = [i for i in kept if scores[i + 1] <= limit]
    if recipe.pick == "random":
        rng = np.random.default_rng([recipe.seed, row])
        kept = sorted(rng.permutation(kept)[: recipe.num_negatives].tolist())
    kept = kept[: recipe.num_negatives]
    worst = max(near, key=lambda i: scores[i + 1] if scores is not None else 0.0, default=None)
    return Mined(
        query,
        positive,
        [candidates[i] for i in kept],
        [None if scores is None else round(float(scores[i + 1]), 5) for i in kept],
        None if scores is None else round(float(scores[0]), 5),
        len(candidates),
        len(near),
        None if worst is None else candidates[worst],
        None if worst is None or scores is None else round(float(scores[worst + 1]), 5),
    )
