"""Loading a model to compute as a plan says, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from embedkit.distributed.plan import Computed, ShardPlan
from embedkit.errors import DeviceError
from embedkit.types import Computing

Model = TypeVar("Model")


def load_as_planned(load: Callable[[Computing], Model], plan: ShardPlan, computed: Computed) -> Model:
    """Load a model as it was `computed` when the plan was made; where that cannot be and the plan allows it, as it can be.

    Raises:
        DeviceError: it cannot be computed so here.
    """
    try:
        return load(computed.computing())
    except DeviceError:
        if not plan.allow_other:
            raise
    with suppress(DeviceError):
        return load(Computing(precision=computed.precision))  # type: ignore[arg-type] # read from JSON
    return load(Computing(precision="fp32"))
