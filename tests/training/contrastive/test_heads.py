"""Heads and similarities that contrastive training puts on an encoder: trained, resumed, saved, loaded, refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import TrainingError
from embedkit.model.layers import EncoderLayer
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.similarity import LearnedSimilarity
from embedkit.recipe import load_recipe
from embedkit.training import losses
from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
from embedkit.training.contrastive.head import with_head
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.contrastive.training import Contrastive, ContrastiveModule
from embedkit.training.engine.evaluation_sets import EvaluationSet
from embedkit.training.engine.loop import seeded, train
from embedkit.training.engine.micro_batches import forward
from embedkit.training.engine.optim import learning_rate, make_optimizer
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from tests.training.contrastive.test_training import AFTER_THREE_STEPS, assert_close, last_weights
from tests.training.contrastive_runs import make_recipe, rows_of, write_rows

STRUCTURED = ("head.pooling=attention", "head.aspects=3", "head.size=6", "head.combine=project")
DIVERSE = (*STRUCTURED, "loss.aspect_diversity=0.3", "loss.head_diversity=0.2")
TEXTS = ["the girl plays the guitar", "a dog", "he reads and writes words in the old house"]


def prepared(model: Path, recipe: ContrastiveRecipe) -> tuple[ModelFolder, SentenceEncoder]:
    folder = read_model_folder(model)
    return with_head(folder, load_sentence_encoder(folder), recipe)


def make_journey(
    model: Path, rows: Path, recipe: ContrastiveRecipe, *, evaluation: Sequence[EvaluationSet] = ()
) -> Contrastive:
    folder, encoder = prepared(model, recipe)
    made = make_data_set(read_data_set(str(rows), {}, recipe.loss), recipe, folder, encoder, number=0)
    return Contrastive(folder, encoder, [made], recipe, origin="test", evaluation=evaluation)


def go(
    model: Path,
    rows: Path,
    output: Path,
    *settings: str,
    reports: int | None = None,
    resume: bool = False,
) -> list[Step]:
    recipe = make_recipe(*settings)
    run = train(make_journey(model, rows, recipe), recipe.run, recipe.optim, RunFolder(output), resume=resume)
    return [report for report in islice(run, reports) if isinstance(report, Step)]


@pytest.mark.parametrize(
    "settings",
    [
        STRUCTURED,
        DIVERSE,
        ("head.layer_start=0", "head.pooling=max"),
        ("loss.similarity=bilinear",),
        ("loss.similarity=additive", "head.size=8"),
    ],
    ids=["structured", "diverse", "layers", "bilinear", "additive"],
)
def test_a_stopped_run_goes_on_to_the_same_bits_and_the_folder_gives_the_same_vectors(
    tiny_model: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    steps = go(tiny_model, rows, tmp_path / "whole", "run.steps=4", *settings)
    go(tiny_model, rows, tmp_path / "stopped", "run.steps=4", *settings, reports=5)
    go(tiny_model, rows, tmp_path / "stopped", "run.steps=4", *settings, resume=True)
    assert_close(last_weights(tmp_path / "whole"), last_weights(tmp_path / "stopped"), 0.0)
    assert all(np.isfinite(step.loss) for step in steps)
    assert ("aspect_diversity" in steps[0].values) == ("loss.aspect_diversity=0.3" in settings)
    folder = read_model_folder(tmp_path / "whole")
    model = load_sentence_encoder(folder)
    best = RunFolder(tmp_path / "whole").read_best()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, best["encoder.model." + name]), name
    batch = folder.tokenizer.encode(TEXTS)
    with torch.inference_mode():
        expected = model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist()).numpy()
    found = Encoder.load(tmp_path / "whole", device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_cached_gradients_take_the_penalties_along_with_dropout_on(tiny_model: Path, tmp_path: Path) -> None:
    """One graph of all parts, their losses and penalties as the formulas say, does what the run does part by part."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    settings = (*DIVERSE, "data.micro_tokens=64")
    steps = go(tiny_model, rows, tmp_path / "run", *settings)
    recipe = make_recipe(*settings)
    journey = make_journey(tiny_model, rows, recipe)
    optimizer = make_optimizer(journey.module, recipe.optim)
    journey.module.train()
    for step in range(recipe.run.steps):
        optimizer.zero_grad()
        each, entries = journey.entries(step)
        with seeded(recipe.run.seed, step, alone(precision="fp32")):
            parts, order, _ = journey._parts(entries, alone(precision="fp32"))
            assert len(parts) > 1
            vectors, heads, aspects = [], [], []
            for part in parts:
                for penalty in journey._penalties.values():
                    assert penalty is not None
                    penalty.clear()
                vectors.append(forward(journey.module, part.tokens, alone(precision="fp32")))
                found = [p for p in journey._penalties.values() if p is not None]
                heads.append(found[0].take(int(part.tokens.lengths.sum())))
                aspects.append(found[1].take(len(part.tokens)))
            loss = journey._whole_loss(each, entries, torch.cat(vectors), order, alone(precision="fp32"))
            tokens = sum(int(part.tokens.lengths.sum()) for part in parts)
            head = torch.stack(heads).sum() / tokens
            aspect = torch.stack(aspects).sum() / len(entries.texts)
            torch.autograd.backward(loss + 0.2 * head + 0.3 * aspect)
        assert steps[step].values["head_diversity"] == pytest.approx(head.item(), rel=1e-4)
        assert steps[step].values["aspect_diversity"] == pytest.approx(aspect.item(), rel=1e-4)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.run.steps, recipe.optim)
        optimizer.step()
    full = {name: tensor.detach() for name, tensor in journey.module.state_dict().items()}
    assert_close(full, last_weights(tmp_path / "run"), AFTER_THREE_STEPS)


def test_penalties_do_not_see_what_only_fills_up(tiny_model: Path, tmp_path: Path) -> None:
    """Texts of 64 tokens in all need no filling; with a seventh of them the same penalty per text comes out."""
    recipe = make_recipe(*DIVERSE)
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    journey = make_journey(tiny_model, rows, recipe)
    heads, aspects = journey._penalties.values()
    assert heads is not None
    assert aspects is not None
    model = journey._model.train()
    for layer in model.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        layer.dropout = layer.attention.dropout = 0.0
    model.encoder.embeddings.dropout = 0.0
    batch = journey._tokenizer.encode(TEXTS)
    assert batch.lengths.sum() % 64
    assert isinstance(journey.module, ContrastiveModule)
    journey.module.encoder(torch.from_numpy(batch.input_ids), batch.lengths.tolist())
    filled = heads.take(int(batch.lengths.sum())), aspects.take(3)
    model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist())
    for ours, theirs in zip(filled, (heads.take(10**6), aspects.take(10**6)), strict=True):
        torch.testing.assert_close(ours, theirs)


ABLE = [
    ("pairs", "info_nce", ("loss.symmetric=true",)),
    ("triplets", "info_nce", ("loss.false_negatives=margin",)),
    ("triplets", "triplet", ()),
    ("scored", "cosent", ()),
    ("texts", "simcse", ()),
    ("distilled", "margin_mse", ()),
    ("distilled", "kl_distillation", ()),
]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "scaled", "bilinear", "additive"])
@pytest.mark.parametrize(("kind", "loss", "extra"), ABLE)
def test_losses_learn_by_every_similarity(
    tiny_model: Path, tmp_path: Path, similarity: str, kind: str, loss: str, extra: tuple[str, ...]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of(kind, 20))
    recipe = make_recipe(f"loss.name={loss}", f"loss.similarity={similarity}", "head.size=8", *extra)
    journey = make_journey(tiny_model, rows, recipe)
    journey.module.train()
    shares = journey.backward(journey.module, 0, alone(precision="fp32"))
    assert np.isfinite(float(shares.values["loss"]))
    learned = journey._model.similarity
    assert (learned is not None) == (similarity in ("bilinear", "additive"))
    if learned is not None:
        for name, weight in learned.named_parameters():
            assert weight.grad is not None, name
            if loss != "triplet" or similarity == "bilinear":  # whose hinge may be at rest
                assert weight.grad.isfinite().all(), name
    saved = journey._folder.modules
    assert saved.similarity == ("dot" if similarity in ("dot", "scaled") else "cosine")


def test_the_losses_by_a_similarity_by_hand() -> None:
    """Products of (1, 0), (0, 2) with themselves, halved: ½ and 2 on the diagonal, 0 beside it."""
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0]])

    def halved(first: Tensor, second: Tensor) -> Tensor:
        return first @ second.mT / 2

    def pairs(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum(-1) / 2

    found = losses.info_nce(vectors, vectors, temperature=1.0, similarity=halved)
    expected = (np.log(1 + np.exp(-0.5)) + np.log(1 + np.exp(-2.0))) / 2
    assert found.item() == pytest.approx(expected)
    # cosent: the pair of the lower score has ½, the other 2, at a scale of 1
    found = losses.cosent(vectors, vectors, torch.tensor([0.0, 1.0]), scale=1.0, similarity=pairs)
    assert found.item() == pytest.approx(np.log(1 + np.exp(0.5 - 2)))
    # triplet: anchors with themselves, and with the other: 0 - ½ + 1 and 0 - 2 + 1, of which nothing is left
    found = losses.triplet(vectors, vectors, vectors.flip(0), margin=1.0, similarity=pairs)
    assert found.item() == pytest.approx(0.25)


def test_cosine_by_name_is_what_losses_do_by_themselves(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    by_name = go(tiny_model, rows, tmp_path / "named", "loss.similarity=cosine")
    by_itself = go(tiny_model, rows, tmp_path / "unnamed")
    np.testing.assert_allclose([s.loss for s in by_name], [s.loss for s in by_itself], rtol=1e-6)


def test_a_model_with_a_head_is_trained_further_with_it(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    settings = (*STRUCTURED, "loss.similarity=bilinear", "head.layer_start=1")
    go(tiny_model, rows, tmp_path / "first", "run.steps=1", *settings)
    before = load_sentence_encoder(read_model_folder(tmp_path / "first")).state_dict()
    for again in (settings, ()):
        _, model = prepared(tmp_path / "first", make_recipe(*again))
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, before[name]), name
    folder, model = prepared(tmp_path / "first", make_recipe("loss.similarity=dot"))
    assert model.similarity is None
    assert folder.modules.similarity == "dot"
    with pytest.raises(
        TrainingError, match="the head pools to 32 dimensions, and the model's next layer takes 96"
    ):
        prepared(tmp_path / "first", make_recipe("head.pooling=mean"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("head.layer_start=3",), "head.layer_start is 3; the encoder has 2 layers"),
        (
            ("head.layer_start=0", "loss.adaptive_layers=true"),
            "this head takes a mean of layers. Leave one of",
        ),
        (
            ("loss.similarity=bilinear", "loss.matryoshka=[8]"),
            "a bilinear similarity compares all dimensions",
        ),
        (
            ("loss.aspect_diversity=0.1",),
            "makes the aspects of a pooling by attention differ, and there are none",
        ),
        (
            ("loss.aspect_diversity=0.1", "head.pooling=attention"),
            "makes the aspects of a pooling by attention differ, and there are none",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    settings: tuple[str, ...], message: str, tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs", 20))
    with pytest.raises(TrainingError, match=message):
        make_journey(tiny_model, rows, make_recipe(*settings))


def test_a_loss_that_compares_by_cosine_alone_is_refused_with_those_that_do_not(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("alike", 20))
    message = (
        "rows.jsonl: loss 'online_contrastive' compares by cosine, and the model's similarity is dot. "
        "Take a loss that compares by any: info_nce, triplet, cosent, simcse, margin_mse, kl_distillation"
    )
    with pytest.raises(TrainingError, match=message):
        make_journey(tiny_model, rows, make_recipe("loss.similarity=dot"))
    # This one compares nothing: a classifier reads both vectors.
    make_journey(tiny_model, rows, make_recipe("loss.similarity=dot", "loss.name=pair_classification"))


def test_concatenated_aspects_do_not_fit_a_dense_layer_that_is_there(tmp_path: Path) -> None:
    from embedkit.model.config import DenseConfig, SentenceConfig
    from tests.tiny import write_tiny_model

    sentence = SentenceConfig(dense=(DenseConfig(in_features=32, out_features=8),))
    model = write_tiny_model(tmp_path / "model", sentence=sentence)
    with pytest.raises(
        TrainingError, match="the head pools to 96 dimensions, and the model's next layer takes 32"
    ):
        prepared(model, make_recipe("head.pooling=attention", "head.aspects=3", "head.combine=concat"))
    _, made = prepared(model, make_recipe(*STRUCTURED))
    before = load_sentence_encoder(read_model_folder(model))
    assert [each.out_features for each in made.config.dense] == [32, 8]
    assert torch.equal(made.dense[1][0].weight, before.dense[0][0].weight)  # type: ignore[index] # a sequence


def test_evaluation_turns_queries_by_a_bilinear_similarity_and_refuses_an_additive_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs", 20))
    retrieval = EvaluationSet(
        name="few",
        files=(),
        queries={"q": TEXTS[0]},
        documents={str(n): text for n, text in enumerate(TEXTS)},
        qrels={"q": {"1": 1}},
    )
    scored = EvaluationSet(
        name="pairs", files=(), pairs=[(TEXTS[0], TEXTS[1], 1.0), (TEXTS[1], TEXTS[2], 0.0)]
    )
    recipe = make_recipe("loss.similarity=bilinear")
    journey = make_journey(tiny_model, rows, recipe, evaluation=[retrieval, scored])
    learned = journey._model.similarity
    assert isinstance(learned, LearnedSimilarity)
    torch.nn.init.normal_(learned.weight)
    plain, search = (
        journey.embedder(journey.module, alone(precision="fp32"), search=flag) for flag in (False, True)
    )
    vectors = plain(TEXTS, "query")
    np.testing.assert_allclose(search(TEXTS, "query"), vectors @ learned.weight.detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(search(TEXTS, "document"), plain(TEXTS, "document"))
    scores = learned(torch.from_numpy(vectors[:1]), torch.from_numpy(plain(TEXTS, "document"))).detach()[0]
    rank = int((scores > scores[1]).sum())
    found = retrieval.measure(search)
    assert found == pytest.approx(1 / np.log2(2 + rank))
    with pytest.raises(TrainingError, match="additive, which is no product of two vectors"):
        make_journey(tiny_model, rows, make_recipe("loss.similarity=additive"), evaluation=[scored])


def test_the_shipped_head_is_laid_over_the_usual_recipe() -> None:
    recipe = load_recipe(
        ContrastiveRecipe, preset="contrastive", path="structured", overrides=["run.steps=1"]
    )
    assert (recipe.head.pooling, recipe.head.aspects, recipe.optim.lr) == ("attention", 4, 5e-5)
    assert recipe.loss.aspect_diversity > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "head.aspects=3",
            "aspects 3 and combine 'mean' are of pooling 'attention', and pooling is none. Set",
        ),
        ("head.pooling=attend", "head.pooling is 'attend'; it must be one of mean, cls, .*attention"),
        (
            "loss.similarity=euclid",
            "loss.similarity is 'euclid'; it must be one of cosine, dot, scaled, bilinear",
        ),
        ("loss.head_diversity=-1", "head_diversity is -1.0; it must be at least 0"),
    ],
)
def test_recipes_say_what_is_wrong(setting: str, message: str) -> None:
    from embedkit.errors import RecipeError

    with pytest.raises(RecipeError, match=message):
        make_recipe(setting)


@pytest.mark.slow
def test_two_ranks_with_penalties_and_a_learned_similarity_equal_one(tmp_path: Path) -> None:
    """Odd numbers of texts, cached parts; each rank holds other texts, and all of them the same similarity."""
    from tests.tiny import tiny_config, write_tiny_model
    from tests.training.contrastive.test_training import work

    still = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = write_tiny_model(tmp_path / "model", config=still)
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("triplets"))
    settings = (*DIVERSE, "loss.similarity=bilinear", "data.micro_tokens=64", "data.batch_size=7")
    go(model, rows, tmp_path / "alone", *settings)
    assert work(tmp_path, *settings, ranks=2) == 0
    assert_close(last_weights(tmp_path / "alone"), last_weights(tmp_path / "run"), AFTER_THREE_STEPS)
