"""Training with an expert for each field of documents: losses, resuming, the folder it makes, what is refused."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import EmbedkitError, RecordError, TrainingError
from embedkit.model.field_experts import FieldExperts
from embedkit.training.contrastive.training import Contrastive
from embedkit.training.engine.loop import train
from embedkit.training.engine.micro_batches import forward
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from tests.tiny import tiny_config, write_tiny_model
from tests.training.contrastive.test_training import AFTER_THREE_STEPS, assert_close, last_weights, work
from tests.training.contrastive_runs import make_journey, make_recipe, rows_of, sentence, write_rows

FIELDS = 'head.fields=["title","text"]'
Row = dict[str, Any]  # Any: JSON values


def with_fields(rows: list[Row], *, seed: int = 3) -> list[Row]:
    """Make documents of the second texts: some with a title, some with a title alone, some without."""
    rng = random.Random(seed)

    def document(text: str) -> Row:
        title = sentence(rng)
        return [{"title": title, "text": text}, {"text": text, "title": ""}, {"title": text}][
            rng.randrange(3)
        ]

    found = []
    for row in rows:
        new = dict(row)
        for name in ("positive", "sentence2"):
            if name in row:
                new[name] = document(row[name])
        if "negatives" in row:
            new["negatives"] = [document(text) for text in row["negatives"]]
        found.append(new)
    return found


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", with_fields(rows_of("triplets")))


def journey_of(model: Path, rows: Path, *settings: str, **more: Any) -> Contrastive:
    return make_journey(model, [rows], make_recipe(*settings), **more)


def go(
    model: Path, rows: Path, output: Path, *settings: str, reports: int | None = None, resume: bool = False
) -> list[Step]:
    recipe = make_recipe(*settings)
    run = train(
        journey_of(model, rows, *settings), recipe.run, recipe.optim, RunFolder(output), resume=resume
    )
    return [report for report in islice(run, reports) if isinstance(report, Step)]


def experts_of(journey: Contrastive) -> FieldExperts:
    experts = journey._model.similarity
    assert isinstance(experts, FieldExperts)
    return experts


def test_a_stopped_run_goes_on_to_the_same_bits_and_the_folder_compares_as_it_was_trained(
    tiny_model: Path, tmp_path: Path, pairs: Path
) -> None:
    settings = ("run.steps=4", FIELDS, "data.micro_tokens=64")
    steps = go(tiny_model, pairs, tmp_path / "whole", *settings)
    go(tiny_model, pairs, tmp_path / "stopped", *settings, reports=5)
    go(tiny_model, pairs, tmp_path / "stopped", *settings, resume=True)
    assert_close(last_weights(tmp_path / "whole"), last_weights(tmp_path / "stopped"), 0.0)
    assert all(np.isfinite(step.loss) for step in steps)
    folder = read_model_folder(tmp_path / "whole")
    model = load_sentence_encoder(folder)
    experts = model.similarity
    assert isinstance(experts, FieldExperts)
    assert experts.config.fields == ("title", "text")
    assert experts.router.weight.abs().max() > 0
    encoder = Encoder.load(tmp_path / "whole", device="cpu")
    documents: list[dict[str, str | None]] = [
        {"title": "a dog", "text": "the girl plays"},
        {"text": "a cat", "title": None},
        {"title": "a"},
    ]
    queries, found = encoder.encode_queries(["a dog", "the cat"]), encoder.encode_documents(documents)
    assert (queries.shape, found.shape) == ((2, 64), (3, 64))
    assert (encoder.fields, encoder.width("document"), encoder.dimension) == (("title", "text"), 64, 32)
    vectors = torch.zeros(3, 2, 32)
    for row, document in enumerate(documents):
        for field, name in enumerate(encoder.fields):
            if document.get(name):
                vectors[row, field] = torch.from_numpy(encoder.encode(str(document[name])))
    with torch.inference_mode():
        first = experts.queries(torch.from_numpy(encoder.encode(["a dog", "the cat"])))
        second = experts.documents(vectors)
        expected = experts(first, second).numpy()
    np.testing.assert_allclose(queries, first.numpy(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(found, second.numpy(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(encoder.similarity(queries, found), expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_query("a dog"), queries[0], rtol=0, atol=2e-6)


def test_the_loss_of_a_batch_is_that_of_its_documents_one_by_one(tiny_model: Path, pairs: Path) -> None:
    journey = journey_of(tiny_model, pairs, FIELDS)
    experts = experts_of(journey)
    torch.manual_seed(1)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    journey.module.eval()
    each, entries = journey.entries(0)
    ranks = alone(precision="fp32")
    parts, order, _ = journey._parts(entries, ranks)
    with torch.inference_mode():
        vectors = torch.cat([forward(journey.module, part.tokens, ranks) for part in parts])
        loss = float(journey._whole_loss(each, entries, vectors, order, ranks))
        of_text = {
            text: journey._model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist())[0]
            for text in entries.texts
            for batch in [journey._tokenizer.encode([text])]
        }
    rows, texts = entries.rows, entries.rows.texts
    assert rows.documents is not None
    assert rows.second is not None
    assert rows.negatives is not None
    numbers = rows.second.tolist()
    numbers += sorted({n for n in rows.negatives.flatten().tolist() if n >= 0} - set(numbers))
    scores = torch.zeros(len(rows), len(numbers))
    with torch.inference_mode():
        for i, query in enumerate(rows.first.tolist()):
            for j, number in enumerate(numbers):
                fields = torch.zeros(1, 2, 32)
                for field, text in enumerate(rows.documents[number].tolist()):
                    if text >= 0:
                        fields[0, field] = of_text[texts[text]]
                document = experts.documents(fields)
                scores[i, j] = experts(experts.queries(of_text[texts[query]][None]), document)[0, 0]
    expected = torch.nn.functional.cross_entropy(scores / 0.05, torch.arange(len(rows)))
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("pairs", "info_nce"),
        ("triplets", "triplet"),
        ("scored", "cosent"),
        ("distilled", "margin_mse"),
        ("distilled", "kl_distillation"),
    ],
)
def test_losses_learn_with_fields(kind: str, loss: str, tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", with_fields(rows_of(kind)))
    steps = go(tiny_model, rows, tmp_path / "run", FIELDS, f"loss.name={loss}", "run.steps=3")
    assert all(np.isfinite(step.loss) for step in steps)
    fresh = experts_of(journey_of(tiny_model, rows, FIELDS)).state_dict()
    trained = load_sentence_encoder(read_model_folder(tmp_path / "run")).similarity
    assert trained is not None
    for name, weight in trained.state_dict().items():
        assert not torch.equal(weight, fresh[name]), name


def test_queries_learn_which_field_to_ask(tiny_model: Path, tmp_path: Path) -> None:
    """Titles are drawn at random and texts repeat the query: a query comes to weigh the text more."""
    rng = random.Random(0)
    rows: list[Row] = []
    for number in range(60):
        query = f"{sentence(rng)} {number}"
        rows.append({"query": query, "positive": {"title": sentence(rng), "text": query}})
    path = write_rows(tmp_path / "rows.jsonl", rows)
    settings = ("run.steps=40", "optim.lr=0.01", "optim.eps=1e-8", "optim.beta1=0.9")
    steps = go(tiny_model, path, tmp_path / "run", FIELDS, *settings)
    assert steps[-1].loss < steps[0].loss
    encoder = Encoder.load(tmp_path / "run", device="cpu")
    weights = np.linalg.norm(
        encoder.encode_queries([row["query"] for row in rows]).reshape(60, 2, -1), axis=2
    )
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert weights[:, 1].mean() > 0.6


def test_a_model_with_fields_is_trained_further_with_them_or_compared_by_cosine_again(
    tiny_model: Path, tmp_path: Path, pairs: Path
) -> None:
    go(tiny_model, pairs, tmp_path / "first", FIELDS)
    go(tmp_path / "first", pairs, tmp_path / "second")
    before, after = (
        load_sentence_encoder(read_model_folder(tmp_path / name)).similarity for name in ("first", "second")
    )
    assert before is not None
    assert after is not None
    for name, weight in after.state_dict().items():
        assert not torch.equal(weight, before.state_dict()[name]), name
    start = experts_of(journey_of(tmp_path / "first", pairs))
    for name, weight in start.state_dict().items():
        assert torch.equal(weight, before.state_dict()[name]), name
    plain = write_rows(tmp_path / "plain.jsonl", rows_of("pairs"))
    go(tmp_path / "first", plain, tmp_path / "cosine", "loss.similarity=cosine")
    assert read_model_folder(tmp_path / "cosine").modules.sentence.similarity is None
    with pytest.raises(RecordError, match="it must be an object of the fields title, text"):
        journey_of(tmp_path / "first", plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("loss.adaptive_layers=true",), "loss.adaptive_layers trains every layer by itself"),
        (("loss.matryoshka=[8]",), "loss.matryoshka cuts vectors, and a fields similarity compares all"),
        (("loss.name=angle",), "loss 'angle' compares two texts, and documents here have fields"),
        (("loss.similarity=cosine",), "head.fields compares by an expert for each field"),
        (("loss.false_negatives=guide", "loss.guide=model"), "loss.guide compares single texts"),
        (('head.fields=["title","title"]',), "'title' stands there twice"),
        (('head.fields=["title","code"]',), "'text', which is none of the fields title, code"),
    ],
)
def test_what_does_not_go_with_fields_is_refused(
    settings: tuple[str, ...], message: str, tiny_model: Path, pairs: Path
) -> None:
    with pytest.raises(EmbedkitError, match=message):
        journey_of(tiny_model, pairs, FIELDS, *settings)


def test_evaluation_sets_are_refused(tiny_model: Path, tmp_path: Path, pairs: Path) -> None:
    scored = tmp_path / "scored.tsv"
    scored.write_text("sentence1\tsentence2\tscore\na\tb\t1.0\nb\tc\t0.0\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="the model compares queries with documents that have fields"):
        journey_of(tiny_model, pairs, FIELDS, evaluate=[str(scored)])


@pytest.mark.slow
def test_two_ranks_with_fields_equal_one(tmp_path: Path) -> None:
    """Cached parts; each rank holds other texts, and all of them the same experts."""
    still = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = write_tiny_model(tmp_path / "model", config=still)
    rows = write_rows(tmp_path / "rows.jsonl", with_fields(rows_of("triplets")))
    settings = (FIELDS, "data.micro_tokens=64", "data.batch_size=7")
    go(model, rows, tmp_path / "alone", *settings)
    assert work(tmp_path, *settings, ranks=2) == 0
    assert_close(last_weights(tmp_path / "alone"), last_weights(tmp_path / "run"), AFTER_THREE_STEPS)
