from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.static import without_template
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, RecipeError, TrainingError
from embedkit.model.feed_forward import FeedForward
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.recipe import load_recipe
from embedkit.training.distillation.comparison import TextEncoder, compare_models
from embedkit.training.distillation.ffn_pruning import contributions, strongest
from embedkit.training.distillation.recipe import DistillRecipe
from embedkit.training.distillation.student import make_student, principal_axes
from embedkit.training.distillation.student_folder import aligning_axes, load_student, turned
from embedkit.training.distillation.teacher import Filled, TeacherCache
from embedkit.training.distillation.training import Distillation, taught_texts
from embedkit.training.distillation.vocabulary_pruning import count_tokens, prune_vocabulary
from embedkit.training.engine.evaluation_sets import find_overlaps, load_evaluation_sets
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Evaluated, Step
from embedkit.training.engine.run_folder import RunFolder
from tests.tiny import ROUTED_SHAPES, tiny_config, tiny_tokenizer, write_tiny_model
from tests.training.contrastive_runs import rows_of, write_rows

Floats = NDArray[np.float32]
TEXTS = [row["text"] for row in rows_of("texts", 80)]
BASE = (
    "run.steps=6",
    "run.precision=fp32",
    "run.evaluate_every=3",
    "run.save_every=2",
    "data.batch_size=8",
    "data.max_length=32",
    "data.micro_tokens=64",
    "data.held_out=0.1",
    "optim.warmup_steps=0",
    "optim.lr=3e-3",
    "optim.schedule=constant",
)


def make_journey(
    teacher: Path, cache: Path, *overrides: str, texts: Sequence[str] = TEXTS
) -> tuple[Distillation, DistillRecipe]:
    recipe = load_recipe(DistillRecipe, overrides=(*BASE, *overrides))
    encoder = Encoder.load(teacher, device="cpu", max_seq_length=recipe.data.max_length)
    store = TeacherCache(cache, {"teacher": "tiny"}, encoder.dimension)
    embed = embed_with(encoder)
    list(store.fill(texts, embed))
    taught = taught_texts(store, texts, recipe.student.dimension)
    student = make_student(
        recipe.student,
        encoder.folder,
        texts,
        axes=taught.axes,
        max_length=32,
        seed=recipe.run.seed,
        embed=embed,
    )
    return Distillation(student, taught, recipe, teacher={"teacher": "tiny"}), recipe


def embed_with(encoder: Encoder) -> Callable[[Sequence[str]], Floats]:
    return lambda texts: encoder.encode(texts, on_truncate="ok")


SHAPE = "student.model.hidden_size=16,student.model.num_hidden_layers=1,student.model.num_attention_heads=2,student.model.intermediate_size=32,student.model.max_position_embeddings=32"


@pytest.mark.parametrize(
    "overrides",
    [
        ("student.layers=[1]",),
        ("student.layers=[0]", "student.dimension=8", "student.prune_below=1"),
        ("loss=mse", *SHAPE.split(",")),
        ("student.kind=static", "student.dimension=8"),
        ("student.layers=[1]", "similarity_weight=0.5"),
        ("student.model.experts.num_experts=2", "student.model.experts.every_n_layers=1", *SHAPE.split(",")),
    ],
)
def test_a_student_comes_nearer_to_its_teacher_and_its_folder_gives_the_same_vectors(
    tiny_model: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    journey, recipe = make_journey(
        tiny_model, tmp_path / "cache", "run.steps=12", "run.evaluate_every=6", "optim.lr=1e-2", *overrides
    )
    with torch.no_grad():
        before = journey.evaluate(journey.module, alone(precision="fp32")).values["loss"]
    reports = list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    losses = [report.values["loss"] for report in reports if isinstance(report, Evaluated)]
    assert losses[-1] < 0.8 * before
    student = Encoder.load(tmp_path / "run", device="cpu")
    wanted = journey.embed(journey.module, TEXTS[:5], alone(precision="fp32"))
    np.testing.assert_allclose(student.encode(TEXTS[:5]), wanted, atol=1e-6)


def test_a_student_of_all_layers_starts_as_the_teacher(tiny_model: Path, tmp_path: Path) -> None:
    """Copied whole, its cosine to the teacher is 1; cut to 8 axes, too, for the targets are cut alike."""
    for extra in ((), ("student.dimension=8",), ("student.prune_below=1",)):
        journey, _ = make_journey(tiny_model, tmp_path / "cache", "student.layers=[0,1]", *extra)
        # Texts are cut to 32 tokens here: the positions behind are left out.
        assert isinstance(journey.module.model, SentenceEncoder)
        assert journey.module.model.encoder.config.max_tokens == 32
        with torch.no_grad():
            assert journey.evaluate(journey.module, alone(precision="fp32")).values[
                "cosine"
            ] == pytest.approx(1, abs=1e-5)


def test_units_that_add_nothing_can_go_without_loss(tiny_model: Path, tmp_path: Path) -> None:
    """With 5 of 8 output columns zero, the 3 others are kept, wherever they stand, and the student starts as its teacher."""
    folder = read_model_folder(tiny_model)
    model = load_sentence_encoder(folder)
    size = folder.config.intermediate_size
    kept = {0: [1, 4, size - 1], 1: [0, 2, 3]}
    with torch.no_grad():
        for number, units in kept.items():
            mlp = model.encoder.layer(number).mlp
            assert isinstance(mlp, FeedForward)
            weight = mlp.down.weight
            weight[:, [unit for unit in range(size) if unit not in units]] = 0
    teacher = tmp_path / "teacher"
    write_model(teacher, model, folder.tokenizer, folder.modules, family=folder.family)
    journey, _ = make_journey(
        teacher, tmp_path / "cache", "student.layers=[0,1]", "student.intermediate_size=3"
    )
    assert journey.described == f"layers 0, 1 of 2, 3 of {size} inner units"
    with torch.no_grad():
        assert journey.evaluate(journey.module, alone(precision="fp32")).values["cosine"] == pytest.approx(
            1, abs=1e-5
        )
    measured = contributions(model, folder.tokenizer, TEXTS, [0, 1])
    assert [strongest(each, 3).tolist() for each in measured] == [kept[0], kept[1]]


@pytest.mark.parametrize("weight", [0, 1])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    tiny_model: Path, tmp_path: Path, weight: int
) -> None:
    gradients = []
    for tokens in (16, 4096):
        journey, _ = make_journey(
            tiny_model,
            tmp_path / "cache",
            "student.layers=[1]",
            f"data.micro_tokens={tokens}",
            f"similarity_weight={weight}",
        )
        journey.module.train()
        shares = journey.backward(journey.module, 0, alone(precision="fp32"))
        gradients.append(
            {name: p.grad for name, p in journey.module.named_parameters() if p.grad is not None}
        )
        assert shares.tokens == 8 * 2 + sum(len(ids) for ids in _ids(journey))
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "routed",
    [
        ("experts.num_experts=4", "experts.every_n_layers=1", "experts.capacity_factor=1.0"),
        ("recursion.routing=expert_choice", "num_hidden_layers=5"),
        ("recursion.routing=token_choice", "num_hidden_layers=5"),
    ],
)
def test_micro_batches_of_a_student_that_routes_tokens_give_the_gradient_of_the_whole_batch(
    routed: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    """The balance of experts is that of the whole batch; without dropout the same tokens go the same ways."""
    shape = (*SHAPE.split(","), "student.model.dropout=0.0", *(f"student.model.{each}" for each in routed))
    heavy = ("routing.balance_weight=2", "routing.z_weight=1", "routing.selection_weight=2")
    gradients, losses = [], []
    for tokens in (32, 4096):
        journey, _ = make_journey(
            tiny_model, tmp_path / "cache", *shape, *heavy, f"data.micro_tokens={tokens}"
        )
        journey.module.train()
        shares = journey.backward(journey.module, 0, alone(precision="fp32"))
        found = {name: float(value) for name, value in shares.values.items()}
        passes = 4 if tokens == 32 else 3  # several parts are counted first
        losses.append(found | {"tokens": shares.tokens, "work of a pass": shares.flops / passes})
        gradients.append(
            {name: p.grad for name, p in journey.module.named_parameters() if p.grad is not None}
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert any("router" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def _ids(journey: Distillation) -> list[list[int]]:
    return tiny_tokenizer().ids([TEXTS[number] for number in journey.batch(0)])


def test_a_student_that_goes_on_is_turned_to_the_principal_axes_of_another_teacher(
    tiny_model: Path, tmp_path: Path
) -> None:
    """The teacher is the student's own model, turned: the turn is found, and nothing is left to learn."""
    encoder = Encoder.load(tiny_model, device="cpu", max_seq_length=32)
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0].astype(np.float32)
    store = TeacherCache(tmp_path, {"teacher": "turned"}, 32)
    list(store.fill(TEXTS, lambda texts: embed_with(encoder)(texts) @ axes.T))
    taught = taught_texts(store, TEXTS, 16, kinds=["even", "odd"] * 40)
    whole = load_student(tiny_model, max_length=32, dropout=0.0)
    student = turned(whole, taught.turn_of(embed_with(encoder)))
    recipe = load_recipe(
        DistillRecipe, overrides=(*BASE, f"student.folder={tiny_model}", "student.dimension=16")
    )
    journey = Distillation(student, taught, recipe, teacher={})
    with torch.no_grad():
        values = journey.evaluate(journey.module, alone(precision="fp32")).values
    assert values["cosine"] == pytest.approx(1, abs=1e-5)
    assert values["cosine of even"] == pytest.approx(1, abs=1e-5)
    assert values["cosine of odd"] == pytest.approx(1, abs=1e-5)
    write_model(tmp_path / "m", student.model, student.tokenizer, student.modules, family=student.family)
    expected = taught.targets(np.arange(5))
    found = Encoder.load(tmp_path / "m", device="cpu").encode(TEXTS[:5])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)


def test_resume_ends_with_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    settings = ("student.layers=[1]", "student.dropout=0.1")
    weights = []
    for name, crash in (("whole", False), ("crashed", True)):
        journey, recipe = make_journey(tiny_model, tmp_path / "cache", *settings)
        folder = RunFolder(tmp_path / name)
        reports = train(journey, recipe.run, recipe.optim, folder)
        if crash:
            list(islice(reports, 5))
            journey, recipe = make_journey(tiny_model, tmp_path / "cache", *settings)
            reports = train(journey, recipe.run, recipe.optim, folder, resume=True)
        steps = [report.step for report in reports if isinstance(report, Step)]
        weights.append(load_file(folder.states / "00000006" / "weights.safetensors"))
    assert steps == [3, 4, 5, 6]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


def test_every_text_comes_once_an_epoch_and_held_out_ones_never(tiny_model: Path, tmp_path: Path) -> None:
    journey, _ = make_journey(tiny_model, tmp_path / "cache", "student.layers=[1]")
    seen = np.concatenate([journey.batch(step) for step in range(9)])
    assert len(journey.held_out) == 8
    assert sorted(seen.tolist()) == sorted(journey.train_texts.tolist())
    assert not set(journey.held_out.tolist()) & set(seen.tolist())


def test_the_cache_encodes_each_text_once_and_survives_a_kill(tmp_path: Path) -> None:
    calls: list[Sequence[str]] = []

    def embed(texts: Sequence[str]) -> Floats:
        calls.append(texts)
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)

    cache = TeacherCache(tmp_path, {"a": 1}, 2)
    assert list(cache.fill(["x", "yy", "x"], embed)) == [Filled(0, 2), Filled(2, 2)]
    # Half a row at the end of each file: what a kill may leave.
    for name in ("keys.bin", "vectors.f32"):
        with (cache.folder / name).open("ab") as stream:
            stream.write(b"123")
    again = TeacherCache(tmp_path, {"a": 1}, 2)
    assert list(again.fill(["yy", "zzz", "x"], embed)) == [Filled(2, 3), Filled(3, 3)]
    assert calls == [["x", "yy"], ["zzz"]]
    np.testing.assert_array_equal(again.vectors()[again.rows(["zzz", "x", "yy"])], [[3, 1], [1, 1], [2, 1]])
    assert len(TeacherCache(tmp_path, {"a": 2}, 2)) == 0  # another teacher


def test_the_cache_says_how_far_it_is_before_it_is_done(tmp_path: Path) -> None:
    """On a slow machine a teacher takes minutes over a thousand texts."""
    cache = TeacherCache(tmp_path, {"a": 1}, 2)
    texts = [str(number) for number in range(1200)]
    reports = list(cache.fill(texts, lambda some: np.ones((len(some), 2), np.float32)))
    assert [report.done for report in reports] == [0, 512, 1024, 1200]


def test_a_cache_that_does_not_fit_and_vectors_that_cannot_be_are_refused(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path, {"a": 1}, 2)
    with pytest.raises(
        TrainingError, match=r"says \{'format': 1, 'dimension': 2\}; this teacher needs .*'dimension': 3"
    ):
        TeacherCache(tmp_path, {"a": 1}, 3)
    with pytest.raises(
        TrainingError, match=r"gave vectors of shape \(1, 3\) for 1 texts; its cache holds 2 dimensions"
    ):
        list(cache.fill(["x"], lambda texts: np.ones((len(texts), 3), np.float32)))
    with pytest.raises(TrainingError, match="the teacher's vector of 'x' holds NaN or infinity; 1 of 1 do"):
        list(cache.fill(["x"], lambda texts: np.full((len(texts), 2), np.nan, np.float32)))
    assert len(cache) == 0


def test_principal_axes_of_a_worked_example() -> None:
    """Points on the line through (3, 4): the first axis is (0.6, 0.8), whatever its sign."""
    axes = principal_axes(np.array([[3, 4], [-6, -8], [1.5, 2]], np.float32), 1)
    np.testing.assert_allclose(np.abs(axes), [[0.6, 0.8]], atol=1e-6)
    with pytest.raises(
        TrainingError,
        match=r"student.dimension is 3; the teacher's vectors have 2 dimensions, so choose from 1 to 2",
    ):
        principal_axes(np.ones((5, 2), np.float32), 3)
    with pytest.raises(TrainingError, match=r"student.dimension is 2; 1 texts span at most as many axes"):
        principal_axes(np.ones((1, 2), np.float32), 2)


def test_a_pruned_tokenizer_gives_the_same_tokens_and_never_more_unknown_ones() -> None:
    whole = tiny_tokenizer()
    texts = ["the dog plays in the water", "a Xylophone!"]
    pruned = prune_vocabulary(whole, texts)
    small = pruned.tokenizer
    assert small.vocab_size == len(pruned.kept) < whole.vocab_size
    for text in texts:
        ours = [small.backend.id_to_token(i) for i in small.encode([text]).input_ids]
        assert ours == [whole.backend.id_to_token(i) for i in whole.encode([text]).input_ids]
    np.testing.assert_array_equal(pruned.kept[small.encode(texts).input_ids], whole.encode(texts).input_ids)
    # A word that was left out falls apart into letters.
    pieces = [small.backend.id_to_token(i) for i in small.ids(["guitar"])[0]]
    assert pieces == ["g", "##u", "##i", "##t", "##a", "##r"]
    assert small.special_id("pad") == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("experts", "the teacher has 4 experts in every n-th layer, which some layers of it would not have"),
        ("expert choice", r"the teacher's layers share their weights \(ALBERT, recursion\)"),
    ],
)
def test_layers_of_a_teacher_that_are_not_its_own_are_refused(
    shape: str, message: str, tmp_path: Path
) -> None:
    teacher = write_tiny_model(tmp_path / "teacher", config=tiny_config(**ROUTED_SHAPES[shape]))
    with pytest.raises(TrainingError, match=message):
        make_journey(teacher, tmp_path / "cache", "student.layers=[0]")
    journey, _ = make_journey(teacher, tmp_path / "cache", *SHAPE.split(","))  # a fresh student is fine
    assert journey.described == "fresh, 1 layers of 16"


def test_wrong_layers_and_lengths_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    shape = SHAPE.replace("max_position_embeddings=32", "max_position_embeddings=16")
    with pytest.raises(
        TrainingError, match=r"student.layers names layer 2; the teacher has 2 layers, numbered from 0 to 1"
    ):
        make_journey(tiny_model, tmp_path / "cache", "student.layers=[0,2]")
    with pytest.raises(
        TrainingError, match=r"data.max_length is 32; the student's positions end at 16 tokens"
    ):
        make_journey(tiny_model, tmp_path / "cache", *shape.split(","))
    with pytest.raises(
        TrainingError,
        match=r"student.intermediate_size is 4096; the teacher's feed-forward layers have \d+ units",
    ):
        make_journey(tiny_model, tmp_path / "cache", "student.layers=[1]", "student.intermediate_size=4096")
    with pytest.raises(RecipeError, match=r"intermediate_size is 8; .* goes with layers of the teacher"):
        make_journey(tiny_model, tmp_path / "cache", "student.intermediate_size=8")
    with pytest.raises(TrainingError, match="2 texts, of which 2 are held out, leave none to train on"):
        make_journey(tiny_model, tmp_path / "cache", "student.layers=[1]", texts=TEXTS[:2])


def test_a_static_vector_is_the_mean_of_its_tokens() -> None:
    """Tokens (1, 0) and (0, 1): their mean is (½, ½), normalized (√½, √½); a text without tokens stays at zero."""
    model = StaticEncoder(2, 2, normalize=False)
    with torch.no_grad():
        model.tokens.weight.copy_(torch.eye(2))
    ids = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        model.forward_packed(ids, [2, 0, 1]), torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.0, 1.0]])
    )
    model.normalize = True
    torch.testing.assert_close(model.forward_packed(ids[:2], [2]), torch.full((1, 2), 0.5**0.5))
    with pytest.raises(ValueError, match="lengths add up to 2; input_ids has 3 tokens"):
        model.forward_packed(ids, [2])
    with pytest.raises(ValueError, match="skip is 1; a static encoder takes the mean of all tokens"):
        model.forward_packed(ids, [3], skip=1)


def test_a_fresh_static_table_has_the_teachers_vectors_longer_for_rarer_tokens(
    tiny_model: Path, tmp_path: Path
) -> None:
    journey, _ = make_journey(tiny_model, tmp_path / "cache", "student.kind=static")
    table = journey._student.model.state_dict()["tokens.weight"].numpy()
    tokenizer = without_template(Encoder.load(tiny_model, device="cpu").folder.tokenizer)
    counts = count_tokens(tokenizer, TEXTS)
    lengths = np.linalg.norm(table, axis=1)
    order = np.argsort(-counts, kind="stable")
    assert (np.diff(lengths[order]) > 0).all()
    number = int(order[0])
    name = tokenizer.backend.decode([number])
    own = embed_with(Encoder.load(tiny_model, device="cpu"))([name])[0]
    np.testing.assert_allclose(table[number] / lengths[number], own, atol=1e-5)


@pytest.fixture
def static_model(tiny_model: Path, tmp_path: Path) -> Path:
    journey, recipe = make_journey(tiny_model, tmp_path / "cache", "student.kind=static", "run.steps=2")
    list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "static")))
    return tmp_path / "static"


def test_a_static_folder_is_read_strictly(static_model: Path) -> None:
    folder = read_model_folder(static_model)
    assert folder.static
    assert folder.embedding_size == 32
    assert without_template(folder.tokenizer).ids(["the dog"]) == folder.tokenizer.ids(["the dog"])
    with pytest.raises(
        CheckpointError, match="this is a static model, a table of token vectors without layers"
    ):
        load_sentence_encoder(folder)
    (static_model / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read as safetensors"):
        read_model_folder(static_model)
    modules = (static_model / "modules.json").read_text(encoding="utf-8")
    (static_model / "modules.json").write_text(modules.replace("Normalize", "Dense"), encoding="utf-8")
    with pytest.raises(
        CheckpointError,
        match="the modules are StaticEmbedding, Dense; a static model has StaticEmbedding, then",
    ):
        read_model_folder(static_model)


class _Turned:
    """An encoder whose vectors are another's, turned to some axes."""

    def __init__(self, encoder: Encoder, axes: Floats) -> None:
        self._encoder, self._axes = encoder, axes

    def role_prompt(self, role: Literal["query", "document"]) -> str | None:
        return self._encoder.role_prompt(role)

    def encode(self, texts: Sequence[str], *, prompt: str | None, on_truncate: Literal["ok"]) -> Floats:
        return self._encoder.encode(texts, prompt=prompt, on_truncate=on_truncate) @ self._axes.T


def test_student_and_teacher_are_compared(tiny_model: Path, static_model: Path, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "dev.jsonl", rows_of("scored", 20))
    sets = load_evaluation_sets([str(pairs)])
    models = {
        name: Encoder.load(path, device="cpu")
        for name, path in (("teacher", tiny_model), ("student", static_model))
    }
    rows = compare_models(models, {"teacher": tiny_model, "student": static_model}, TEXTS[:20], sets)
    named = {row.measure: row for row in rows}
    assert -1 < named["cosine to the teacher, held-out texts"].student < 1
    assert named[f"{tmp_path.name}/dev spearman"].teacher == sets[0].measure(
        lambda texts, role: models["teacher"].encode(texts)
    )
    assert named["weights, MB"].student == (static_model / "model.safetensors").stat().st_size / 1e6
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(models["teacher"].dimension,) * 2))[0].astype(
        np.float32
    )
    same: dict[str, TextEncoder] = {
        "teacher": models["teacher"],
        "student": _Turned(models["teacher"], turned),
    }
    (likeness, *_) = compare_models(
        same, {"teacher": tiny_model, "student": tiny_model}, TEXTS[:20], [], axes=turned
    )
    assert likeness.student == pytest.approx(1, abs=1e-5)
    assert replace(rows[0], teacher=0.5, student=0.25).cells()[1:] == ("0.5000", "0.2500", "50.0%")
    assert replace(rows[0], teacher=0.0, student=0.25).cells()[1:] == ("0.0000", "0.2500", "-")


def test_texts_that_training_and_evaluation_share_are_counted(tmp_path: Path) -> None:
    """Case and spacing do not matter."""
    pairs = [
        {"sentence1": "A dog.", "sentence2": "a cat", "score": 1},
        {"sentence1": "new", "sentence2": "old", "score": 2},
    ]
    sets = load_evaluation_sets([str(write_rows(tmp_path / "dev.jsonl", pairs))])
    (found,) = find_overlaps(sets, ["a  DOG.", "nothing", "Old"])
    assert (found.shared, found.total, found.example) == (2, 4, "A dog.")
    assert "2 of its 4 texts (50.0%) are in the training data too, such as 'A dog.'" in found.warning()
    assert find_overlaps(sets, ["nothing"]) == []


def test_a_student_of_before_goes_on_from_where_it_stood(tiny_model: Path, tmp_path: Path) -> None:
    made, _ = make_journey(tiny_model, tmp_path / "cache", "student.layers=[0]", "student.dimension=8")
    made.save(RunFolder(tmp_path / "first"))
    before = Encoder.load(tmp_path / "first", device="cpu", max_seq_length=32)
    student = load_student(tmp_path / "first", max_length=32, dropout=0.25)
    assert student.modules.max_seq_length == 32
    store = TeacherCache(tmp_path / "cache", {"teacher": "tiny"}, 32)
    taught = taught_texts(store, TEXTS, None, student=embed_with(before))
    assert taught.axes is not None
    assert taught.axes.shape == (8, 32)
    np.testing.assert_allclose(taught.axes @ taught.axes.T, np.eye(8), atol=1e-5)
    going_on = load_recipe(DistillRecipe, overrides=(*BASE, 'student.folder="first"'))
    journey = Distillation(student, taught, going_on, teacher={"teacher": "tiny"})
    # The first step's vectors are the old student's, but for dropout, which is off when it is measured.
    ours = journey.embed(journey.module, TEXTS[:5], alone(precision="fp32"))
    np.testing.assert_allclose(ours, embed_with(before)(TEXTS[:5]), atol=1e-5)
    assert student.model.training
    # The turn fits this student at least as well as the axes that it began with.
    old = float(made.evaluate(made.module, alone(precision="fp32")).values["cosine"])
    assert float(journey.evaluate(journey.module, alone(precision="fp32")).values["cosine"]) >= old - 1e-3
    with pytest.raises(TrainingError, match=r"max_length is 99; .* positions end at \d+ tokens"):
        load_student(tmp_path / "first", max_length=99, dropout=0.0)


def test_the_turn_to_a_student_is_found_and_left_out_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((400, 6)).astype(np.float32)
    any_turn = np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    for turn in (any_turn, principal_axes(teacher, 4)):
        found = aligning_axes(teacher @ turn.T, teacher)
        assert found is not None
        np.testing.assert_allclose(found, turn, atol=1e-4)
    noisy = teacher + 0.1 * rng.standard_normal((400, 6)).astype(np.float32)
    assert aligning_axes(noisy, teacher) is None
    with pytest.raises(TrainingError, match="the student gives vectors of 7 dimensions, the teacher of 6"):
        aligning_axes(np.zeros((9, 7), np.float32), teacher[:9])
    with pytest.raises(TrainingError, match="3 texts are too few to align vectors of 6 dimensions"):
        aligning_axes(teacher[:3], teacher[:3])


def test_a_student_of_before_brings_its_own_shape() -> None:
    with pytest.raises(
        RecipeError, match="that student has its shape, so only dropout and dimension can be set"
    ):
        load_recipe(DistillRecipe, overrides=(*BASE, 'student.folder="runs/a"', "student.layers=[0]"))
