"""Loading a model to compute as a plan says, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from embedkit.distributed.plan import Computed, ShardPlan
from embedkit.errors import DeviceError
from embedkit.pipelines.embedders import load_any_encoder
from embedkit.types import Computing

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEncoder

Model = TypeVar("Model")


def load_planned_encoder(plan: ShardPlan) -> AnyEncoder:
    """Load the plan's encoder, of whatever kind, computed as planned.

    Raises:
        As `load_as_planned`; CheckpointError: it cannot be loaded.
    """
    settings, share = plan.index_settings, plan.computed.merge_tokens
    loading = plan.loading
    if settings.kind == "sparse":
        loading = {"max_active_dims": (settings.fingerprint or {}).get("max_active_dims"), **loading}

    def load(computing: Computing) -> AnyEncoder:
        return load_any_encoder(plan.model_path, computing, loading, merge_tokens=share, measure=False)

    return load_as_planned(load, plan, plan.computed)


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
