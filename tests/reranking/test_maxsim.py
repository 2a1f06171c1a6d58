"""Late interaction over an encoder's token vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.reranking.maxsim import SIMILARITIES, MaxSim
from tests.tiny import write_tiny_model
from tests.tiny_cross_encoder import QUERY, TEXTS

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder.load(tiny_model, device="cpu", backend="torch")


def tokens(encoder: Encoder, text: str) -> torch.Tensor:
    """The unit vectors of a text's own tokens, (T, D), by a padded forward pass of one."""
    ids = torch.from_numpy(encoder.tokenizer.encode([text]).input_ids)
    with torch.no_grad():
        hidden = encoder.backend.model.encoder(ids[None])[0]  # type: ignore[attr-defined] # a TorchSentence
    return F.normalize(hidden[1:-1], dim=-1)


def test_score_is_the_mean_over_query_tokens_of_the_best_cosine(encoder: Encoder) -> None:
    query = tokens(encoder, QUERY)
    texts = [text for text in TEXTS if text]
    wanted = [float((query @ tokens(encoder, text).T).max(dim=1).values.mean()) for text in texts]
    scores = MaxSim(encoder).score(QUERY, texts)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, atol=TOLERANCE)


def test_text_equal_to_the_query_scores_one_and_highest(encoder: Encoder) -> None:
    scores = MaxSim(encoder).score(QUERY, [*TEXTS, QUERY])
    assert scores[-1] == pytest.approx(1.0, abs=TOLERANCE)
    assert scores[:-1].max() < 0.99


def test_texts_without_tokens_score_zero_in_their_places(encoder: Encoder) -> None:
    scores = MaxSim(encoder).score(QUERY, ["", "cat", " ", "dog"])
    assert scores[0] == scores[2] == 0
    assert scores[1] != 0
    assert scores[3] != 0
    np.testing.assert_array_equal(MaxSim(encoder).score("", ["cat"]), [0])
    assert MaxSim(encoder).score(QUERY, []).shape == (0,)


def test_batches_do_not_change_scores(encoder: Encoder) -> None:
    many = list(TEXTS) * 40
    alone = MaxSim(encoder).score(QUERY, TEXTS)
    np.testing.assert_allclose(MaxSim(encoder).score(QUERY, many), np.tile(alone, 40), atol=TOLERANCE)


def test_prompts_are_read_but_not_compared(tmp_path: Path) -> None:
    prompts = {"query": "the girl ", "document": "red "}
    encoder = Encoder.load(write_tiny_model(tmp_path / "m", prompts=prompts), device="cpu", backend="torch")
    plain = tokens(encoder, "the girl plays")[2:]
    text = tokens(encoder, "red water")[1:]
    wanted = float((plain @ text.T).max(dim=1).values.mean())
    assert MaxSim(encoder).score("plays", ["water"])[0] == pytest.approx(wanted, abs=TOLERANCE)


def test_it_has_its_own_name_and_what_computes_the_encoder(encoder: Encoder) -> None:
    reranker = MaxSim(encoder)
    assert (reranker.name, reranker.weight) == ("maxsim", 1.0)
    assert reranker.choice is encoder.choice is not None


def test_it_counts_what_it_cuts(tiny_model: Path) -> None:
    reranker = MaxSim(Encoder.load(tiny_model, device="cpu", max_seq_length=8))
    reranker.score(QUERY, ["cat", "cat dog " * 20])
    assert (reranker.counts.pairs, reranker.counts.truncated, reranker.counts.cut_queries) == (2, 1, 0)
    reranker.score("cat dog " * 20, ["cat", "dog"])
    assert (reranker.counts.pairs, reranker.counts.truncated, reranker.counts.cut_queries) == (4, 3, 2)


def test_static_model_is_refused(encoder: Encoder) -> None:
    static = replace(encoder.folder, static=True)
    with pytest.raises(
        CheckpointError,
        match=r"gives its tokens no vectors in context, which maxsim compares\. Use a transformer",
    ):
        MaxSim(Encoder(static, encoder.backend))


def test_strength_goes_from_chance_to_what_is_typical(encoder: Encoder) -> None:
    model = MaxSim(encoder)
    assert model.strength(1.0) == 1
    assert model.strength(0.0) == 0
    assert model.strength((SIMILARITIES.chance + SIMILARITIES.typical) / 2) == pytest.approx(0.5)
