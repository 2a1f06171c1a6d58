"""Cached gradients are those of the whole batch, dropout on."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.training import losses
from embedkit.training.engine.grad_cache import cached_backward

BATCH = 8
STEPS = 3
WEIGHT_TOLERANCE = 1e-6

Loss = Callable[[Tensor], Tensor]


class Encoder(nn.Module):
    """Token table, attention with dropout, mean, unit length; and a learned temperature for the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, dropout=0.2, batch_first=True)
        self.log_temperature = nn.Parameter(torch.tensor(-2.0))

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.layer(F.dropout(self.table(input_ids), 0.1, training=self.training))
        return F.normalize(hidden.mean(dim=1), dim=1)


def micro_batches() -> list[Tensor]:
    """Sixteen texts, eight queries and then their documents, by a token budget of 24: 4 x 6, 4 x 6, 6 x 4, 2 x 9."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, 50, shape, generator=generator) for shape in [(4, 6), (4, 6), (6, 4), (2, 9)]]


def pairs(loss: Callable[..., Tensor]) -> Loss:
    return lambda rows: loss(rows[:BATCH], rows[BATCH:])


LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3] * 2)
SCORES = torch.linspace(0, 1, BATCH, dtype=torch.float64)
IN_BATCH: dict[str, Loss] = {
    "info_nce": pairs(partial(losses.info_nce, temperature=0.05)),
    "info_nce symmetric": pairs(partial(losses.info_nce, temperature=0.05, symmetric=True)),
    "info_nce with false negatives": pairs(
        lambda q, d: losses.info_nce(q, d, temperature=0.1, excluded=losses.false_negatives(q @ d.T))
    ),
    "simcse": pairs(losses.simcse),
    "cosent": pairs(partial(losses.cosent, scores=SCORES)),
    "angle": pairs(partial(losses.angle, scores=SCORES)),
    "online_contrastive": pairs(partial(losses.online_contrastive, alike=SCORES > 0.5)),
    "batch_all_triplet": partial(losses.batch_all_triplet, labels=LABELS, margin=0.5),
    "batch_hard_triplet": partial(losses.batch_hard_triplet, labels=LABELS, margin="soft"),
    "batch_semi_hard_triplet": partial(losses.batch_semi_hard_triplet, labels=LABELS, margin=0.5),
    "matryoshka": pairs(losses.matryoshka(partial(losses.info_nce, temperature=0.05), dims=[4, 8, 16])),
    "loss with dropout": pairs(lambda q, d: losses.info_nce(F.dropout(q, 0.3), d, temperature=0.05)),
}


def whole_backward(encode: Callable[[Tensor], Tensor], batches: list[Tensor], loss: Loss) -> Tensor:
    """The plain computation: all micro-batches with their graphs in memory, in the same order."""
    value = loss(torch.cat([encode(batch) for batch in batches]))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    return value.detach()


def train(
    backward: Callable[..., Tensor], loss: Callable[[Encoder], Loss], dtype: torch.dtype
) -> tuple[list[Tensor], list[float], Tensor]:
    """Return the weights and loss values of a short run, and the random state that it leaves."""
    torch.manual_seed(0)
    model = Encoder().train().to(dtype)
    optimizer: torch.optim.Optimizer
    # The key bias of attention has a gradient of zero but for rounding, which Adam would blow up to full steps in
    # float32: so Adam in float64, and plain steps in float32.
    if dtype == torch.float64:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    values = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        values.append(backward(model, micro_batches(), loss(model)).item())
        optimizer.step()
    return [p.detach() for p in model.parameters()], values, torch.get_rng_state()


def assert_equal_runs(loss: Callable[[Encoder], Loss], dtype: torch.dtype = torch.float64) -> None:
    weights, values, state = train(cached_backward, loss, dtype)
    whole_weights, whole_values, whole_state = train(whole_backward, loss, dtype)
    assert values == pytest.approx(whole_values, abs=1e-5)
    for ours, theirs in zip(weights, whole_weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=WEIGHT_TOLERANCE)
    assert torch.equal(state, whole_state)


@pytest.mark.parametrize("name", IN_BATCH)
def test_weights_after_three_steps_equal_those_of_the_whole_batch_with_dropout_on(name: str) -> None:
    assert_equal_runs(lambda model: IN_BATCH[name])


def test_weights_equal_in_float32_too() -> None:
    assert_equal_runs(lambda model: IN_BATCH["info_nce"], torch.float32)


def test_a_learned_temperature_is_trained_as_in_the_whole_batch() -> None:
    def loss(model: Encoder) -> Loss:
        return pairs(lambda q, d: losses.info_nce(q, d, temperature=model.log_temperature.exp()))

    assert_equal_runs(loss)
    weights, _, _ = train(cached_backward, loss, torch.float64)
    assert (
        weights[0] - torch.tensor(-2.0)
    ).abs() > 1e-3  # it moved; the parameter registered directly comes first


def test_texts_may_be_sorted_by_length_and_put_back_by_the_loss() -> None:
    order = torch.randperm(2 * BATCH, generator=torch.Generator().manual_seed(2))
    back = order.argsort()

    def loss(model: Encoder) -> Loss:
        return lambda rows: IN_BATCH["info_nce"](rows[back])

    assert_equal_runs(loss)


def test_embeddings_of_several_layers_work_too() -> None:
    """With an encoder that gives (N, L, E)."""
    nested = losses.adaptive_layer(partial(losses.info_nce, temperature=0.05))
    gradients = []
    for backward in (cached_backward, whole_backward):
        torch.manual_seed(0)
        model = Encoder().train()

        def encode(ids: Tensor, model: Encoder = model) -> Tensor:
            return torch.stack([F.normalize(model.table(ids).mean(dim=1), dim=1), model(ids)], dim=1)

        backward(encode, micro_batches(), pairs(nested))
        gradients.append(model.table.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_dropout_would_matter_if_it_were_not_repeated() -> None:
    """Without step 3's random states the gradients are others, so the tests above can fail."""

    def gradient(*, reseed: bool) -> Tensor:
        torch.manual_seed(0)
        model = Encoder().train()
        calls = 0

        def encode(ids: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if reseed and calls > len(micro_batches()) + 1:  # from the second replay on: the first is checked
                torch.manual_seed(calls)
            embeddings: Tensor = model(ids)
            return embeddings

        cached_backward(encode, micro_batches(), IN_BATCH["info_nce"])
        assert model.table.weight.grad is not None
        return model.table.weight.grad

    assert (gradient(reseed=True) - gradient(reseed=False)).abs().max() > 1e-3


def test_gradients_add_up_over_calls_as_with_backward() -> None:
    model = Encoder().eval()
    cached_backward(model, micro_batches(), IN_BATCH["info_nce"])
    assert model.table.weight.grad is not None
    once = model.table.weight.grad.clone()
    cached_backward(model, micro_batches(), IN_BATCH["info_nce"])
    torch.testing.assert_close(model.table.weight.grad, 2 * once, rtol=1e-4, atol=1e-6)


def test_only_one_micro_batch_has_a_graph_at_a_time() -> None:
    """Count the tokens whose activations autograd holds: never more than the largest micro-batch's 24."""
    model = Encoder().train()
    held: list[int] = []
    peak = 0

    def encode(ids: Tensor) -> Tensor:
        nonlocal peak
        embeddings: Tensor = model(ids)
        if embeddings.requires_grad:
            held.append(ids.numel())
            peak = max(peak, sum(held))
            embeddings.register_hook(lambda gradient: held.clear())  # type: ignore[no-untyped-call]  # torch's
        return embeddings

    cached_backward(encode, micro_batches(), IN_BATCH["info_nce"])
    assert peak == 24
    assert held == []


def test_errors_name_the_numbers() -> None:
    own = torch.Generator().manual_seed(0)

    def unrepeatable(ids: Tensor) -> Tensor:
        return torch.rand(len(ids), 4, generator=own).requires_grad_()

    def growing(ids: Tensor) -> Tensor:
        return torch.zeros(len(ids) + int(torch.is_grad_enabled()), 4, requires_grad=True)

    with pytest.raises(
        ValueError, match=r"two encodings of micro-batch 0 differ by 0\.\d+ where the largest"
    ):
        cached_backward(unrepeatable, micro_batches(), Tensor.sum)
    with pytest.raises(ValueError, match=r"micro-batch 0 was encoded to \(4, 4\) and then to \(5, 4\)"):
        cached_backward(growing, micro_batches(), Tensor.sum)
    with pytest.raises(ValueError, match=r"the loss has shape \(16,\); it needs \(\)"):
        cached_backward(Encoder(), micro_batches(), lambda rows: rows.sum(dim=1))
    with pytest.raises(ValueError, match=r"0 micro-batches; give at least 1"):
        cached_backward(Encoder(), [], Tensor.sum)


@pytest.mark.gpu
def test_dropout_is_repeated_on_a_cuda_device() -> None:
    gradients = []
    for backward in (cached_backward, whole_backward):
        torch.manual_seed(0)
        model = Encoder().cuda().train()
        backward(model, [ids.cuda() for ids in micro_batches()], IN_BATCH["info_nce"])
        gradients.append(model.table.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)
