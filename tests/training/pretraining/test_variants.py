"""Variants of the encoder in pretraining: resumed bit for bit, saved and loaded; the penalty on heads that are alike."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import TrainingError
from embedkit.model.attention_form import AttentionForm, diversity_penalty
from embedkit.model.config import EncoderConfig
from embedkit.model.costs import encoder_flops
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.layers import runs_of
from embedkit.recipe import load_recipe, preset_names
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.diversity import attached, watch_aspects, watch_heads
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.recipes import ModelRecipe, PretrainRecipe
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.corpus import Corpus
from embedkit.training.pretraining.mlm import Pretraining, fresh_model
from tests.tiny import tiny_config
from tests.training.corpora import ROUTED, make_journey, make_recipe

VARIANTS: dict[str, tuple[str, ...]] = {
    "rotary": ("model.position=rope",),
    "relative": ("model.position=relative", "model.max_relative_position=4", "head_diversity=0.1"),
    "local": ("model.local_attention=6", "model.global_attn_every_n_layers=2"),
    "additive": ("model.attention=additive",),
    "bilinear": ("model.attention=bilinear", "head_diversity=0.1"),
    "low rank": ("model.attention=low_rank", "model.attention_rank=6", "head_diversity=0.1"),
    "random features": ("model.attention=random_features", "model.attention_features=12"),
}


def weights_of(run: RunFolder) -> dict[str, Tensor]:
    return run.read_state(run.saved_steps()[-1])[1]["weights"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stopped_run_goes_on_to_the_same_bits_and_its_model_is_loaded(
    variant: str, corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = make_recipe("run.steps=4", "run.save_every=2", "run.evaluate_every=3", *VARIANTS[variant])

    def go(name: str, *, resume: bool = False, reports: int | None = None) -> list[object]:
        journey = make_journey(corpus, tokenizer, recipe)
        made = train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / name), resume=resume)
        return list(islice(made, reports))

    whole = go("whole")
    go("stopped", reports=5)  # steps 1 to 3, an evaluation and a state after step 2
    go("stopped", resume=True)
    first, second = (weights_of(RunFolder(tmp_path / name)) for name in ("whole", "stopped"))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
    assert ("head_diversity" in next(r for r in whole if isinstance(r, Step)).values) == (
        recipe.head_diversity > 0
    )
    folder = read_model_folder(tmp_path / "whole")
    assert folder.family == "embedkit"
    texts = ["the cat sees the dog", "the bird", "the horse hears the mouse in the garden by the river"]
    found = Encoder.load(tmp_path / "whole", device="cpu").encode(texts)
    alone_found = np.concatenate([Encoder.load(tmp_path / "whole", device="cpu").encode([t]) for t in texts])
    np.testing.assert_allclose(found, alone_found, rtol=0, atol=5e-6)
    assert np.isfinite(found).all()


def gradients(journey: Pretraining) -> tuple[dict[str, Tensor], dict[str, float]]:
    journey.module.train()
    journey.module.zero_grad()
    shares = journey.backward(journey.module, 0, alone(precision="fp32"))
    found = {n: p.grad.clone() for n, p in journey.module.named_parameters() if p.grad is not None}
    return found, {name: float(value) for name, value in shares.values.items()}


def test_the_penalty_is_that_of_the_formula_and_has_its_gradient(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    """The gradient with it less that without is that of its weight times the mean over layers and tokens."""
    settings = ("model.dropout=0.0", "model.initializer_range=0.2")
    with_it = make_journey(corpus, tokenizer, make_recipe(*settings, "head_diversity=0.5"))
    ours, values = gradients(with_it)
    plain, usual = gradients(make_journey(corpus, tokenizer, make_recipe(*settings)))
    assert values["loss"] == pytest.approx(usual["loss"], abs=1e-5)  # it stays the loss of the task
    journey = make_journey(corpus, tokenizer, make_recipe(*settings))
    encoder, batch = journey.module.encoder, journey.batch(0)
    runs = runs_of(batch.lengths.tolist())
    hidden, biases = encoder.embed(torch.from_numpy(batch.visible), runs, None)
    rows = []
    for number in range(2):
        layer = encoder.layer(number)
        for piece, run, bias in zip(
            torch.split(hidden, [run.stop - run.start for run in runs]), runs, biases[False], strict=True
        ):
            rows.append(
                diversity_penalty(layer.attention.weights(piece, run, bias).transpose(1, 2)).flatten()
            )
        hidden = layer(hidden, runs, biases[False])
    expected = torch.cat(rows).mean()
    assert values["head_diversity"] == pytest.approx(expected.item(), rel=1e-5)
    torch.autograd.backward(0.5 * expected)
    for name, parameter in journey.module.named_parameters():
        more = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours[name] - plain[name], more, rtol=0, atol=2e-5)


@pytest.mark.parametrize("routed", [(), ROUTED["experts"]], ids=["plain", "experts"])
@pytest.mark.parametrize("setting", ["run.accumulate=3", "run.gradient_checkpointing=true"])
def test_the_penalty_is_the_same_in_parts_and_where_layers_are_computed_again(
    setting: str, routed: tuple[str, ...], corpus: Corpus, tokenizer: Tokenizer
) -> None:
    from embedkit.training.engine.ranks import prepared

    settings = ("model.dropout=0.0", "head_diversity=0.5", *routed)
    whole, values = gradients(make_journey(corpus, tokenizer, make_recipe(*settings)))
    recipe = make_recipe(*settings, setting)
    journey = make_journey(corpus, tokenizer, recipe)
    prepared(journey.module, alone(precision="fp32"), recipe.run)
    for _ in range(2):  # what one step leaves behind must not count in the next
        parts, again = gradients(journey)
    assert again["head_diversity"] == pytest.approx(values["head_diversity"], rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-5)


def test_a_penalty_makes_heads_differ(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    last = {}
    for weight in (0.0, 2.0):
        recipe = make_recipe("run.steps=30", "optim.lr=5e-3", f"head_diversity={weight or 1e-9}")
        reports = train(
            make_journey(corpus, tokenizer, recipe),
            recipe.run,
            recipe.optim,
            RunFolder(tmp_path / str(weight)),
        )
        last[weight] = [r.values["head_diversity"] for r in reports if isinstance(r, Step)][-1]
    assert last[2.0] < 0.8 * last[0.0]


def test_what_has_no_weights_or_aspects_is_not_penalized(corpus: Corpus, tokenizer: Tokenizer) -> None:
    recipe = make_recipe(*VARIANTS["random features"], "head_diversity=0.1")
    with pytest.raises(TrainingError, match=r"random-feature attention forms none\. Set it to 0"):
        make_journey(corpus, tokenizer, recipe)
    recipe = make_recipe(*ROUTED["expert choice"], "head_diversity=0.1")
    with pytest.raises(
        TrainingError, match="with recursion by expert_choice some tokens leave out some layers"
    ):
        make_journey(corpus, tokenizer, recipe)
    encoder = TransformerEncoder(tiny_config())
    assert watch_heads(encoder, 0.0) is None
    assert all(part.watched is None for part in encoder.modules() if isinstance(part, AttentionForm))
    assert watch_aspects(None, 0.0, passes=1) is None
    with pytest.raises(
        TrainingError, match=r"there are none\. Set head\.pooling=attention and head\.aspects"
    ):
        watch_aspects(None, 0.1, passes=1)


def test_an_attached_term_takes_its_gradient_along_once() -> None:
    """The gradient of 3·x plus that of the term y²: 3 and 2y."""
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(5.0, requires_grad=True)
    found = attached(3 * x, y.square())
    assert found.tolist() == [3.0, 6.0]
    torch.autograd.backward(found.sum())
    assert x.grad is not None
    assert y.grad is not None
    assert (x.grad.tolist(), y.grad.item()) == ([3.0, 3.0], 10.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_rank": 8}, "attention_rank is 8; nothing reads it without attention 'low_rank'"),
        ({"rope_theta": 1e6}, "nothing reads it without position 'rope'"),
        ({"local_attention": 8, "global_attn_every_n_layers": 1}, "then every layer is global"),
    ],
)
def test_settings_that_nothing_reads_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelRecipe(**settings)  # type: ignore[arg-type] # a test names what it sets


def shipped_variants() -> list[str]:
    return [name for name in preset_names() if name.startswith("mini-")]


@pytest.mark.parametrize("preset", shipped_variants())
def test_a_shipped_variant_differs_from_mini_in_what_it_is_named_for_alone(preset: str) -> None:
    mini = load_recipe(PretrainRecipe, preset="mini", overrides=["run.steps=3"])
    other = load_recipe(PretrainRecipe, preset=preset, overrides=["run.steps=3"])
    assert (other.text, other.optim, other.masking, other.run) == (
        mini.text,
        mini.optim,
        mini.masking,
        mini.run,
    )
    assert other != mini
    assert other.model.dropout == 0.0


COUNTED: dict[str, tuple[dict[str, object], float]] = {
    # A layer of 32 with an inner one of 64 has 32·96 + 32·32 + 2·32·64 = 8,192 weights; two sequences of 4 and 6 tokens, 52 pairs.
    "dot": ({}, 4 * 32 * 52),
    "relative": ({"position": "relative", "max_relative_position": 3}, 4 * 32 * (52 + 7 * 10)),
    "bilinear": ({"attention": "bilinear"}, 4 * 32 * 52 + 2 * 32 * 8 * 10),
    "additive": ({"attention": "additive"}, 6 * 32 * 52),
    "low rank": ({"attention": "low_rank", "attention_rank": 5}, 8 * 32 * 5 * 10),
    "random features": ({"attention": "random_features", "attention_features": 12}, 8 * 32 * 12 * 10),
}


@pytest.mark.parametrize("form", COUNTED)
def test_work_by_hand(form: str) -> None:
    fields, attention = COUNTED[form]
    config: EncoderConfig = tiny_config(**fields)
    found = encoder_flops(config, [4, 6])
    assert found == 2 * (2 * 8192 * 10 + attention)


def test_a_fresh_variant_is_drawn_from_the_seed(tokenizer: Tokenizer) -> None:
    recipe = make_recipe(*VARIANTS["random features"])
    one, two = (fresh_model(recipe, tokenizer)[0].state_dict() for _ in range(2))
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name
