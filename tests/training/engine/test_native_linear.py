"""Linear layers by the kernels beside torch's."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from embedkit.native.dispatch import CPU, levels_here, why_not_here
from embedkit.training.engine import native_linear
from embedkit.training.engine.native_linear import LEAST_ROWS, fits, multiply, use_kernels

REASON = why_not_here("fp32")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ROUNDING = 1e-6  # of a sum of float32 products, as a share of the sum of their magnitudes


@pytest.fixture
def whatever_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels multiply on every processor that has any."""
    monkeypatch.setattr(native_linear, "why_not", lambda: None)


@pytest.mark.parametrize("level", levels_here() if REASON is None else [])
def test_kernels_multiply_only_where_they_outrun_torch(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CPU, level)
    assert use_kernels(nn.Linear(64, 192)) == (level == "avx512")
    assert (native_linear.why_not() is None) == (level == "avx512")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rows", [1, 191, 192, 193, 500])
def test_products_equal_those_in_float64(rows: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 128), torch.randn(64, 128), torch.randn(64)
    expected = x.double() @ weight.double().t() + bias
    magnitude = float((x.double().abs() @ weight.double().abs().t()).max())
    torch.testing.assert_close(
        multiply(x, weight, bias).double(), expected, rtol=0, atol=ROUNDING * magnitude
    )


def test_a_row_is_computed_the_same_way_in_any_company() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(400, 128), torch.randn(192, 128)
    assert torch.equal(multiply(x, weight, None)[17:60], multiply(x[17:60], weight, None))


@pytest.mark.usefixtures("threads", "whatever_is_faster")
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_equal_torchs(bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(64, 192, bias=bias), nn.Linear(64, 192, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    assert use_kernels(ours) == 1
    x = torch.randn(2, LEAST_ROWS + 5, 64).unbind()[1].requires_grad_()
    weights = torch.randn(LEAST_ROWS + 5, 192)
    found = []
    for layer in (ours, theirs):
        out = layer(x)
        found.append([out, *torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])])
    assert "_Product" in type(found[0][0].grad_fn).__name__
    assert "_Product" not in type(found[1][0].grad_fn).__name__
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("whatever_is_faster")
def test_what_the_kernels_do_not_fit_stays_with_torch() -> None:
    assert not fits(nn.Linear(64, 100))
    assert not fits(nn.Linear(100, 64))
    assert not fits(nn.Linear(64, 64).double())
    layer = nn.Linear(64, 64)
    use_kernels(layer)
    few, batched, many = (
        torch.randn(LEAST_ROWS - 1, 64),
        torch.randn(2, LEAST_ROWS, 64),
        torch.randn(LEAST_ROWS, 64),
    )
    assert "_Product" not in type(layer(few).grad_fn).__name__
    assert "_Product" not in type(layer(batched).grad_fn).__name__
    assert "_Product" in type(layer(many).grad_fn).__name__
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(many).dtype == torch.bfloat16


@pytest.mark.usefixtures("whatever_is_faster")
def test_a_copy_computes_with_its_own_weights() -> None:
    layer = nn.Linear(64, 64)
    use_kernels(layer)
    other = copy.deepcopy(layer)
    nn.init.zeros_(other.weight)
    nn.init.zeros_(other.bias)
    assert not other(torch.randn(LEAST_ROWS, 64)).detach().any()


@pytest.mark.usefixtures("whatever_is_faster")
def test_the_names_of_weights_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    names = list(module.state_dict())
    assert use_kernels(module) == 1
    assert list(module.state_dict()) == names
