"""Rotary positions in a config.json, both ways: their base, and how they are scaled."""

from __future__ import annotations

import math
from typing import Any, get_args

from embedkit.checkpoint.families.fields import wanted
from embedkit.checkpoint.families.row import Json
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig
from embedkit.model.rope_config import RopeScaling, RopeScalingConfig

UNEQUAL: tuple[RopeScaling, ...] = get_args(RopeScaling)


def read_rope(
    content: Json, where: str, *, default: float, head_size: int, kind: str = "", old_key: str = "rope_theta"
) -> tuple[float, float]:
    """Return the base of the rotary frequencies, and what positions are divided by.

    Newer configs say it in `rope_parameters`, of one `kind` of layer or of all; older ones in `old_key` and `rope_scaling`. NTK's scaling
    by s is another base and a division by s^(2/d) (bloc97 2023; "fixed" in Su 2023, https://kexue.fm/archives/9706).

    Raises:
        CheckpointError: positions are scaled in a way that we do not compute.
    """
    theta, scaling = _parameters(content, where, default=default, kind=kind, old_key=old_key)
    named = _named(scaling)
    if named == "default":
        return theta, 1.0
    factor = _factor(scaling, where)
    if named == "linear":
        return theta, factor
    if named == "ntk" and scaling.get("mixed_b") is None:
        return theta * factor, float(factor ** (2 / head_size))
    raise CheckpointError(
        f"{where}: rotary positions are scaled by {named!r}; default, linear and ntk without mixed_b are computed"
    )


def read_scaled_rope(content: Json, where: str, *, default: float) -> dict[str, Any]:
    """Return the fields of rotary positions of a family whose frequencies may be scaled unequally.

    Raises:
        CheckpointError: as `read_rope`, or a number of the scaling is missing.
    """
    theta, scaling = _parameters(content, where, default=default, kind="", old_key="rope_theta")
    wanted(content, where, partial_rotary_factor=1.0)
    wanted(scaling, where, partial_rotary_factor=1.0)
    named = _named(scaling)
    if named in ("default", "linear"):
        return {
            "global_rope_theta": theta,
            "rope_factor": 1.0 if named == "default" else _factor(scaling, where),
        }
    if named not in UNEQUAL:
        raise CheckpointError(
            f"{where}: rotary positions are scaled by {named!r}; default, linear, {', '.join(UNEQUAL)} are computed"
        )
    return {"global_rope_theta": theta, "rope_scaling": _read_scaling(named, scaling, content, where)}


def _parameters(content: Json, where: str, *, default: float, kind: str, old_key: str) -> tuple[float, Json]:
    """Return the base, and what says how positions are scaled."""
    parameters = json_field(content, "rope_parameters", dict[str, Any](), where)
    if kind and isinstance(parameters.get(kind), dict):
        parameters = parameters[kind]
    elif kind == "sliding_attention":
        parameters = {}
    scaling = parameters
    if not parameters and kind != "sliding_attention":
        scaling = json_field(content, "rope_scaling", dict[str, Any](), where)
    theta = json_field(parameters, "rope_theta", json_field(content, old_key, default, where), where)
    return theta, scaling


def _factor(scaling: Json, where: str) -> float:
    factor = json_field(scaling, "factor", 1.0, where)
    if factor <= 0:
        raise CheckpointError(f"{where}: factor of the rotary positions is {factor}; it must be above 0")
    return factor


def _named(scaling: Json) -> str:
    return str(scaling.get("rope_type") or scaling.get("type") or "default")


def _read_scaling(kind: RopeScaling, scaling: Json, content: Json, where: str) -> RopeScalingConfig:
    longest = json_field(content, "max_position_embeddings", 0, where)
    first = json_field(scaling, "original_max_position_embeddings", longest, where)
    first = json_field(content, "original_max_position_embeddings", first, where)
    fields: dict[str, Any] = {}
    match kind:
        case "dynamic":  # of which the config's own length is the first one
            first = longest
        case "llama3":
            for name in ("low_freq_factor", "high_freq_factor"):
                fields[name] = _number(scaling, name, where)
        case "yarn":
            if scaling.get("factor") is None and first:
                scaling = {**scaling, "factor": longest / first}
            fields = {
                "attention_factor": _attention_factor(scaling, where),
                "beta_fast": json_field(scaling, "beta_fast", 32.0, where) or 32.0,
                "beta_slow": json_field(scaling, "beta_slow", 1.0, where) or 1.0,
                "truncate": json_field(scaling, "truncate", True, where),
            }
    return RopeScalingConfig(
        kind=kind,
        factor=_number(scaling, "factor", where),
        original_max_position_embeddings=first,
        **fields,
    )


def _number(scaling: Json, name: str, where: str) -> float:
    found = json_field(scaling, name, math.nan, where)
    if math.isnan(found):
        raise CheckpointError(
            f"{where}: the scaling of the rotary positions lacks {name!r}. Take the model's own config.json"
        )
    return found


def _attention_factor(scaling: Json, where: str) -> float:
    """Return what queries and keys are multiplied by: the config's own number, else that of YaRN's section 3.4 and its variants."""
    given = json_field(scaling, "attention_factor", math.nan, where)
    if not math.isnan(given):
        return given
    factor = _number(scaling, "factor", where)
    above = json_field(scaling, "mscale", 0.0, where)
    below = json_field(scaling, "mscale_all_dim", 0.0, where)

    def grown(share: float) -> float:
        return 0.1 * share * math.log(factor) + 1.0 if factor > 1 else 1.0

    return grown(above) / grown(below) if above and below else grown(1.0)


def written_rope(theta: float, factor: float) -> dict[str, Any]:
    """Return the parameters of rotary positions as transformers 5 writes them."""
    if factor == 1:
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta, "factor": factor}


def written_scaled_rope(config: EncoderConfig) -> dict[str, Any]:
    """Return them for a family whose frequencies may be scaled unequally."""
    scaling = config.rope_scaling
    if scaling is None:
        return written_rope(config.global_rope_theta, config.rope_factor)
    names: dict[RopeScaling, tuple[str, ...]] = {
        "yarn": (
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "truncate",
        ),
        "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        "dynamic": (),
    }
    content = {"rope_type": scaling.kind, "rope_theta": config.global_rope_theta, "factor": scaling.factor}
    return content | {name: getattr(scaling, name) for name in names[scaling.kind]}
