from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, RecordError
from embedkit.explaining.explain import Explanation, explain, split_parts
from embedkit.explaining.heat_map import png_of
from embedkit.explaining.page import render_html
from embedkit.explaining.views import as_dict, stretches
from embedkit.inference.backend import Backend
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Device, Float32
from tests.conftest import DEVICES
from tests.tiny import ROUTED_SHAPES, tiny_config, write_tiny_model

QUERY, DOCUMENT = "a dog runs", "The girl sings; <b>the dog</b> sleeps"


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder.load(tiny_model, device="cpu", backend="torch")


@pytest.fixture(scope="module")
def explanation(encoder: Encoder) -> Explanation:
    return explain(encoder, QUERY, DOCUMENT)


def test_the_score_is_the_cosine_that_a_search_would_give(encoder: Encoder, explanation: Explanation) -> None:
    query, document = encoder.encode([QUERY, DOCUMENT])
    assert explanation.score == pytest.approx(float(query @ document), abs=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_an_explanation_is_the_same_on_every_device(
    tiny_model: Path, explanation: Explanation, device: Device
) -> None:
    other = explain(Encoder.load(tiny_model, device=device, backend="torch"), QUERY, DOCUMENT)
    np.testing.assert_allclose(other.similarities, explanation.similarities, rtol=0, atol=1e-4)
    np.testing.assert_allclose(other.document.attention, explanation.document.attention, rtol=0, atol=1e-4)


def test_an_effect_is_what_the_score_loses_without_the_word(
    encoder: Encoder, explanation: Explanation
) -> None:
    words = {DOCUMENT[part.start : part.stop]: part for part in explanation.document.parts}
    assert {"The", "girl", "sings", ";", "<", "b", "dog"} <= set(words)
    query, without = encoder.encode([QUERY, "The  sings; <b>the dog</b> sleeps"])
    assert words["girl"].effect == pytest.approx(explanation.score - float(query @ without), abs=1e-6)
    assert any(abs(part.effect) > 1e-3 for part in explanation.query.parts)


def test_attention_rows_sum_to_one_and_mean_what_the_encoder_computes(
    encoder: Encoder, explanation: Explanation
) -> None:
    attention = explanation.query.attention
    assert attention.shape == (2, 4, 5, 5)  # [CLS] a dog runs [SEP]
    assert explanation.query.tokens == ("[CLS]", "a", "dog", "runs", "[SEP]")
    assert explanation.query.special == (True, False, False, False, True)
    np.testing.assert_allclose(attention.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(explanation.query.received().sum(-1), 1.0, atol=1e-5)
    # The first layer by hand: its weights times its values, put together, are what its attention gives.
    layer = encoder.backend.model.encoder.layer(0).attention  # type: ignore[attr-defined] # the torch backend
    model = encoder.backend.model.encoder  # type: ignore[attr-defined] # as above
    ids = torch.from_numpy(encoder.tokenizer.encode([QUERY]).input_ids)
    with torch.inference_mode():
        runs = _runs(len(ids))
        hidden, biases = model.embed(ids, runs, None)
        _, _, value = layer.project(layer.qkv(hidden), runs[0], None)  # (1, H, T, d)
        by_hand = (torch.from_numpy(attention[0]) @ value[0]).transpose(0, 1).reshape(len(ids), -1)
        expected = layer(hidden, runs, biases[False])
        np.testing.assert_allclose(layer.out(by_hand).numpy(), expected.numpy(), atol=1e-5)


def _runs(length: int) -> list[object]:
    from embedkit.model.layers import runs_of

    return list(runs_of([length]))


def test_experts_are_explained_and_recursion_by_a_router_is_refused(tmp_path: Path) -> None:
    shapes = {name: tiny_config(**ROUTED_SHAPES[name]) for name in ("experts", "expert choice")}
    models = {
        name: Encoder.load(write_tiny_model(tmp_path / name, config=config), device="cpu")
        for name, config in shapes.items()
    }
    found = explain(models["experts"], QUERY, DOCUMENT)
    assert len(found.query.attention) == 4
    with pytest.raises(
        CheckpointError,
        match="it has recursion by expert_choice: tokens that stopped attend to nothing, so that there are no whole maps",
    ):
        explain(models["expert choice"], QUERY, DOCUMENT)


def test_similarities_are_cosines_of_token_vectors(encoder: Encoder, explanation: Explanation) -> None:
    assert explanation.similarities.shape == (5, len(explanation.document.tokens))
    same = explain(encoder, QUERY, QUERY)
    np.testing.assert_allclose(np.diag(same.similarities), 1.0, atol=1e-5)
    assert same.best_matches()[0][:2] == (1, 1)
    for row, column, value in explanation.best_matches():
        assert value == explanation.similarities[row].tolist()[column]
        assert not explanation.document.special[column]


def test_stretches_are_the_text_again(explanation: Explanation) -> None:
    found = list(stretches(explanation.document))
    assert "".join(stretch.text for stretch in found) == DOCUMENT
    assert max(abs(stretch.weight) for stretch in found) == 1.0


def test_long_texts_are_taken_out_several_words_at_a_time(encoder: Encoder) -> None:
    words = [f"w{number}" for number in range(300)]
    parts = split_parts(" ".join(words))
    assert len(parts) == 100
    assert " ".join(words)[slice(*parts[1])] == "w3 w4 w5"
    found = explain(encoder, "dog", "dog " * 200)
    assert found.document.truncated
    # The model reads 30 words: what is taken out far behind moves nothing else into view but the same word.
    assert found.document.parts[-1].effect == pytest.approx(0.0, abs=1e-6)


def test_the_page_is_self_contained_and_escapes(explanation: Explanation) -> None:
    page = render_html(explanation)
    assert "&lt;" in page
    assert "<b>the" not in page
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    # Two texts of 2 layers with 4 heads each.
    assert page.count("data:image/png;base64,") == 16
    assert page.count(" · ") == explanation.similarities.size


def test_a_long_document_has_its_cosines_in_an_image(tmp_path: Path) -> None:
    from tests.tiny import write_tiny_model

    encoder = Encoder.load(write_tiny_model(tmp_path / "long", max_length=60), device="cpu", backend="torch")
    page = render_html(explain(encoder, "dog", "dog a cat " * 30))
    assert 'class="cosines"' in page


def test_json_holds_maps_on_demand(explanation: Explanation) -> None:
    assert "attention" not in as_dict(explanation)["query"]
    whole = as_dict(explanation, attention=True)
    assert np.shape(whole["query"]["attention"]) == (2, 4, 5, 5)
    assert whole["document"]["leave_one_out"][1]["text"] == "girl"


def test_a_text_without_a_word_is_refused(encoder: Encoder) -> None:
    with pytest.raises(RecordError, match=r"the query '  ' has no word in it; there is nothing to explain"):
        explain(encoder, "  ", DOCUMENT)
    with pytest.raises(RecordError, match=r"the document '' has no word"):
        explain(encoder, QUERY, "")


def test_what_is_no_transformer_is_refused(encoder: Encoder) -> None:
    class Table(Backend):
        def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
            return np.ones((len(batch), 32), np.float32)

        def __repr__(self) -> str:
            return "a table"

    with pytest.raises(CheckpointError, match=r"this is not a transformer run by torch \(a table\)"):
        explain(Encoder(encoder.folder, Table()), QUERY, DOCUMENT)


def test_a_map_is_a_png_of_its_numbers() -> None:
    png = png_of(np.array([[0.0, 0.5, 1.0], [0.25, 0.0, 2.0]], np.float32), highest=1.0)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (3, 2)
    start = png.index(b"IDAT") + 4
    (size,) = struct.unpack(">I", png[start - 8 : start - 4])
    # A filter byte before each row; white is 0, black the highest and beyond. 255 / 2 is rounded to even.
    assert zlib.decompress(png[start : start + size]) == bytes([0, 255, 128, 0, 0, 191, 255, 0])
