"""Training text generators: they learn, batches depend on the step alone, parts add up, a resumed run ends with the same bits."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from embedkit.checkpoint.generation import read_generator_folder
from embedkit.errors import CheckpointError, RecipeError, TrainingError
from embedkit.generation.generator import Generator
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.estimate import estimate
from embedkit.training.engine.loop import train
from embedkit.training.engine.precision import ChosenPrecision
from embedkit.training.engine.ranks import alone, prepared
from embedkit.training.engine.reporting import Evaluated, Report, Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.generation.language_model import LanguageModelTraining, cut_windows, window_targets
from embedkit.training.generation.start import start_afresh, start_from_folder, start_language_model
from embedkit.training.generation.training import GenerationTraining
from embedkit.training.pretraining.corpus import Corpus
from tests.tiny import tiny_config, write_static_model, write_tiny_model
from tests.tiny_generator import write_tiny_generator
from tests.training import generation_runs
from tests.training.corpora import make_corpus
from tests.training.generation_runs import (
    Kind,
    lm_recipe,
    make_run,
    pair_rows,
    pairs_recipe,
    write_rows,
)
from tests.training.processes import exit_code

KINDS: tuple[Kind, ...] = ("pairs", "lm")
# Sums over two ranks are taken in another order than over one; Adam scales such differences up where a gradient is nearly zero.
ACROSS_RANKS = 2e-5


@pytest.fixture
def folder(texts: Path, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """What a run of either kind needs."""
    write_tiny_model(tmp_path / "model")
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    shutil.copy(texts, tmp_path / "texts.jsonl")
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    make_corpus(tmp_path / "cache", tmp_path / "texts.jsonl", Tokenizer.load(tmp_path / "tokenizer"))
    return tmp_path


def run_all(kind: Kind, folder: Path, name: str, *settings: str, resume: bool = False) -> Iterator[Report]:
    recipe = pairs_recipe(*settings) if kind == "pairs" else lm_recipe(*settings)
    return train(
        make_run(kind, folder, list(settings)),
        recipe.run,
        recipe.optim,
        RunFolder(folder / name),
        resume=resume,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_and_ends_with_a_model_that_generates(kind: Kind, folder: Path) -> None:
    settings = ("run.steps=60", "run.evaluate_every=30", "optim.lr=1e-2")
    reports = list(run_all(kind, folder, "run", *settings))
    steps = [report.loss for report in reports if isinstance(report, Step)]
    assert np.mean(steps[-5:]) < 0.7 * np.mean(steps[:5])
    first, last = (report for report in reports if isinstance(report, Evaluated))
    assert last.values["loss"] < first.values["loss"]
    assert last.values["perplexity"] == pytest.approx(math.exp(last.values["loss"]))
    model = Generator.load(folder / "run", device="cpu")
    assert model.is_language_model == (kind == "lm")
    (outputs,) = model.generate(["the dog sings in the water"], model.options()).outputs
    assert outputs[0].text
    if kind == "pairs":  # every target begins with one of two words
        assert outputs[0].text.split()[0] in ("who", "which")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_with_the_same_bits(kind: Kind, folder: Path) -> None:
    """Dropout is on; the run is stopped after its third step, of which the second is saved."""
    settings = ("run.steps=6", "run.ema_decay=0.5")
    list(run_all(kind, folder, "whole", *settings))
    stopped = list(islice(run_all(kind, folder, "broken", *settings), 5))
    assert sum(isinstance(report, Step) for report in stopped) == 3
    list(run_all(kind, folder, "broken", *settings, resume=True))
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        whole, broken = ((folder / run / name).read_bytes() for run in ("whole", "broken"))
        assert whole == broken, name


@pytest.mark.parametrize("kind", KINDS)
def test_another_recipe_or_data_is_not_resumed(kind: Kind, folder: Path) -> None:
    list(islice(run_all(kind, folder, "run"), 3))
    with pytest.raises(TrainingError, match=r"recipe\.label_smoothing: "):
        run_all(kind, folder, "run", "label_smoothing=0.3", resume=True)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_add_up_to_the_whole(kind: Kind, folder: Path) -> None:
    gradients = []
    for parts in (1, 3):
        settings = [f"run.accumulate={parts}"]
        journey = make_run(kind, folder, settings, parts=parts)
        shares = journey.backward(
            journey.module.eval(), 1, alone(precision="fp32")
        )  # evaluation mode: no dropout
        flat = torch.cat([p.grad.flatten() for p in journey.module.parameters() if p.grad is not None])
        numbers = {name: float(value) for name, value in shares.values.items()}
        gradients.append((numbers, shares.tokens, flat))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    assert gradients[0][1] == gradients[1][1]
    torch.testing.assert_close(gradients[0][2], gradients[1][2], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_layers_changes_no_gradient(kind: Kind, folder: Path) -> None:
    """Dropout is on: what is computed again draws the same numbers."""
    gradients = []
    for setting in ("false", "true"):
        settings = [f"run.gradient_checkpointing={setting}"]
        recipe = pairs_recipe(*settings) if kind == "pairs" else lm_recipe(*settings)
        journey = make_run(kind, folder, settings)
        module = prepared(journey.module, alone(precision="fp32"), recipe.run)
        module.train()
        torch.manual_seed(1)
        journey.backward(module, 0, alone(precision="fp32"))
        gradients.append({name: p.grad for name, p in journey.module.named_parameters()})
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        if gradient is None or other is None:  # a table that is looked up by no id of this batch
            assert gradient is other, name
        else:
            assert torch.equal(gradient, other), name
    assert sum(gradient is not None for gradient in gradients[0].values()) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_gives_nearly_the_same_loss_and_gradients(kind: Kind, folder: Path) -> None:
    """bf16 has 8 bits: sums of dozens of products are off by a hundredth at most."""
    found = []
    for precision in ("fp32", "bf16"):
        journey = make_run(kind, folder, [])
        ranks = replace(alone(), precision=ChosenPrecision(precision))
        shares = journey.backward(journey.module.eval(), 0, ranks)
        flat = torch.cat([p.grad.flatten() for p in journey.module.parameters() if p.grad is not None])
        found.append((float(shares.values["loss"]), flat))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.02)
    assert torch.nn.functional.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.99


def last_weights(run: Path) -> dict[str, Tensor]:
    state = RunFolder(run).states / f"{RunFolder(run).saved_steps()[-1]:08d}"
    return load_file(state / "weights.safetensors")


def work(kind: Kind, folder: Path, *settings: str, ranks: int = 1) -> int:
    return exit_code(generation_runs.main, kind, folder, [*settings], ranks=ranks)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_equal_one_with_the_same_whole_batch(kind: Kind, strategy: str, folder: Path) -> None:
    """Each rank takes half of the batch; two parts a rank, so that gradients are exchanged after the second only."""
    settings = ("run.accumulate=2", "decoder.dropout=0.0")
    (folder / "model").rename(folder / "old")
    no_dropout = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    write_tiny_model(folder / "model", config=no_dropout)
    list(run_all(kind, folder, "alone", *settings))
    assert work(kind, folder, *settings, f"run.strategy={strategy}", ranks=2) == 0
    wanted, found = last_weights(folder / "alone"), last_weights(folder / "run")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=ACROSS_RANKS, rtol=0, msg=name)
    assert read_generator_folder(folder / "run").generation["max_new_tokens"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(kind: Kind, folder: Path) -> None:
    settings = ("run.steps=16",)
    list(run_all(kind, folder, "alone", *settings))
    rng = random.Random(0)
    codes = [work(kind, folder, *settings, f"kill={rng.uniform(0, 0.1):.3f}") for _ in range(3)]
    assert -9 in codes
    assert work(kind, folder, *settings) == 0
    wanted, found = last_weights(folder / "alone"), last_weights(folder / "run")
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


def test_an_epoch_takes_every_source_once_and_targets_in_turn(folder: Path) -> None:
    journey = make_run("pairs", folder, ["batch_sources=4", "targets_per_source=1"])
    assert isinstance(journey, GenerationTraining)
    assert len(journey.train) == 32
    seen = [chosen for step in range(8) for chosen in journey.chosen(step)]
    assert sorted(source for source, _ in seen) == sorted(journey.train.sources)
    assert all(len(targets) == 1 for _, targets in seen)
    assert journey.chosen(5) == journey.chosen(5)
    taken = {target for step in range(80) for _, targets in journey.chosen(step) for target in targets}
    assert taken == {target for own in journey.train.targets for target in own}


def test_a_batch_is_its_sources_longest_first_with_their_targets_in_step(folder: Path) -> None:
    journey = make_run("pairs", folder, [])
    assert isinstance(journey, GenerationTraining)
    batch = journey.make_batch([("a dog", ["who"]), ("the dog runs in the water", ["which", "who runs"])])
    tokenizer = Tokenizer.load(folder / "model")
    assert batch.sources.lengths.tolist() == [8, 4]
    assert batch.counts.tolist() == [2, 1]
    said = [[*ids, 3] for ids in tokenizer.ids(["which", "who runs", "who"])]
    assert batch.targets.said.tolist() == [token for own in said for token in own]
    assert batch.num_tokens == 12 + len(batch.targets.said)


def test_windows_of_documents_say_every_token_and_their_ends_once(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    documents = np.arange(len(corpus.documents) - 1)
    windows = cut_windows(corpus, documents, 10)
    start, end = tokenizer.special_id("cls"), tokenizer.special_id("sep")
    assert int(windows.pieces.lengths.max()) == 10
    assert int(windows.pieces.lengths.sum()) == len(corpus.tokens) + len(documents)
    said: list[int] = []
    for row in range(len(windows.pieces)):
        found = window_targets(corpus, windows, np.array([row]), tokenizer)
        before = said[-1] if said and said[-1] != end else start
        assert found.shown.tolist() == [before, *found.said[:-1].tolist()]
        said += found.said.tolist()
    wanted: list[int] = []
    for first, stop in zip(corpus.document_starts[:-1], corpus.document_starts[1:], strict=True):
        wanted += [*corpus.tokens[first:stop].tolist(), end]
    assert said == wanted


def test_an_epoch_of_texts_takes_every_window_once(folder: Path) -> None:
    journey = make_run("lm", folder, ["run.steps=400"])
    assert isinstance(journey, LanguageModelTraining)
    seen: list[int] = []
    step = 0
    while len(set(seen)) == len(seen):
        seen += journey.rows(step).tolist()
        step += 1
    count = len(set(seen))
    assert count >= len(journey._windows.pieces) - len(journey.rows(step - 1))


def test_a_frozen_encoder_stays_as_it_is(folder: Path) -> None:
    settings = ("freeze_encoder=true", "run.steps=3", "decoder.share_embeddings=false")
    before = start_from_folder(folder / "model", pairs_recipe(*settings)).model.state_dict()
    list(run_all("pairs", folder, "run", *settings))
    after = load_file(folder / "run" / "model.safetensors")
    encoder = [name for name in after if name.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(after[name], before[name]) for name in encoder)
    assert not torch.equal(after["decoder.tokens.weight"], before["decoder.tokens.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_a_finished_model(kind: Kind, folder: Path) -> None:
    list(run_all(kind, folder, "run", "stored=int8"))
    assert (
        load_file(folder / "run" / "model.safetensors")["decoder.layers.0.mlp.up.weight"].dtype == torch.int8
    )
    if kind == "pairs":
        start = start_from_folder(folder / "run", pairs_recipe())
    else:
        start = start_language_model(lm_recipe(), path=folder / "run")
    assert start.fresh == ()
    assert len(start.origin) == 64


def test_a_fresh_encoder_and_decoder_learn_from_a_tokenizer_alone(folder: Path) -> None:
    sizes = ("encoder.hidden_size=32", "encoder.num_hidden_layers=1", "encoder.num_attention_heads=2")
    recipe = pairs_recipe(*sizes, "encoder.intermediate_size=32", "encoder.max_position_embeddings=40")
    start = start_afresh(Tokenizer.load(folder / "tokenizer"), recipe)
    assert start.fresh == ("encoder", "decoder")
    assert start.tokenizer.max_length == 40
    again = start_afresh(Tokenizer.load(folder / "tokenizer"), recipe)
    for name, tensor in start.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_measures_and_leaves_the_weights(kind: Kind, folder: Path) -> None:
    recipe = pairs_recipe() if kind == "pairs" else lm_recipe()
    journey = make_run(kind, folder, [])
    before = {name: tensor.clone() for name, tensor in journey.module.state_dict().items()}
    found = estimate(journey, recipe.run, recipe.optim, ranks=alone(), measured_steps=2)
    assert found.tokens_per_step > 20
    assert found.parameters > 10_000
    assert found.share_of_peak > 0
    for name, tensor in journey.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_flops_of_a_batch_are_those_of_its_products(folder: Path) -> None:
    """Counted by torch over one forward pass, attention's scores and all; ours leave out what padding and filling up cost."""
    from torch.utils.flop_counter import FlopCounterMode

    journey = make_run("pairs", folder, ["targets_per_source=1"])
    assert isinstance(journey, GenerationTraining)
    batch = journey.make_batch([("the dog runs in the red water", ["who runs in the water"])] * 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        journey._forward(journey.module.eval(), batch, alone(precision="fp32"))
    assert journey._flops(batch) == pytest.approx(counter.get_total_flops(), rel=0.15)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["batch_sources=2", "run.accumulate=3"], TrainingError, "batch_sources is 2 for 3 parts"),
        (["max_source_tokens=65"], TrainingError, "max_source_tokens is 65; the encoder's position table ends at 64"),
        (["max_target_tokens=33"], TrainingError, "max_target_tokens is 33; the decoder's position table ends at 32"),
        (["generation.max_new_tokens=33"], TrainingError, r"generation\.max_new_tokens is 33; the decoder's position table ends at 32"),
        (["decoder.hidden_size=16"], TrainingError, r"the decoder shares the encoder's token table, which is \(207, 32\)"),
        (["decoder.num_attention_heads=3"], TrainingError, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        (["label_smoothing=1.0"], RecipeError, r"label_smoothing is 1\.0; it must be at least 0 and below 1"),
        (["generation.num_outputs=9"], RecipeError, "generation: num_outputs is 9 of 4 beams"),
        (["stored=int4"], RecipeError, "stored is 'int4'; it must be one of fp32, fp16, int8"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_told(
    settings: list[str], error: type[Exception], message: str, folder: Path
) -> None:
    parts = 3 if "run.accumulate=3" in settings else 1
    with pytest.raises(error, match=message):
        make_run("pairs", folder, settings, parts=parts)


def test_starts_from_the_wrong_kind_of_model_are_told(folder: Path, tmp_path: Path) -> None:
    language_model = write_tiny_generator(tmp_path / "lm", encoder_size=None)
    pairs = write_tiny_generator(tmp_path / "pairs")
    static = write_static_model(tmp_path / "static")
    with pytest.raises(CheckpointError, match=r"a language model, which reads no source\. .*train lm"):
        start_from_folder(language_model, pairs_recipe())
    with pytest.raises(
        CheckpointError, match=r"an encoder–decoder, which learns from pairs\. .*train generation"
    ):
        start_language_model(lm_recipe(), path=pairs)
    with pytest.raises(CheckpointError, match="this is no text generator"):
        start_language_model(lm_recipe(), path=folder / "model")
    with pytest.raises(TrainingError, match="a static model is a table of token vectors without order"):
        start_from_folder(static, pairs_recipe())
    with pytest.raises(TrainingError, match="sequence_length is 41; the model's position table ends at 40"):
        start_language_model(lm_recipe("sequence_length=41"), path=language_model)
    with pytest.raises(RecipeError, match=r"decoder\.hidden_size is none"):
        lm_recipe("decoder.hidden_size=none")


def test_what_is_cut_and_what_is_unknown_is_said(folder: Path) -> None:
    rows: list[dict[str, object]] = pair_rows()
    rows.append({"passage": "dog " * 80, "query": ["who " * 20, "東京 日本 東京 日本"]})
    write_rows(folder / "pairs.jsonl", rows)
    journey = make_run("pairs", folder, ["held_out=0.02"])
    assert isinstance(journey, GenerationTraining)
    assert len(journey.train) == 40
    assert list(journey.warnings()) == [
        "1 of 40 sources are longer than 62 tokens and are cut (set max_source_tokens)",
        "1 of 60 targets are longer than 15 tokens and are cut (set max_target_tokens)",
        "2.5% of the tokens of the targets are unknown to the vocabulary",
    ]
