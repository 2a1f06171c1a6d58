"""The contrastive journey against sentence-transformers: the same batches give the same loss, step after step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.encoding.encoder import Encoder
from embedkit.training.engine.loop import seeded
from embedkit.training.engine.ranks import alone
from tests.tiny import write_tiny_model
from tests.training.contrastive_runs import make_journey, make_recipe, rows_of, write_rows

pytestmark = pytest.mark.parity

# Two implementations of one encoder in float32, and ten steps of plain gradient descent that pass on the difference.
LOSS_TOLERANCE = 2e-5
STEPS = 10
RATE = 0.05


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model without dropout, whose random numbers no two libraries share."""
    folder = write_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def st_losses(model: Path, journey: Any, loss_of: Any, columns: int) -> list[float]:  # Any: another library's
    """Train with sentence-transformers' model and loss on the batches of the journey."""
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(model), device="cpu")
    theirs.train()
    loss = loss_of(theirs)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=RATE)
    found = []
    for step in range(STEPS):
        each, entries = journey.entries(step)
        texts = each.examples.texts
        rows = entries.rows.text_columns[:, :columns]
        features = [theirs.tokenize([texts[n] for n in rows[:, c]]) for c in range(columns)]
        labels = None if entries.rows.scores is None else torch.from_numpy(entries.rows.scores)
        optimizer.zero_grad()
        value = loss(features, labels)
        value.backward()
        optimizer.step()
        found.append(value.item())
    return found


def our_losses(journey: Any) -> list[float]:  # Any: the journey under test
    optimizer = torch.optim.SGD(journey.module.parameters(), lr=RATE)
    journey.module.train()
    found = []
    for step in range(STEPS):
        optimizer.zero_grad()
        with seeded(0, step, alone(precision="fp32")):
            shares = journey.backward(journey.module, step, alone(precision="fp32"))
        optimizer.step()
        found.append(float(shares.values["loss"]))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pairs", "triplets", "scored"])
def test_training_gives_the_losses_that_sentence_transformers_gives(
    model: Path, tmp_path: Path, kind: str
) -> None:
    """Pairs with MultipleNegativesRankingLoss, also with a hard negative, and scores with CoSENTLoss; ours with cached gradients."""
    losses = pytest.importorskip("sentence_transformers.losses")
    rows = rows_of(kind)
    for row in rows if kind == "triplets" else ():
        row["negatives"] = row["negatives"][:1]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    journey = make_journey(model, [path], make_recipe(f"run.steps={STEPS}", "data.micro_tokens=64"))

    def theirs(encoder: Any) -> Any:  # Any: as above
        if kind == "scored":
            return losses.CoSENTLoss(encoder)
        return losses.MultipleNegativesRankingLoss(encoder)  # scale 20 is our temperature 0.05

    wanted = st_losses(model, journey, theirs, 3 if kind == "triplets" else 2)
    found = our_losses(make_journey(model, [path], make_recipe(f"run.steps={STEPS}", "data.micro_tokens=64")))
    np.testing.assert_allclose(found, wanted, atol=LOSS_TOLERANCE, rtol=0)
    assert abs(found[0] - found[-1]) > 100 * LOSS_TOLERANCE  # it did learn


@pytest.mark.filterwarnings("ignore")
def test_a_static_student_is_read_by_sentence_transformers_and_theirs_by_us(tmp_path: Path) -> None:
    """Both ways; their folder has its table in a subfolder and a tokenizer with special tokens around a text."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    from embedkit.checkpoint.sentence_folder import write_model
    from embedkit.checkpoint.st_modules import SentenceModules
    from embedkit.checkpoint.static import read_static
    from embedkit.model.static import StaticEncoder
    from tests.tiny import tiny_tokenizer

    torch.manual_seed(0)
    texts = ["the dog plays", "a girl sings in the water.", "guitars"]
    ours = StaticEncoder(tiny_tokenizer().vocab_size, 8)
    write_model(tmp_path / "ours", ours, tiny_tokenizer(), SentenceModules(), family=None)
    wanted = SentenceTransformer(str(tmp_path / "ours"), device="cpu").encode(texts)
    np.testing.assert_allclose(Encoder.load(tmp_path / "ours", device="cpu").encode(texts), wanted, atol=1e-6)
    module = StaticEmbedding(tiny_tokenizer().backend, embedding_dim=8)
    theirs = SentenceTransformer(modules=[module, Normalize()], device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    assert read_static(tmp_path / "theirs").embedding_size == 8
    found = Encoder.load(tmp_path / "theirs", device="cpu").encode(texts)
    np.testing.assert_allclose(found, theirs.encode(texts), atol=1e-6)
