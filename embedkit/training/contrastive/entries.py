"""The distinct texts of a batch: each is encoded once, however many of its rows hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.loss import Loss
from embedkit.training.rows.examples import Examples

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Entries:
    """The distinct texts of a batch, and where its rows' texts are among them.

    Shapes:
        texts: U, with their prompts; plain: U, without; groups: (U,) 0 for texts of the first column, 1 for others
        first, second: (B,); negatives: (B, K), -1 for none
        documents: (M, F) of documents with fields, -1 for a missing one; `second` and `negatives` are then rows of it
        originals: B whole texts (tsdae), else empty
    """

    rows: Examples
    texts: Sequence[str]
    plain: Sequence[str]
    groups: Ints
    first: Ints
    second: Ints | None
    negatives: Ints | None
    originals: Sequence[str] = ()
    documents: Ints | None = None


def entries_of(chosen: Examples, loss: Loss, recipe: ContrastiveRecipe, rng: np.random.Generator) -> Entries:
    """Collect the texts of some rows, each once for the first column and once for the others.

    Where a loss compares texts with documents and rows have one text each, the document is the text itself.
    """
    texts = chosen.texts
    if loss.takes == "whole texts":
        whole = [texts[number] for number in chosen.first]
        noisy = [delete_words(text, recipe.loss.delete_ratio, rng) for text in whole]
        numbers = np.arange(len(whole))
        prompted = [recipe.prompts.first + text for text in noisy]
        return Entries(chosen, prompted, noisy, np.zeros_like(numbers), numbers, None, None, whole)
    second = chosen.first if loss.takes == "documents" and chosen.second is None else chosen.second
    negatives, documents = chosen.negatives, chosen.documents
    if (
        documents is not None
    ):  # those of the batch, once each; their texts are looked up in place of a column's
        assert second is not None
        second, negatives, documents = _documents_of(second, negatives, documents)
    place: dict[tuple[int, int], int] = {}

    def look_up(column: Ints | None, group: int) -> Ints | None:
        if column is None:
            return None
        flat = [-1 if n < 0 else place.setdefault((group, n), len(place)) for n in column.flatten().tolist()]
        return np.array(flat, dtype=np.int64).reshape(column.shape)

    first = look_up(chosen.first, 0)
    if documents is None:
        second, negatives = look_up(second, 1), look_up(negatives, 1)
    else:
        documents = look_up(documents, 1)
    assert first is not None
    plain = [texts[number] for _, number in place]
    prompts = (recipe.prompts.first, recipe.prompts.second)
    prompted = [prompts[group] + text for (group, _), text in zip(place, plain, strict=True)]
    groups = np.array([group for group, _ in place], dtype=np.int64)
    return Entries(chosen, prompted, plain, groups, first, second, negatives, documents=documents)


def _documents_of(second: Ints, negatives: Ints | None, documents: Ints) -> tuple[Ints, Ints | None, Ints]:
    """Leave only those documents that stand in the columns, and number them anew."""
    columns = second if negatives is None else np.concatenate([second, negatives.flatten()])
    used = np.unique(columns[columns >= 0])

    def renumbered(column: Ints) -> Ints:
        return np.where(column < 0, -1, np.searchsorted(used, column))

    return renumbered(second), None if negatives is None else renumbered(negatives), documents[used]


def delete_words(text: str, ratio: float, rng: np.random.Generator) -> str:
    """Take out each word with probability `ratio`, but leave at least one.

    Source: Wang et al. 2021, https://arxiv.org/abs/2104.06979, section 3; 0.6 is their best ratio.
    """
    words = text.split()
    kept = rng.random(len(words)) >= ratio
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)
