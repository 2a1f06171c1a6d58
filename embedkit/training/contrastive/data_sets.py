"""Data sets of a contrastive run: which loss each gets and why, and what is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.checkpoint.folder import ModelFolder
from embedkit.data.records import ReadOptions
from embedkit.errors import TrainingError
from embedkit.model.late_interaction import MaxSimilarity
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.similarity import Similarity
from embedkit.model.sparse import SparseModel
from embedkit.training import loss_table
from embedkit.training.contrastive.entries import Entries, entries_of
from embedkit.training.contrastive.head import cannot_compare, check_compares, similarity_of
from embedkit.training.contrastive.objective import Objective, scaled_scores
from embedkit.training.contrastive.recipe import ContrastiveRecipe, LossRecipe
from embedkit.training.loss import ALIKE, Loss
from embedkit.training.loss_table import SIMILARITY
from embedkit.training.losses.denoising import SentenceDecoder
from embedkit.training.rows.columns import FIELD_KINDS, KINDS, Role
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.reading import read_examples
from embedkit.training.rows.sampling import RowSampler, Style, split_rows

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Matched:
    """Rows with the loss that they are for, and why it is that one."""

    examples: Examples
    loss: Loss
    why: str


@dataclass(frozen=True)
class DataSet:
    """One data set with its loss and its batches."""

    examples: Examples
    loss: Loss
    why: str
    objective: Objective
    train: RowSampler
    held_out: RowSampler | None
    num_train: int
    num_held_out: int
    fingerprint: str

    def entries(self, batch: Ints, recipe: ContrastiveRecipe, rng: np.random.Generator) -> Entries:
        """Return some rows of this set with their distinct texts."""
        return entries_of(self.examples.take(batch), self.loss, recipe, rng)

    def described(self, name: str) -> str:
        """Say what was found and what is made of it, in a sentence that starts with `name`."""
        examples = self.examples
        return f"{name}: {len(examples):,} {examples.kind} ({examples.described}) -> {self.loss.name}; {self.why}"


def read_data_set(
    source: str,
    columns: Mapping[Role, str],
    recipe: LossRecipe,
    *,
    read: ReadOptions | None = None,
    fields: tuple[str, ...] = (),
) -> Matched:
    """Read a data set, as `read_examples` does, and choose its loss: the recipe's, or the one that its columns ask for.

    With `fields` the second texts of rows are documents that have some of these.

    Raises:
        RecordError: it cannot be read, or its columns do not allow the loss; the message says what they would allow.
        TrainingError: scores, labels or margins do not fit the loss.
    """
    if recipe.name is not None:
        loss, why = loss_table.find_loss("contrastive", recipe.name), "as asked for"
        kinds = [kind for kind in KINDS if kind in map(_kind, loss.learns_from)]
        if fields and SIMILARITY not in loss.settings:
            raise cannot_compare(
                f"{source}: loss {loss.name!r}", "compares two texts, and documents here have fields"
            )
        examples = read_examples(
            source, columns=columns, kinds=kinds, purpose=f"loss {loss.name!r}", read=read, fields=fields
        )
    else:
        examples = read_examples(
            source, columns=columns, kinds=FIELD_KINDS if fields else KINDS, read=read, fields=fields
        )
        data = ALIKE if examples.kind == _kind(ALIKE) and examples.alike_or_not else examples.kind
        loss = loss_table.fitting("contrastive", data)[0]
        why = loss.default_for[data]
    check_fit(examples, loss, recipe)
    return Matched(examples, loss, why)


def _kind(data: str) -> str:
    """Return the kind of rows that some data of the table of losses are read as."""
    return "classified" if data == ALIKE else data


def check_fit(examples: Examples, loss: Loss, recipe: LossRecipe) -> None:
    """Refuse rows that a loss cannot learn from, though they have the columns for it.

    Raises:
        TrainingError: it says what is wrong, and which loss would do.
    """
    match loss.takes:
        case "alike" if not examples.alike_or_not:
            some = ", ".join(examples.classes[:4])
            raise TrainingError(
                f"{examples.name}: loss {loss.name!r} needs the labels 0 and 1; there are {len(examples.classes)}: {some}. "
                f"Take {loss.instead}"
            )
        case "unit scores":
            _check_scores(examples, loss, recipe)
        case "margins" if loss.even:
            assert examples.margins is not None
            counts = np.isfinite(examples.margins).sum(axis=1)
            if counts.min() < examples.margins.shape[1]:
                raise TrainingError(
                    f"{examples.name}: rows have {counts.min()} to {examples.margins.shape[1]} negatives; {loss.name} needs as many "
                    f"in every row. Take {loss.instead}"
                )
        case "triplets":
            assert examples.negatives is not None
            has_any = (examples.negatives >= 0).any(axis=1)
            if not has_any.all():
                raise TrainingError(
                    f"{examples.name}: row {int(np.argmin(has_any)) + 1} has no negative; {loss.name} needs one in every row. "
                    f"Take {loss.instead}"
                )


def _check_scores(examples: Examples, loss: Loss, recipe: LossRecipe) -> None:
    assert examples.scores is not None
    scaled = scaled_scores(examples, recipe)
    low, high = recipe.score_range or (-1.0, 1.0)
    wrong = (scaled < (0 if recipe.score_range else -1) - 1e-6) | (scaled > 1 + 1e-6)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TrainingError(
            f"{examples.name}: row {row + 1} has the score {examples.scores[row]:g}; {loss.name} takes scores from {low:g} to {high:g}. "
            f"Say their range, such as --set loss.score_range=[0,5], or take {loss.instead}, which needs their order alone"
        )


def make_data_set(
    rows: Matched,
    recipe: ContrastiveRecipe,
    folder: ModelFolder,
    model: SentenceEncoder | SparseModel,
    *,
    number: int,
    maxsim: MaxSimilarity | None = None,
) -> DataSet:
    """Hold rows out, plan the batches and make what the loss trains besides the encoder; `maxsim` compares texts of a multi-vector model.

    Raises:
        TrainingError: there are too few rows, or vectors of another dimension than the model's.
    """
    examples, loss = rows.examples, rows.loss
    _check_widths(examples, loss, recipe, folder.embedding_size)
    similarity = maxsim or similarity_of(model, recipe)
    check_compares(examples.name, loss, similarity)
    style: Style = "distinct" if loss.takes == "documents" else "plain"
    if examples.kind == "labelled":
        style = "labelled"
    train, held_out = (np.sort(part) for part in split_rows(len(examples), recipe.data.held_out))
    return DataSet(
        examples=examples,
        loss=loss,
        why=rows.why,
        objective=_objective(rows, recipe, folder, model, similarity),
        train=_sampler(
            examples,
            train,
            recipe,
            style=style,
            size=recipe.data.batch_size,
            seed=[recipe.run.seed, number, 5],
        ),
        held_out=_held_out_sampler(examples, held_out, recipe, style),
        num_train=len(train),
        num_held_out=len(held_out),
        fingerprint=examples.fingerprint,
    )


def _check_widths(examples: Examples, loss: Loss, recipe: ContrastiveRecipe, width: int) -> None:
    if examples.vectors is not None and loss.takes == "vectors" and examples.vectors.shape[1] != width:
        raise TrainingError(
            f"{examples.name}: the teacher's vectors have {examples.vectors.shape[1]} dimensions, the model's {width}. "
            "Distil with train distill --dimension, or give the model a dense layer"
        )
    too_wide = [dim for dim in recipe.loss.matryoshka if dim > width]
    if too_wide:
        raise TrainingError(
            f"loss.matryoshka names {too_wide[0]} dimensions; the model's vectors have {width}. Leave it out"
        )


def _sampler(
    examples: Examples,
    rows: Ints,
    recipe: ContrastiveRecipe,
    *,
    style: Style,
    size: int,
    seed: Sequence[int],
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
            return _sampler(examples, rows, recipe, style=style, size=size, seed=[0, 0, 6])
        except TrainingError:
            size //= 2
    return None


def _objective(
    rows: Matched,
    recipe: ContrastiveRecipe,
    folder: ModelFolder,
    model: SentenceEncoder | SparseModel,
    similarity: Similarity | MaxSimilarity | None,
) -> Objective:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        decoder = None
        if rows.loss.takes == "whole texts":
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
            rows.loss,
            recipe.loss,
            embedding_size=folder.embedding_size,
            num_classes=len(rows.examples.classes),
            normalize=folder.modules.similarity != "dot",
            similarity=similarity,
            decoder=decoder,
        )
