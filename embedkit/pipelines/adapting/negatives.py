"""Hard negatives for derived queries, and what a cross-encoder says of them.

1. index the passages with the model itself
2. search for each query; its own document's passages are none of its negatives (`embedkit.training.mining`)
3. where there is a cross-encoder, score each query's passage and negatives; a negative that scores as high as the passage is left out
4. a row for each negative; with a cross-encoder also its margin, score of the passage less score of the negative, for MarginMSE

Source: GPL, Wang et al. 2022, https://arxiv.org/abs/2112.07577, section 3. It leaves nothing out in step 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.data.records import Hit
from embedkit.errors import TrainingError
from embedkit.pipelines.adapting.folder import AdaptFolder, read_json, read_rows, write_counts, write_rows
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Progress
from embedkit.pipelines.mining import MiningModels
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.mining.choosing import Search
from embedkit.training.mining.mining import mine
from embedkit.training.mining.recipe import MiningRecipe
from embedkit.training.rows.reading import read_examples

WINDOW = 64  # queries scored together by the cross-encoder: a bar moves once a window


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What negatives there are. `false_negatives` were left out, `without` queries have none left and are not trained on.

    With a cross-encoder, `scale` is what the model's cosine margins are to be multiplied by to be as large as its margins.
    """

    rows: int
    false_negatives: int
    without: int
    scale: float | None = None


def mine_negatives(
    folder: AdaptFolder,
    recipe: AdaptRecipe,
    models: MiningModels,
    pairs: Sequence[QueryPassage],
    *,
    judged: bool,
) -> Iterator[Progress]:
    """Index the passages and mine `mined.jsonl`; where both are there in part, go on.

    With a cross-encoder to come (`judged`) no cosines are compared: what the model takes for the answer may be what it has to learn.
    """
    index = models.open_index(folder.index)
    try:
        rows = read_examples(
            str(folder.train), columns={"first": "query", "second": "passage"}, kinds=("pairs",)
        )
        for report in models.fill(index, rows, [str(folder.passages)]):
            yield Progress("index", report.fraction, f"{report.read:,} passages")
        searches, score = models.searches(index)
        picking = MiningRecipe(
            num_negatives=recipe.num_negatives,
            first_rank=recipe.first_rank,
            last_rank=recipe.last_rank,
            margin=None,
            relative_margin=None if judged else recipe.relative_margin,
            pick="random",
            seed=recipe.seed,
        )
        apart = [_apart(search, {each.query: each for each in pairs}) for search in searches]
        mined = mine(rows, apart, score, picking, folder.mined, manifest={}, resume=True)
        for done in mined:
            yield Progress("mine", done.done / done.total, f"{done.done:,} of {done.total:,} queries")
    finally:
        index.close()


def _apart(search: Search, pairs: Mapping[str, QueryPassage]) -> Search:
    """Keep a query's own document out of its hits. Where its title is the query, others come without theirs as well, if they have a text."""

    def find(queries: Sequence[str], depth: int) -> list[list[Hit]]:
        found = []
        for query, hits in zip(queries, search(queries, depth), strict=True):
            asked = pairs[query]
            others = (hit for hit in hits if hit.metadata["document"] != asked.document)
            if asked.kind == "title":
                others = (replace(hit, title="") for hit in others if hit.text.strip())
            found.append(list(others))
        return found

    return find


def label(folder: AdaptFolder, cross_encoder: CrossEncoder | None) -> Iterator[Progress]:
    """Write `rows.jsonl`, what is trained on, and its counts.

    Raises:
        TrainingError: no query has a negative left.
    """
    mined = read_rows(folder.mined)
    left_out = sum(row["too_near"] for row in mined)
    rows: list[dict[str, Any]] = []  # Any: texts and numbers
    margins: list[tuple[float, float]] = []  # the model's, the cross-encoder's
    without = 0
    for number, (row, scores) in enumerate(_scored(mined, cross_encoder), 1):
        kept = [place for place, score in enumerate(scores[1:]) if score < scores[0]]
        left_out += len(row["negatives"]) - len(kept)
        without += not kept
        for place in kept:
            made = {name: row[name] for name in ("query", "positive")} | {
                "negatives": [row["negatives"][place]]
            }
            if cross_encoder is not None:
                margin = scores[0] - scores[place + 1]
                margins.append((row["positive_score"] - row["negative_scores"][place], margin))
                made["margins"] = [round(margin, 5)]
            rows.append(made)
        if number % WINDOW == 0:
            yield Progress("label", number / len(mined), f"{number:,} of {len(mined):,} queries")
    if not rows:
        raise TrainingError(
            f"{folder.mined}: none of {len(mined):,} queries has a negative left; the documents are too alike, or too few. "
            "Use the model as it is"
        )
    write_rows(folder.rows, rows)
    counts = Labelled(
        rows=len(rows),
        false_negatives=left_out,
        without=without,
        scale=_scale(margins) if margins else None,
    )
    write_counts(folder.labelled, asdict(counts))
    yield Progress("label", 1.0, f"{len(rows):,} rows")


def _scored(
    mined: Sequence[dict[str, Any]], cross_encoder: CrossEncoder | None
) -> Iterator[tuple[dict[str, Any], list[float]]]:  # Any: texts and numbers
    """Give each row with the scores of its passage and negatives: the cross-encoder's, else the cosines.

    The cross-encoder's are taken before any activation, whose ends are flat: there margins would vanish.
    """
    if cross_encoder is None:
        for row in mined:
            yield row, [row["positive_score"], *row["negative_scores"]]
        return
    for first in range(0, len(mined), WINDOW):
        window = mined[first : first + WINDOW]
        texts = [[row["positive"], *row["negatives"]] for row in window]
        queries = [row["query"] for row, own in zip(window, texts, strict=True) for _ in own]
        scores = cross_encoder.log_odds(queries, [text for own in texts for text in own]).tolist()
        start = 0
        for row, own in zip(window, texts, strict=True):
            yield row, scores[start : start + len(own)]
            start += len(own)


def _scale(margins: Sequence[tuple[float, float]]) -> float:
    """Return the ratio of the root mean squares of the two kinds of margins, the cross-encoder's over the model's.

    MarginMSE would else stretch the model's whole space to the range of the cross-encoder's scores; so its first task is the order.
    """
    own, teacher = np.array(margins, dtype=np.float64).T
    ratio = math.sqrt(float(np.mean(teacher**2)) / max(float(np.mean(own**2)), 1e-12))
    return min(max(ratio, 1.0), 1000.0)


def read_labelled(path: Path) -> Labelled:
    return Labelled(**read_json(path))
