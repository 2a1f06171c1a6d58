"""One table of losses: whatever names or chooses a loss follows from its rows, so that a further row is enough."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from cli.train.reranker import LOSSES
from embedkit.training import loss_table, losses
from embedkit.training.contrastive.objective import BatchRows, Objective
from embedkit.training.contrastive.recipe import LossRecipe
from embedkit.training.distillation.recipe import DistillRecipe
from embedkit.training.engine.recipes import RunRecipe
from embedkit.training.loss import ALIKE, Journey, Loss
from embedkit.training.reranker.list_batches import ListBatch
from embedkit.training.reranker.objective import list_loss
from embedkit.training.reranker.ranked_lists import MEANINGS
from embedkit.training.reranker.recipe import AUTO, RerankerRecipe
from embedkit.training.rows.columns import KINDS
from embedkit.training.rows.reading import read_examples
from tests.conftest import REPOSITORY
from tests.training.contrastive_runs import rows_of, write_rows

# The recipe that has the settings of losses, and what each kind of training calls the data that it learns from.
RECIPES: dict[Journey, type[Any]] = {  # Any: dataclasses of three kinds
    "contrastive": LossRecipe,
    "reranker": RerankerRecipe,
    "distill": DistillRecipe,
}
DATA: dict[Journey, tuple[str, ...]] = {
    "contrastive": (*KINDS, ALIKE),
    "reranker": tuple(MEANINGS),
    "distill": ("texts",),
}
# Keys that shape every loss of their recipe, or choose among them.
OF_ALL_LOSSES = {"name", "matryoshka", "adaptive_layers", "head_diversity", "aspect_diversity"}
# Loss names that mean something else as well, so that they may stand elsewhere in the sources.
COMMON_WORDS = {"contrastive", "softmax", "classes", "cosine", "lambda", "angle", "mse", "triplet"}


def choices(recipe: type[Any], field: str) -> tuple[str, ...]:
    hint = get_type_hints(recipe, include_extras=True)[field]
    wanted = next((part for part in get_args(hint) if hasattr(part, "__metadata__")), hint)
    found: tuple[str, ...] = wanted.__metadata__[0].choices
    return found


def test_a_name_stands_once_for_each_kind_of_training_and_its_function_is_public() -> None:
    for journey in get_args(Journey):
        names = loss_table.names(journey)
        assert len(set(names)) == len(names)
    for loss in loss_table.LOSSES:
        assert (loss.function_name or loss.name) in losses.__all__
        assert loss_table.find_loss(loss.journey, loss.name) is loss
        assert not loss.instead or loss.instead in loss_table.names(loss.journey)


def test_recipes_and_help_know_the_losses_of_the_table() -> None:
    assert choices(LossRecipe, "name") == loss_table.names("contrastive")
    assert choices(RerankerRecipe, "loss") == (*loss_table.names("reranker"), AUTO)
    assert choices(DistillRecipe, "loss") == loss_table.names("distill")
    assert loss_table.names("reranker") == LOSSES


@pytest.mark.parametrize("journey", get_args(Journey))
def test_every_kind_of_data_has_one_default(journey: Journey) -> None:
    found = loss_table.losses_of(journey)
    assert {data for loss in found for data in loss.learns_from} == set(DATA[journey])
    for data in DATA[journey]:
        assert len([loss for loss in found if data in loss.default_for]) == 1
        assert data in loss_table.fitting(journey, data)[0].default_for
    assert all(set(loss.default_for) <= set(loss.learns_from) for loss in found)


@pytest.mark.parametrize("journey", get_args(Journey))
def test_losses_read_settings_that_their_recipe_has(journey: Journey) -> None:
    recipe = RECIPES[journey]
    keys = {field.name for field in fields(recipe)}
    read = {setting.key for loss in loss_table.losses_of(journey) for setting in loss.settings}
    assert read <= keys
    if journey == "contrastive":  # whose table is that of its losses alone
        assert keys - read == OF_ALL_LOSSES
    for loss in loss_table.losses_of(journey):
        assert all(value in keys or hasattr(recipe, value) for value in loss.keywords.values())


def test_a_setting_out_of_its_range_is_refused_by_its_row() -> None:
    with pytest.raises(ValueError, match=r"^delete_ratio is 1; it must be above 0 and below 1$"):
        LossRecipe(delete_ratio=1)
    with pytest.raises(ValueError, match=r"^margin is -0\.5; it must be above 0$"):
        LossRecipe(margin=-0.5)


def spelled(path: Path) -> set[str]:
    """Return the strings of a source file, but for its documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_no_other_file_spells_a_loss() -> None:
    """Otherwise a row would not be enough: that file would have to learn of it."""
    names = {loss.name for loss in loss_table.LOSSES} - COMMON_WORDS
    assert len(names) > 12
    table = REPOSITORY / "embedkit" / "training" / "loss_table.py"
    assert names <= spelled(table)
    others = [*(REPOSITORY / "embedkit").rglob("*.py"), *(REPOSITORY / "cli").rglob("*.py")]
    found = {
        path.relative_to(REPOSITORY).as_posix(): sorted(names & spelled(path))
        for path in others
        if path != table and path.parent.name != "losses"
    }
    assert {path: words for path, words in found.items() if words} == {}


def test_a_further_row_is_computed_at_once(tmp_path: Path) -> None:
    """Of the shape of others, but a loss that no file knows: cosent at another scale, listnet."""
    known = loss_table.find_loss("contrastive", "cosent")
    further = replace(known, name="new", function_name="angle", keywords={}, settings=())
    rows = read_examples(str(write_rows(tmp_path / "rows.jsonl", rows_of("scored", 3))))
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, 8, generator=generator)
    columns = BatchRows(rows, torch.arange(3), torch.arange(3, 6), None)
    assert rows.scores is not None
    wanted = losses.angle(vectors[:3], vectors[3:], torch.from_numpy(rows.scores))
    found = Objective(further, LossRecipe(matryoshka=(4,)), embedding_size=8)(vectors, columns)
    cut = losses.angle(vectors[:3, :4], vectors[3:, :4], torch.from_numpy(rows.scores))
    torch.testing.assert_close(found, wanted + cut)
    lists = Loss(name="new", journey="reranker", function_name="listnet", takes="lists", learns_from=())
    part = ListBatch(
        torch.zeros(1, dtype=torch.long).numpy(), torch.tensor([[1, 2]]).numpy(), torch.eye(2)[:1].numpy()
    )
    logits = torch.tensor([[0.5], [1.5]])
    settings = RerankerRecipe(run=RunRecipe(steps=1))
    torch.testing.assert_close(
        list_loss(logits, part, lists, settings), losses.listnet(logits.T, torch.eye(2)[:1])
    )


def table_of(page: str, header: str) -> list[list[str]]:
    """Return the cells of the rows below a table's header in a page of the manual."""
    lines = (REPOSITORY / "docs" / page).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


# The rows of the manual's tables, in their order.
CONTRASTIVE_ROWS = (
    "pairs",
    "triplets",
    "scored",
    "classified",
    ALIKE,
    "labelled",
    "texts",
    "vectors",
    "distilled",
)
RERANKER_ROWS = ("binary", None, "graded", None, "teacher", "class")  # None: rows about single pairs


def test_the_manual_has_the_losses_of_the_table() -> None:
    rows = table_of("contrastive.md", "| rows | columns")
    assert len(rows) == len(CONTRASTIVE_ROWS)
    for data, row in zip(CONTRASTIVE_ROWS, rows, strict=True):
        named = [re.findall(r"`(\w+)`", cell) for cell in row[2:]]
        first, *others = (loss.name for loss in loss_table.fitting("contrastive", data))
        assert (named[0], sorted(named[1])) == ([first], sorted(others)), row[0]
    rows = table_of("reranking.md", "| row | losses")
    for meaning, row in zip(RERANKER_ROWS, rows, strict=True):
        if meaning is not None:
            listed = re.sub(r" \([^)]*\)", "", row[1]).split(", ")
            assert listed == [loss.name for loss in loss_table.fitting("reranker", meaning)], row[0]
