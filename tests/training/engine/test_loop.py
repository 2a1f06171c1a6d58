from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import Tensor, nn

from embedkit.errors import OutputError, TrainingError
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import Ranks, alone
from embedkit.training.engine.recipes import OptimRecipe, PretrainRecipe, RunRecipe
from embedkit.training.engine.reporting import Evaluated, Report, Resumed, Saved, Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.corpus import Corpus
from tests.conftest import DEVICES
from tests.training.corpora import ROUTED, make_journey, make_recipe


def start(
    corpus: Corpus,
    tokenizer: Tokenizer,
    recipe: PretrainRecipe,
    output: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
) -> tuple[Iterator[Report], nn.Module]:
    journey = make_journey(corpus, tokenizer, recipe)
    run = RunFolder(output)
    reports = train(journey, recipe.run, recipe.optim, run, ranks=alone(device), resume=resume)
    return reports, journey.module


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("run.ema_decay=0.9", "run.accumulate=2", "masking.next_sentence=next"),
        (*ROUTED["experts"], "run.accumulate=2", "model.experts.noisy=true"),
        ROUTED["expert choice"],
        ROUTED["token choice"],
    ],
)
def test_resume_after_a_crash_equals_an_uninterrupted_run_bit_for_bit(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    """Dropout is on. The crash comes in step 3, the last state is of step 2."""
    recipe = make_recipe("run.steps=5", "run.save_every=2", "run.evaluate_every=2", *extra)
    assert recipe.model.dropout > 0
    whole, module = start(corpus, tokenizer, recipe, tmp_path / "whole")
    reports = list(whole)
    crashed, _ = start(corpus, tokenizer, recipe, tmp_path / "crashed")
    for report in crashed:
        if report.step == 3:
            break
    torch.rand(3)  # what others draw in between must not matter
    resumed, other = start(corpus, tokenizer, recipe, tmp_path / "crashed", resume=True)
    again = list(resumed)
    assert again[0] == Resumed(2)
    assert_same(weights_of(module), weights_of(other))
    losses = {r.step: r.loss for r in reports if isinstance(r, Step)}
    assert [(r.step, r.loss) for r in again if isinstance(r, Step)] == [(s, losses[s]) for s in range(3, 6)]
    # The log of the run that crashed is that of the one that did not, but for the times.
    logs = []
    for name in ("whole", "crashed"):
        lines = RunFolder(tmp_path / name).log_path.read_text(encoding="utf-8").splitlines()
        logs.append([{**json.loads(line), "seconds": 0, "path": ""} for line in lines])
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "fp32"),
        pytest.param("cuda", "fp32", marks=pytest.mark.gpu),
        pytest.param("cuda", "bf16", marks=pytest.mark.gpu),
    ],
)
def test_a_resumed_run_has_the_dropout_of_an_uninterrupted_one_on_every_device(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, device: str, precision: str
) -> None:
    """Some kernels of a GPU add up in any order, which other dropout would exceed a thousandfold."""
    recipe = make_recipe(
        f"run.precision={precision}", "optim.eps=10.0", "optim.lr=0.5"
    )  # in proportion to gradients
    whole, _ = start(corpus, tokenizer, recipe, tmp_path / "whole", device=device)
    losses = [report.loss for report in whole if isinstance(report, Step)]
    crashed, _ = start(corpus, tokenizer, recipe, tmp_path / "crashed", device=device)
    assert len(list(islice(crashed, 8))) == 8  # six steps, an evaluation and a state
    resumed, _ = start(corpus, tokenizer, recipe, tmp_path / "crashed", resume=True, device=device)
    again = [report.loss for report in resumed if isinstance(report, Step)]
    assert again == pytest.approx(losses[4:], rel=1e-5 if precision == "fp32" else 2e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_finds_the_losses_of_the_cpu(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, device: str
) -> None:
    recipe = make_recipe("run.steps=4", "model.dropout=0.0", "masking.next_sentence=next")
    losses = []
    for number, name in enumerate(("cpu", device)):
        reports, _ = start(corpus, tokenizer, recipe, tmp_path / str(number), device=name)
        losses.append([report.loss for report in reports if isinstance(report, Step)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_run_killed_before_its_first_state_starts_over_when_resumed(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = make_recipe()
    crashed, _ = start(corpus, tokenizer, recipe, tmp_path / "run")
    list(islice(crashed, 2))
    resumed, _ = start(corpus, tokenizer, recipe, tmp_path / "run", resume=True)
    assert next(resumed) == Resumed(0)


def test_a_wish_to_stop_saves_the_state_of_the_step_at_hand(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = make_recipe()
    journey, stop = make_journey(corpus, tokenizer, recipe), Event()
    last: Report | None = None
    for report in train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run"), stop=stop):
        last = report
        if report.step == 2:
            stop.set()
    assert isinstance(last, Saved)
    assert (last.step, last.finished) == (3, False)
    assert RunFolder(tmp_path / "run").saved_steps() == [3]


def test_the_held_out_loss_falls(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = make_recipe("run.steps=60", "run.evaluate_every=20", "model.dropout=0.0", "optim.lr=5e-3")
    reports, _ = start(corpus, tokenizer, recipe, tmp_path / "run")
    measured = [report for report in reports if isinstance(report, Evaluated)]
    losses = [report.values["loss"] for report in measured]
    assert losses[-1] < losses[0] < math.log(80)
    assert measured[-1].best


class Diverging:
    """A journey of one weight whose loss is NaN from its third step on, and whose held-out loss rises."""

    def __init__(self, nan_from: int = 2) -> None:
        self._nan_from = nan_from
        self._evaluations = 0
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.module.weight)
        self.saved: list[float] = []

    def manifest(self) -> dict[str, object]:
        return {"recipe": {"name": "diverging"}, "data": {}}

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        loss = self.module.weight.sum() * (math.nan if step >= self._nan_from else 1.0)
        torch.autograd.backward(loss)
        return Shares({"loss": loss}, tokens=1)

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        self._evaluations += 1
        return HeldOut({"loss": float(self._evaluations)}, float(self._evaluations))

    def save(self, folder: RunFolder) -> None:
        self.saved.append(self.module.weight.item())


def test_a_loss_that_is_not_finite_stops_the_run_before_it_touches_a_weight(tmp_path: Path) -> None:
    journey = Diverging()
    run = RunRecipe(steps=9, save_every=2, precision="fp32")
    reports = train(journey, run, OptimRecipe(lr=0.25, warmup_steps=5), RunFolder(tmp_path / "run"))
    with pytest.raises(
        TrainingError, match=r"step 3: the loss is nan and the gradient's length nan at learning rate 0\.15"
    ):
        list(reports)
    position, groups = RunFolder(tmp_path / "run").read_state(2)
    assert position.step == 2
    assert torch.isfinite(groups["weights"]["weight"]).all()
    assert torch.equal(groups["weights"]["weight"], journey.module.weight.detach())


def test_the_weights_written_in_the_end_are_the_best_ones(tmp_path: Path) -> None:
    """The held-out loss rises at every evaluation, so the weights after step 1 are the best."""
    journey = Diverging(nan_from=99)
    run = RunRecipe(steps=3, evaluate_every=1, precision="fp32")
    after_first = None
    for report in train(journey, run, OptimRecipe(lr=0.1, warmup_steps=0), RunFolder(tmp_path / "run")):
        if isinstance(report, Step) and report.step == 1:
            after_first = journey.module.weight.item()
    assert journey.saved == [after_first]


def test_a_changed_recipe_is_refused_at_resume_and_the_difference_shown(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    list(start(corpus, tokenizer, make_recipe("run.steps=4"), tmp_path / "run")[0])
    changed = make_recipe("run.steps=4", "optim.lr=1e-3", "text.batch_tokens=512")
    with pytest.raises(TrainingError) as error:
        start(corpus, tokenizer, changed, tmp_path / "run", resume=True)
    assert "recipe.optim.lr: 0.002 -> 0.001" in str(error.value)
    assert "recipe.text.batch_tokens: 256 -> 512" in str(error.value)
    # How many states are kept changes no weight.
    start(corpus, tokenizer, make_recipe("run.steps=4", "run.keep_last=1"), tmp_path / "run", resume=True)


def test_a_used_output_folder_and_a_missing_run_are_refused(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"there is no run to resume \(no training/run\.json\)"):
        start(corpus, tokenizer, make_recipe(), tmp_path / "none", resume=True)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(OutputError, match=r"already exists and is not empty\. Choose another --output"):
        start(corpus, tokenizer, make_recipe(), tmp_path / "used")


def test_too_little_disk_is_found_out_before_the_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(
        OutputError, match=r"MB are free there; the checkpoints of this run take 10,000,000,000,000 MB"
    ):
        folder.check({}, resume=False, bytes_needed=10**19)
    assert not folder.output.exists()
