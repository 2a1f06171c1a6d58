"""`CrossEncoder`: order, streams, truncation and labels."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.checkpoint.classification_weights import load_classifier
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseActivation
from embedkit.reranking.calibration import Calibration, write_calibration
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.reranking.pairs import WINDOW_PAIRS, PairCounts
from embedkit.retrieval.strength import PROBABILITIES
from embedkit.types import Device
from tests.conftest import DEVICES
from tests.tiny_cross_encoder import LONG, QUERY, TEXTS, write_tiny_cross_encoder

TOLERANCE = 2e-6  # fp32, in batches of other sizes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cross_encoder(tmp_path_factory.mktemp("reranker") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> CrossEncoder:
    return CrossEncoder.load(folder, device="cpu")


def one_by_one(model: CrossEncoder, query: str, texts: tuple[str, ...] | list[str]) -> list[float]:
    return [float(model.score(query, [text])[0]) for text in texts]


def test_score_i_is_of_text_i_whatever_the_lengths(model: CrossEncoder) -> None:
    scores = model.score(QUERY, TEXTS)
    assert scores.shape == (len(TEXTS),)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, one_by_one(model, QUERY, TEXTS), atol=TOLERANCE)
    assert np.ptp(scores) > 0.1


def test_score_is_the_network_over_cls_query_sep_text_sep(model: CrossEncoder) -> None:
    """[CLS] a cat [SEP] dog [SEP] with token types 0 0 0 0 1 1."""
    tokenizer = model.folder.tokenizer
    ids = [2, *tokenizer.ids(["a cat"])[0], 3, *tokenizer.ids(["dog"])[0], 3]
    with torch.no_grad():
        wanted = load_classifier(model.folder)(
            torch.tensor(ids), [len(ids)], torch.tensor([0, 0, 0, 0, 1, 1])
        )
    np.testing.assert_allclose(model.score("a cat", ["dog"]), wanted.flatten(), atol=TOLERANCE)


def test_it_is_called_after_its_folder_and_says_what_computes_it(folder: Path, model: CrossEncoder) -> None:
    assert model.name == str(folder)
    assert repr(model) == f"CrossEncoder {folder}, {model.backend!r}"


def test_no_texts_have_no_scores(model: CrossEncoder) -> None:
    assert model.score(QUERY, []).shape == (0,)
    assert model.logits([], []).shape == (0, 1)
    assert list(model.score_groups([])) == []


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), max_size=6))
def test_groups_come_back_in_order_also_the_empty_ones(model: CrossEncoder, sizes: list[int]) -> None:
    groups = [(f"{QUERY} {i}", [f"{TEXTS[j % 4]} {i}" for j in range(size)]) for i, size in enumerate(sizes)]
    found = list(model.score_groups(iter(groups)))
    assert [len(scores) for scores in found] == sizes
    for (query, texts), scores in zip(groups, found, strict=True):
        np.testing.assert_allclose(scores, one_by_one(model, query, texts), atol=TOLERANCE)


def test_windows_larger_and_smaller_than_groups(folder: Path) -> None:
    model = CrossEncoder.load(folder, device="cpu")
    sizes = [WINDOW_PAIRS + 7, 0, 3, WINDOW_PAIRS - 1, 2]
    words = ("cat", "dog", "a horse", "red water")
    groups = [(QUERY, [words[j % 4] for j in range(size)]) for size in sizes]
    found = list(model.score_groups(groups))
    assert [len(scores) for scores in found] == sizes
    wanted = model.score(QUERY, words)
    for scores in found:
        np.testing.assert_allclose(scores, np.resize(wanted, len(scores)), atol=TOLERANCE)


def test_stream_reads_no_further_than_two_windows_ahead(model: CrossEncoder) -> None:
    read = 0

    def groups() -> object:
        nonlocal read
        while True:
            read += 1
            yield QUERY, ["cat"] * (WINDOW_PAIRS // 2)

    assert len(list(islice(model.score_groups(groups()), 2))) == 2  # type: ignore[arg-type] # an endless generator
    assert read <= 6


def test_query_is_tokenized_once(model: CrossEncoder) -> None:
    seen: list[int] = []
    tokenizer = model.folder.tokenizer
    original = type(tokenizer).ids

    class Counting(type(tokenizer)):  # type: ignore[misc] # a subclass of a value's class
        def ids(self, texts: list[str]) -> list[list[int]]:
            seen.append(len(texts))
            return original(self, texts)

    counting = Counting(tokenizer.backend, tokenizer.special_tokens, tokenizer.max_length)
    counting.encode_pairs([QUERY] * 3, list(TEXTS[:3]))
    assert seen == [1, 3]


@pytest.mark.parametrize("truncation", ["second", "longest_first"])
def test_too_long_pairs_are_cut_and_counted(folder: Path, truncation: str) -> None:
    model = CrossEncoder.load(folder, device="cpu", truncation=truncation)  # type: ignore[arg-type] # of the two
    limit = model.folder.tokenizer.max_length
    model.score(QUERY, ["cat", LONG * 2])
    assert model.counts == PairCounts(2, len(TOKENS_OF_CAT_PAIR) + limit, 1, 0)
    query_alone = model.score(LONG * 2, ["cat", "dog"])
    assert np.isfinite(query_alone).all()
    assert (model.counts.pairs, model.counts.truncated, model.counts.cut_queries) == (4, 3, 2)


TOKENS_OF_CAT_PAIR = ["[CLS]", "the", "girl", "plays", "the", "piano", "[SEP]", "cat", "[SEP]"]


def test_second_cuts_the_text_alone_and_longest_first_the_longer(folder: Path) -> None:
    """A limit of 12 holds 3 special tokens and 9 others: 5 of the query and 4 of the text; longest first agrees."""
    query, text = "the girl plays the piano", "a boy sings a song in the red water"
    short = CrossEncoder.load(folder, device="cpu", max_seq_length=12)
    whole = CrossEncoder.load(folder, device="cpu")
    cut = "a boy sing ##s"  # its first four pieces
    pieces = whole.folder.tokenizer.backend.encode(text, add_special_tokens=False).tokens[:4]
    head = " ".join(pieces).replace(" ##", "")
    np.testing.assert_allclose(short.score(query, [text]), whole.score(query, [head]), atol=TOLERANCE)
    assert len(pieces) == len(cut.split())


def test_query_longer_than_the_limit_leaves_one_token_of_text(folder: Path) -> None:
    model = CrossEncoder.load(folder, device="cpu", max_seq_length=8)
    scores = model.score("the girl plays the piano at the beach", ["cat dog", "horse dog", "cat horse"])
    assert scores[0] == pytest.approx(scores[2], abs=TOLERANCE)
    assert abs(scores[0] - scores[1]) > 1e-3
    assert model.counts == PairCounts(3, 24, 3, 3)


@pytest.mark.parametrize(("tokens", "cut"), [(4, 0), (5, 1), (6, 1)])
def test_query_counts_as_cut_where_it_loses_a_token(folder: Path, tokens: int, cut: int) -> None:
    """A limit of 8 holds 3 special tokens and 5 others, one of which is kept for the text."""
    model = CrossEncoder.load(folder, device="cpu", max_seq_length=8)
    model.score(" ".join(["cat"] * tokens), ["red water"])
    assert model.counts == PairCounts(1, 8, 1, cut)


@pytest.mark.parametrize(("query", "text", "cut"), [(2, 9, 0), (3, 3, 1), (9, 2, 1), (3, 4, 1), (2, 3, 0)])
def test_longest_first_counts_cut_queries(folder: Path, query: int, text: int, cut: int) -> None:
    """Of 5 places the shorter gets 2 at least: 3 + 3 tokens become 2 + 3, and 2 + 3 fit."""
    model = CrossEncoder.load(folder, device="cpu", max_seq_length=8, truncation="longest_first")
    model.score(" ".join(["cat"] * query), [" ".join(["dog"] * text)])
    assert model.counts.cut_queries == cut
    assert model.counts.truncated == (query + text > 5)


def test_activation_makes_scores_of_logits(tmp_path: Path) -> None:
    folder = write_tiny_cross_encoder(tmp_path / "m", activation="sigmoid")
    model = CrossEncoder.load(folder, device="cpu")
    logits = model.logits([QUERY] * 5, TEXTS)[:, 0]
    np.testing.assert_allclose(model.score(QUERY, TEXTS), 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_array_equal(model.log_odds([QUERY] * 5, TEXTS), logits)


def test_score_of_one_of_several_labels_is_its_log_odds(tmp_path: Path) -> None:
    """With two labels the log-odds are the difference of the logits."""
    folder = write_tiny_cross_encoder(tmp_path / "m", labels=("no", "yes"))
    model = CrossEncoder.load(folder, device="cpu", label="yes")
    logits = model.logits([QUERY] * 5, TEXTS)
    np.testing.assert_allclose(model.score(QUERY, TEXTS), logits[:, 1] - logits[:, 0], atol=1e-6)
    three = CrossEncoder.load(
        write_tiny_cross_encoder(tmp_path / "three", labels=("a", "b", "c")), device="cpu", label="b"
    )
    p = torch.from_numpy(three.logits([QUERY] * 5, TEXTS)).softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(three.score(QUERY, TEXTS), np.log(p / (1 - p)), atol=1e-5)


def test_several_labels_need_a_choice(tmp_path: Path) -> None:
    folder = write_tiny_cross_encoder(tmp_path / "m", labels=("no", "yes"))
    model = CrossEncoder.load(folder, device="cpu")
    assert model.logits([QUERY], ["cat"]).shape == (1, 2)
    wanted = r"the model has 2 labels \(no, yes\); a reranker gives one score a pair.*--label NAME"
    with pytest.raises(CheckpointError, match=wanted):
        model.score(QUERY, ["cat"])
    with pytest.raises(CheckpointError, match=wanted):
        model.score_groups([])  # at once, not when it is iterated
    with pytest.raises(CheckpointError, match="there is no label 'maybe'; its labels are no, yes"):
        CrossEncoder.load(folder, device="cpu", label="maybe")


def test_layers_stop_early(folder: Path, model: CrossEncoder) -> None:
    early = CrossEncoder.load(folder, device="cpu", layers=1)
    with torch.no_grad():
        batch = model.folder.encode_pairs([QUERY], ["cat"])
        assert batch.token_type_ids is not None
        exits = load_classifier(model.folder)(
            torch.from_numpy(batch.input_ids),
            [len(batch.input_ids)],
            torch.from_numpy(batch.token_type_ids),
            exits=(1, 2),
        )
    np.testing.assert_allclose(early.score(QUERY, ["cat"]), exits[0, 0], atol=TOLERANCE)
    with pytest.raises(
        CheckpointError, match=r"3 layers were asked for; the model has 2\. Choose between 1 and that"
    ):
        CrossEncoder.load(folder, device="cpu", layers=3)


def test_calibration_makes_probabilities(folder: Path, model: CrossEncoder) -> None:
    calibration = Calibration(temperature=2.0, offset=0.5, num_pairs=10, error_before=0.2, error_after=0.1)
    calibrated = CrossEncoder(model.folder, model.backend, calibration=calibration)
    wanted = 1 / (1 + np.exp(-(model.score(QUERY, TEXTS) - 0.5) / 2.0))
    np.testing.assert_allclose(calibrated.score(QUERY, TEXTS), wanted, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"calibration.json: there is no such file.*--calibrate"):
        CrossEncoder.load(folder, device="cpu", probabilities=True)


@pytest.mark.parametrize("device", DEVICES)
def test_torch_on_a_device_gives_the_scores_of_the_cpu(
    folder: Path, model: CrossEncoder, device: Device
) -> None:
    for layers in (None, 1):
        other = CrossEncoder.load(folder, device=device, backend="torch", layers=layers)
        wanted = CrossEncoder.load(folder, device="cpu", layers=layers).score(QUERY, TEXTS)
        np.testing.assert_allclose(other.score(QUERY, TEXTS), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_keeps_the_ranking_of_clear_differences(
    folder: Path, model: CrossEncoder, device: Device
) -> None:
    half = CrossEncoder.load(folder, device=device, precision="bf16", force_precision=True)
    difference = np.abs(half.score(QUERY, TEXTS) - model.score(QUERY, TEXTS)).max()
    assert 0 < difference < 0.1


def test_programming_mistakes_are_told(model: CrossEncoder) -> None:
    with pytest.raises(ValueError, match="2 queries and 1 texts; there must be as many of each"):
        model.score_pairs([QUERY, QUERY], ["cat"])
    with pytest.raises(TypeError, match="must be a sequence of strings"):
        model.score(QUERY, "cat")


MIDDLE = (PROBABILITIES.chance + PROBABILITIES.typical) / 2
ODDS = math.log(MIDDLE / (1 - MIDDLE))


def test_a_hit_is_as_strong_as_it_is_probably_relevant(tmp_path: Path) -> None:
    logits = CrossEncoder.load(write_tiny_cross_encoder(tmp_path / "logits"), device="cpu")
    assert logits.strength(ODDS) == pytest.approx(0.5)
    assert (logits.strength(-1000.0), logits.strength(1000.0)) == (0, 1)
    folder = write_tiny_cross_encoder(tmp_path / "sigmoid", activation="sigmoid")
    probabilities = CrossEncoder.load(folder, device="cpu")
    assert probabilities.strength(MIDDLE) == pytest.approx(0.5)
    assert (probabilities.strength(0.0), probabilities.strength(1.0)) == (0, 1)


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_the_calibration_beside_a_model_says_how_probable_it_is(
    tmp_path: Path, activation: DenseActivation
) -> None:
    folder = write_tiny_cross_encoder(tmp_path / "m", activation=activation)
    write_calibration(
        folder, Calibration(temperature=2.0, offset=1.0, num_pairs=100, error_before=0.2, error_after=0.1)
    )
    logit = 2 * ODDS + 1
    score = logit if activation == "identity" else 1 / (1 + math.exp(-logit))
    assert CrossEncoder.load(folder, device="cpu").strength(score) == pytest.approx(0.5)
    assert CrossEncoder.load(folder, device="cpu", probabilities=True).strength(MIDDLE) == pytest.approx(0.5)
