"""Data sets of a contrastive run: which loss each gets and why, what is held out, and the distinct texts of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.checkpoint.folder import ModelFolder
from embedkit.data.records import ReadOptions
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.training.contrastive.objective import Objective, scaled_scores
from embedkit.training.contrastive.recipe import (
    ALIKE_OR_NOT,
    DEFAULT_LOSS,
    LOSS_KINDS,
    ContrastiveRecipe,
    LossName,
    LossRecipe,
)
from embedkit.training.losses.denoising import SentenceDecoder
from embedkit.training.rows.columns import KINDS, Role
from embedkit.training.rows.examples import Examples, read_examples
from embedkit.training.rows.sampling import RowSampler, Style

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """One data set with its loss and its batches."""

    examples: Examples
    loss: LossName
    why: str
    objective: Objective
    train: RowSampler
    held_out: RowSampler | None
    num_train: int
    num_held_out: int
    fingerprint: str

    def described(self, name: str) -> str:
        """Say what was found and what is made of it, in a sentence that starts with `name`."""
        examples = self.examples
        return f"{name}: {len(examples):,} {examples.kind} ({examples.described}) -> {self.loss}; {self.why}"


def read_data_set(
    source: str, columns: Mapping[Role, str], recipe: LossRecipe, *, read: ReadOptions | None = None
) -> tuple[Examples, LossName, str]:
    """Read a data set, as `read_examples` does, and choose its loss: the recipe's, or the one that its columns ask for.

    Raises:
        RecordError: it cannot be read, or its columns do not allow the loss; the message says what they would allow.
        TrainingError: scores, labels or margins do not fit the loss.
    """
    if recipe.name is not None:
        kinds, purpose = LOSS_KINDS[recipe.name], f"loss {recipe.name!r}"
        examples = read_examples(source, columns=columns, kinds=kinds, purpose=purpose, read=read)
        loss, why = recipe.name, "as asked for"
    else:
        examples = read_examples(source, columns=columns, kinds=KINDS, read=read)
        loss, why = DEFAULT_LOSS[examples.kind]
        if examples.kind == "classified" and set(examples.classes) <= set(ALIKE_OR_NOT):
            loss, why = (
                "online_contrastive",
                "pairs labelled 1 or 0: the first are to be near, the others far",
            )
    _check_fit(examples, loss, recipe)
    return examples, loss, why


def _check_fit(examples: Examples, loss: LossName, recipe: LossRecipe) -> None:
    name = examples.name
    if loss in ("contrastive", "online_contrastive") and not set(examples.classes) <= set(ALIKE_OR_NOT):
        some = ", ".join(examples.classes[:4])
        raise TrainingError(
            f"{name}: loss {loss!r} needs the labels 0 and 1; there are {len(examples.classes)}: {some}. Take pair_classification"
        )
    if loss == "cosine_regression":
        assert examples.scores is not None
        scaled = scaled_scores(examples, recipe)
        low, high = recipe.score_range or (-1.0, 1.0)
        wrong = (scaled < (0 if recipe.score_range else -1) - 1e-6) | (scaled > 1 + 1e-6)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise TrainingError(
                f"{name}: row {row + 1} has the score {examples.scores[row]:g}; cosine_regression takes scores from {low:g} to {high:g}. "
                "Say their range, such as --set loss.score_range=[0,5], or take cosent, which needs their order alone"
            )
    if loss == "margin_mse":
        assert examples.margins is not None
        if not np.isfinite(examples.margins).all():
            fewest = int(np.isfinite(examples.margins).sum(axis=1).min())
            raise TrainingError(
                f"{name}: rows have {fewest} to {examples.margins.shape[1]} negatives; margin_mse needs as many in every row. "
                "Take kl_distillation"
            )
    if loss == "triplet":
        assert examples.negatives is not None
        if not (examples.negatives >= 0).any(axis=1).all():
            row = int(np.argmin((examples.negatives >= 0).any(axis=1)))
            raise TrainingError(
                f"{name}: row {row + 1} has no negative; triplet needs one in every row. Take info_nce"
            )


def make_data_set(
    examples: Examples,
    loss: LossName,
    why: str,
    recipe: ContrastiveRecipe,
    folder: ModelFolder,
    model: SentenceEncoder,
    *,
    number: int,
) -> DataSet:
    """Hold rows out, plan the batches and make what the loss trains besides the encoder.

    Raises:
        TrainingError: there are too few rows, or vectors of another dimension than the model's.
    """
    width = folder.embedding_size
    if examples.vectors is not None and loss == "embedding_mse" and examples.vectors.shape[1] != width:
        raise TrainingError(
            f"{examples.name}: the teacher's vectors have {examples.vectors.shape[1]} dimensions, the model's {width}. "
            "Distil with train distill --dimension, or give the model a dense layer"
        )
    too_wide = [dim for dim in recipe.loss.matryoshka if dim > width]
    if too_wide:
        raise TrainingError(
            f"loss.matryoshka names {too_wide[0]} dimensions; the model's vectors have {width}. Leave it out"
        )
    style: Style = "distinct" if loss in ("info_nce", "simcse") else "plain"
    if examples.kind == "labelled":
        style = "labelled"
    # Which rows are held out depends on their number alone, so that more steps or another seed keep them out too.
    order = np.random.default_rng(0).permutation(len(examples))
    count = max(2, round(recipe.data.held_out * len(examples)))
    held_out, train = np.sort(order[:count]), np.sort(order[count:])
    return DataSet(
        examples,
        loss,
        why,
        _objective(examples, loss, recipe, folder, model),
        _sampler(examples, train, recipe, style, recipe.data.batch_size, [recipe.run.seed, number, 5]),
        _held_out_sampler(examples, held_out, recipe, style),
        len(train),
        len(held_out),
        examples.fingerprint,
    )


def _sampler(
    examples: Examples, rows: Ints, recipe: ContrastiveRecipe, style: Style, size: int, seed: Sequence[int]
) -> RowSampler:
    per_label = recipe.data.texts_per_label
    return RowSampler(examples, rows, batch_size=size, style=style, seed=seed, texts_per_label=per_label)


def _held_out_sampler(
    examples: Examples, rows: Ints, recipe: ContrastiveRecipe, style: Style
) -> RowSampler | None:
    """Plan batches of the held-out rows, smaller where they are few; None where they make none (all of one label, say)."""
    size = min(recipe.data.batch_size, len(rows))
    while size >= 2:
        try:
            return _sampler(examples, rows, recipe, style, size, [0, 0, 6])
        except TrainingError:
            size //= 2
    return None


def _objective(
    examples: Examples, loss: LossName, recipe: ContrastiveRecipe, folder: ModelFolder, model: SentenceEncoder
) -> Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        decoder = None
        if loss == "tsdae":
            config = folder.config
            table = model.encoder.embeddings.tokens.weight
            assert isinstance(table, torch.nn.Parameter)
            decoder = SentenceDecoder(
                table,
                embedding_size=folder.embedding_size,
                num_attention_heads=config.num_attention_heads,
                max_position_embeddings=config.max_tokens,
                dropout=config.hidden_dropout_prob,
            )
        return Objective(
            loss,
            recipe.loss,
            embedding_size=folder.embedding_size,
            num_classes=len(examples.classes),
            normalize=folder.modules.similarity != "dot",
            decoder=decoder,
        )


@dataclass(frozen=True)
class Entries:
    """The distinct texts of a batch, and where its rows' texts are among them.

    Shapes:
        texts: U, with their prompts; plain: U, without; groups: (U,) 0 for texts of the first column, 1 for others
        first, second: (B,); negatives: (B, K), -1 for none
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


def entries_of(each: DataSet, rows: Ints, recipe: ContrastiveRecipe, rng: np.random.Generator) -> Entries:
    """Collect the texts of some rows, each once for the first column and once for the others."""
    chosen = each.examples.take(rows)
    texts = each.examples.texts
    if each.loss == "tsdae":
        whole = [texts[number] for number in chosen.first]
        noisy = [delete_words(text, recipe.loss.delete_ratio, rng) for text in whole]
        numbers = np.arange(len(whole))
        prompted = [recipe.prompts.first + text for text in noisy]
        return Entries(chosen, prompted, noisy, np.zeros_like(numbers), numbers, None, None, whole)
    second = chosen.first if each.loss == "simcse" else chosen.second
    place: dict[tuple[int, int], int] = {}

    def look_up(column: Ints | None, group: int) -> Ints | None:
        if column is None:
            return None
        flat = [-1 if n < 0 else place.setdefault((group, n), len(place)) for n in column.flatten().tolist()]
        return np.array(flat, dtype=np.int64).reshape(column.shape)

    first = look_up(chosen.first, 0)
    others = look_up(second, 1)
    negatives = look_up(chosen.negatives, 1)
    assert first is not None
    plain = [texts[number] for _, number in place]
    prompts = (recipe.prompts.first, recipe.prompts.second)
    prompted = [prompts[group] + text for (group, _), text in zip(place, plain, strict=True)]
    groups = np.array([group for group, _ in place], dtype=np.int64)
    return Entries(chosen, prompted, plain, groups, first, others, negatives)


def delete_words(text: str, ratio: float, rng: np.random.Generator) -> str:
    """Take out each word with probability `ratio`, but leave at least one.

    Source: Wang et al. 2021, https://arxiv.org/abs/2104.06979, section 3; 0.6 is their best ratio.
    """
    words = text.split()
    kept = rng.random(len(words)) >= ratio
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)
