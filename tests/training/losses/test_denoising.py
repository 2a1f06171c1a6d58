"""TSDAE's decoder and its loss."""

import math

import pytest
import torch
from torch import Tensor, nn

from embedkit.training.losses.denoising import SentenceDecoder, token_cross_entropy


def decoder(seed: int = 0, **options: int) -> SentenceDecoder:
    torch.manual_seed(seed)
    table = nn.Parameter(torch.randn(11, 8))
    sizes = {"embedding_size": 6, "num_attention_heads": 2, "max_position_embeddings": 7} | options
    return SentenceDecoder(table, **sizes).eval()


def ids_and_vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 11, (3, 5), generator=generator), torch.randn(3, 6, generator=generator)


def test_token_cross_entropy_predicts_the_next_token() -> None:
    """At 0 token 1 has 3/4: .2877; at 1 token 0 has 1/2: .6931; the logits of the last place count nothing."""
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [100.0, -100.0]]])
    ids = torch.tensor([[0, 1, 0]])
    whole = token_cross_entropy(logits, ids, torch.tensor([[True, True, True]]))
    shorter = token_cross_entropy(logits, ids, torch.tensor([[True, True, False]]))
    assert whole.item() == pytest.approx(0.490415, abs=1e-6)
    assert shorter.item() == pytest.approx(0.287682, abs=1e-6)


def test_no_place_sees_a_later_token() -> None:
    model = decoder()
    ids, vectors = ids_and_vectors()
    changed = ids.clone()
    changed[:, 3:] = (ids[:, 3:] + 1) % 11
    torch.testing.assert_close(model(changed, vectors)[:, :3], model(ids, vectors)[:, :3])
    assert not torch.allclose(model(changed, vectors)[:, 3], model(ids, vectors)[:, 3])


def test_every_place_sees_the_sentence_vector_and_its_own_text_alone() -> None:
    model = decoder()
    ids, vectors = ids_and_vectors()
    changed = vectors.clone()
    changed[0] += 1.0
    before, after = model(ids, vectors), model(ids, changed)
    assert ((after[0] - before[0]).abs().amax(dim=1) > 1e-4).all()
    torch.testing.assert_close(after[1:], before[1:])


def test_logits_are_tied_to_the_token_table() -> None:
    model = decoder(num_hidden_layers=2)
    ids, vectors = ids_and_vectors()
    logits = model(ids, vectors)
    assert logits.shape == (3, 5, 11)
    with torch.no_grad():
        model.token_table[10] = 0.0  # its row as an output; no text below holds it as an input
    where = (ids != 10).all(dim=1)
    assert where.any()
    assert (model(ids, vectors)[where][..., 10] == 0).all()
    assert not (logits[where][..., 10] == 0).any()


def test_the_decoder_learns_to_rebuild_texts_from_their_vectors() -> None:
    model = decoder().train()
    ids, vectors = ids_and_vectors()
    mask = torch.ones_like(ids, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    values = []
    for _ in range(25):
        loss = token_cross_entropy(model(ids, vectors), ids, mask)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.2 * values[0]


def test_errors_name_the_numbers() -> None:
    ids, vectors = ids_and_vectors()
    with pytest.raises(ValueError, match=r"texts of 8 tokens; it has 7 positions"):
        decoder()(torch.zeros(1, 8, dtype=torch.long), vectors[:1])
    with pytest.raises(ValueError, match=r"sentence_embeddings has shape \(2, 6\); it needs \(3, 6\)"):
        decoder()(ids, vectors[:2])
    with pytest.raises(ValueError, match=r"3 heads do not divide 8 dimensions"):
        decoder(num_attention_heads=3)
    with pytest.raises(ValueError, match=r"input_ids has shape \(3, 5\); it needs \(3, 4\)"):
        token_cross_entropy(torch.zeros(3, 4, 11), ids, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"attention_mask is torch\.float32; it needs torch\.bool"):
        token_cross_entropy(torch.zeros(3, 5, 11), ids, torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"texts of 1 token"):
        token_cross_entropy(torch.zeros(3, 1, 11), ids[:, :1], torch.ones(3, 1, dtype=torch.bool))
