"""The precision of a run: settled once for all ranks, written to run.json, and kept where the run is resumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from embedkit.training.engine.precision import ChosenPrecision, choose_precision
from embedkit.training.engine.ranks import Ranks
from embedkit.training.engine.recipes import RunRecipe
from embedkit.training.engine.run_folder import RunFolder


def with_precision(ranks: Ranks, run: RunRecipe, resumed: RunFolder | None = None) -> Ranks:
    """Settle what a run computes in, once: the format that a resumed run began with, else by the recipe; rank 0 decides for all.

    Raises:
        DeviceError: the device does not compute in the precision asked for.
    """
    if ranks.precision is not None:
        return ranks
    recorded = None if resumed is None else _recorded(resumed)
    chosen = choose_precision(ranks.device, run.precision, recorded=recorded)
    if ranks.world > 1:
        first = ranks.total({"bf16": chosen.format == "bf16" and ranks.first})["bf16"] > 0
        chosen = replace(chosen, format="bf16" if first else "fp32")
    return replace(ranks, precision=chosen)


def _recorded(folder: RunFolder) -> ChosenPrecision | None:
    """Return what a run began to compute in, and what was measured then."""
    entries = folder.read_manifest()
    found = entries.get("precision")
    return ChosenPrecision(found, entries.get("measured")) if found in ("fp32", "bf16") else None


def precision_entries(ranks: Ranks) -> dict[str, Any]:  # Any: JSON values
    """Return what run.json says of the precision."""
    chosen = ranks.precision
    if chosen is None:
        return {}
    measured = {} if chosen.seconds is None else {"measured": dict(chosen.seconds)}
    return {"precision": chosen.format, **measured}
