"""Low-rank adaptation: nothing changes at first, only the narrow matrices learn, and merged weights give the same vectors."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.lora import LoraLinear, add_lora, merge_lora, whole_weight
from tests.tiny import FAMILY_SHAPES, ROUTED_SHAPES, tiny_config

IDS = torch.tensor([[5, 7, 9], [11, 6, 8]])


def encoder(**shape: object) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(tiny_config(**shape)).eval()


def hidden(model: TransformerEncoder) -> Tensor:
    found: Tensor = model(IDS)
    return found


def test_by_hand() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2], [3, 4]]))
        layer.bias.copy_(torch.tensor([10.0, 20]))
    LoraLinear.adapt(layer, rank=1, scale=0.5, dropout=0.0)
    assert isinstance(layer, LoraLinear)
    with torch.no_grad():
        layer.lora_a.copy_(torch.tensor([[1.0, -1]]))
        layer.lora_b.copy_(torch.tensor([[2.0], [4]]))
    # x A' = 3 - 5 = -2; B of it (-4, -8), halved (-2, -4); x W' + b = (23, 49)
    assert layer(torch.tensor([[3.0, 5]])).tolist() == [[21.0, 45.0]]
    assert whole_weight(layer).tolist() == [[2.0, 1.0], [5.0, 2.0]]
    layer.merge()
    assert type(layer) is nn.Linear
    assert layer(torch.tensor([[3.0, 5]])).tolist() == [[21.0, 45.0]]
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3", "qwen2", "gpt2", "albert", "t5"])
def test_at_first_nothing_changes_and_merged_weights_give_the_vectors_of_the_adapted(family: str) -> None:
    model = encoder(**FAMILY_SHAPES.get(family, {}))
    plain = hidden(model)
    count = add_lora(model, rank=2, alpha=4.0)
    assert count == sum(isinstance(layer, LoraLinear) for layer in model.modules())
    torch.testing.assert_close(hidden(model), plain, rtol=1e-4, atol=1e-5)
    wanted = torch.randn_like(plain)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward((hidden(model) * wanted).sum())
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.rpartition(".")[2] in ("lora_a", "lora_b") for name in changed)
    adapted = hidden(model)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    whole = deepcopy(model)
    merge_lora(whole)
    assert list(whole.state_dict()) == list(encoder(**FAMILY_SHAPES.get(family, {})).state_dict())
    torch.testing.assert_close(hidden(whole), adapted, rtol=1e-4, atol=1e-4)


def test_matrices_are_those_of_the_seed_and_layers_those_that_are_named() -> None:
    models = [encoder() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        add_lora(model, rank=2, alpha=4.0, targets=("qkv",), seed=seed)
    first, same, other = (dict(model.named_parameters()) for model in models)
    names = [name for name in first if name.endswith("lora_a")]
    assert names
    assert all(".qkv." in name for name in names)
    assert all(torch.equal(first[name], same[name]) for name in names)
    assert not any(torch.equal(first[name], other[name]) for name in names)


def test_gradients_are_those_of_finite_differences() -> None:
    layer = nn.Linear(3, 4).double()
    LoraLinear.adapt(layer, rank=2, scale=2.0, dropout=0.0)
    assert isinstance(layer, LoraLinear)
    layer.lora_a = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
    layer.lora_b = nn.Parameter(torch.randn(4, 2, dtype=torch.float64))
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def of(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(layer, {"lora_a": a, "lora_b": b}, (x,))
        return found

    assert torch.autograd.gradcheck(of, (layer.lora_a, layer.lora_b, rows))


@pytest.mark.parametrize("shape", list(ROUTED_SHAPES.values())[:1])
def test_what_cannot_be_adapted_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="train all of its weights"):
        add_lora(encoder(**shape), rank=2, alpha=4.0)
    with pytest.raises(ValueError, match="train all of them"):
        add_lora(encoder(**FAMILY_SHAPES["deberta-v2"]), rank=2, alpha=4.0)
    with pytest.raises(ValueError, match="no layer of this model"):
        add_lora(encoder(), rank=2, alpha=4.0, targets=("nothing",))
    assert isinstance(encoder().config, EncoderConfig)
