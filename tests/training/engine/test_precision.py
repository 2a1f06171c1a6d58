"""What a run computes in: asked for, measured, or kept from its beginning."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from embedkit.errors import DeviceError, TrainingError
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.loop import train
from embedkit.training.engine.precision import (
    BUDGET_SECONDS,
    ChosenPrecision,
    Format,
    choose_precision,
    measure_formats,
    multiplies_bf16,
    settle,
)
from embedkit.training.engine.ranks import alone, prepared
from embedkit.training.engine.recipes import Precision, RunRecipe
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.engine.run_precision import with_precision
from embedkit.training.pretraining.corpus import Corpus
from tests.training.corpora import make_journey, make_recipe

CPU = torch.device("cpu")
FP32_FASTER: Mapping[Format, float] = {"fp32": 0.25, "bf16": 0.5}
BF16_FASTER: Mapping[Format, float] = {"fp32": 0.5, "bf16": 0.25}


def never() -> Mapping[Format, float]:
    raise AssertionError("nothing was to be measured")


def test_automatic_is_what_is_faster_here() -> None:
    chosen = settle("auto", None, native=True, measure=lambda: FP32_FASTER)
    assert chosen == ChosenPrecision("fp32", FP32_FASTER)
    chosen = settle("auto", None, native=True, measure=lambda: BF16_FASTER)
    assert chosen == ChosenPrecision("bf16", BF16_FASTER)
    said = ChosenPrecision("fp32", FP32_FASTER).described()
    assert said.startswith("precision fp32, the faster here (fp32 250.0 ms, bf16 500.0 ms")


def test_where_there_is_nothing_to_choose_nothing_is_measured() -> None:
    assert settle("auto", None, native=False, measure=never) == ChosenPrecision("fp32")
    assert settle("auto", None, native=True, measure=None) == ChosenPrecision("bf16")  # CUDA
    explicit: tuple[Precision, ...] = ("fp32", "bf16")
    for wanted in explicit:
        assert settle(wanted, None, native=True, measure=never).format == wanted


def test_a_resumed_run_keeps_what_it_began_with() -> None:
    for began in (ChosenPrecision("bf16", FP32_FASTER), ChosenPrecision("fp32", BF16_FASTER)):
        assert settle("auto", began, native=True, measure=never) == began
    # Moved to a processor that cannot: the run folder then refuses it for the difference.
    assert settle("auto", ChosenPrecision("bf16"), native=False, measure=never).format == "fp32"


def test_bf16_that_would_be_emulated_is_refused() -> None:
    assert choose_precision(CPU, "fp32").format == "fp32"
    if multiplies_bf16(CPU):
        assert choose_precision(CPU, "bf16").format == "bf16"
    else:
        with pytest.raises(DeviceError, match="device cpu does not compute bf16 natively"):
            choose_precision(CPU, "bf16")


def test_measuring_is_bounded_and_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    started = time.perf_counter()
    found = measure_formats(0.0)  # each format warms up and is measured once
    spent = time.perf_counter() - started
    assert set(found) == {"fp32", "bf16"}
    assert all(0 < seconds <= spent for seconds in found.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert BUDGET_SECONDS < 0.5


def test_the_choice_is_written_to_the_run_and_taken_from_it_again(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = make_recipe("run.precision=auto", "run.steps=4", "run.save_every=2")
    measured = ChosenPrecision("fp32", FP32_FASTER)
    begun = make_journey(corpus, tokenizer, recipe)
    folder = RunFolder(tmp_path / "run")
    ranks = replace(alone(), precision=measured)
    list(islice(train(begun, recipe.run, recipe.optim, folder, ranks=ranks), 3))
    manifest = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
    assert (manifest["precision"], manifest["measured"]) == ("fp32", FP32_FASTER)
    assert with_precision(alone(), recipe.run, folder).precision == measured
    again = make_journey(corpus, tokenizer, recipe)
    list(train(again, recipe.run, recipe.optim, folder, resume=True))
    assert json.loads((folder.path / "run.json").read_text(encoding="utf-8")) == manifest


def test_a_run_in_another_precision_is_not_gone_on_with(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """As when it is moved from a processor that multiplies bf16 to one that does not."""
    recipe = make_recipe("run.precision=auto", "run.steps=2")
    folder = RunFolder(tmp_path / "run")
    ranks = alone(precision="fp32")
    list(train(make_journey(corpus, tokenizer, recipe), recipe.run, recipe.optim, folder, ranks=ranks))
    journey = make_journey(corpus, tokenizer, recipe)
    other = alone(precision="bf16")
    with pytest.raises(TrainingError, match="precision: 'fp32' -> 'bf16'"):
        train(journey, recipe.run, recipe.optim, folder, ranks=other, resume=True)


def test_ranks_compute_nothing_until_it_is_settled() -> None:
    """Not fp32 in silence, whatever the recipe asks for."""
    with pytest.raises(ValueError, match="the precision is not settled; call with_precision first"):
        _ = alone().computes_bf16
    with pytest.raises(ValueError, match="the precision is not settled"):
        prepared(torch.nn.Linear(2, 2), alone(), RunRecipe(steps=1))
    assert not alone(precision="fp32").computes_bf16
    assert alone(precision="bf16").computes_bf16
    settled = with_precision(alone(), RunRecipe(steps=1, precision="fp32"))
    assert settled.precision == ChosenPrecision("fp32")
    assert with_precision(settled, RunRecipe(steps=1)) is settled
