"""How a model generates unless the user says otherwise, as transformers keeps it in generation_config.json. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.errors import CheckpointError

logger = logging.getLogger(__name__)

TOP_K = 50  # of what is drawn, unless the file says otherwise
# Settings that change what is generated and are not computed here, each with the value that changes nothing.
_NEUTRAL: Mapping[str, object] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "min_p": 0.0,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "suppress_tokens": None,
    "typical_p": 1.0,
}
# Settings that are taken over as they are, and what they are called here.
_SAME: Mapping[str, tuple[str, type]] = {
    "length_penalty": ("length_penalty", float),
    "no_repeat_ngram_size": ("no_repeat_ngram", int),
    "num_return_sequences": ("num_outputs", int),
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "max_new_tokens": ("max_new_tokens", int),
    "min_new_tokens": ("min_new_tokens", int),
}


def read_generation_defaults(folder: Path, *, start: int, end: int) -> dict[str, Any]:  # Any: JSON values
    """Return the fields of `GenerationOptions` that a folder's generation_config.json sets; none where there is no such file.

    `start` and `end` are the tokens that texts begin and end with. max_length and min_length count the first one; max_new_tokens and
    min_new_tokens come before them. Settings that are not computed here are named in a warning.

    Raises:
        CheckpointError: the file is damaged, a value is of another type, or texts begin or end with other tokens.
    """
    path = folder / "generation_config.json"
    content, where = read_json(path, {}), str(path)
    _check_tokens(content, start, end, where)
    found: dict[str, Any] = {}
    for theirs, least in (("max_length", 1), ("min_length", 0)):
        length = _value(content, theirs, int, where)
        if length:
            found[f"{theirs[:3]}_new_tokens"] = max(least, length - 1)
    for theirs, (ours, kind) in _SAME.items():
        if (value := _value(content, theirs, kind, where)) is not None:
            found[ours] = value
    top_k, beams = (_value(content, name, int, where) for name in ("top_k", "num_beams"))
    if beams is not None:
        found["num_beams"] = beams
    drawn = _value(content, "do_sample", bool, where)
    if drawn:
        found["method"] = "sample"
        top_k = TOP_K if top_k is None else top_k
    elif beams is not None or drawn is not None:
        found["method"] = "beam" if (beams or 1) > 1 else "greedy"
    if top_k:  # 0: all
        found["top_k"] = top_k
    _warn_of_others(content, drawn=bool(drawn), beams=beams or 1, where=where)
    return found


def _value(content: Mapping[str, Any], name: str, kind: type, where: str) -> Any:  # Any: JSON values
    return None if content.get(name) is None else json_field(content, name, kind(), where)


def _check_tokens(content: Mapping[str, Any], start: int, end: int, where: str) -> None:
    for name, wanted in (("decoder_start_token_id", start), ("eos_token_id", end)):
        given = content.get(name)
        if given is not None and given not in (wanted, [wanted]):
            raise CheckpointError(
                f"{where}: {name} is {given}; the model's config and tokenizer say {wanted}. Take all from the same model"
            )


def _warn_of_others(content: Mapping[str, Any], *, drawn: bool, beams: int, where: str) -> None:
    """Name what would change outputs and is not computed."""
    others = [name for name, value in _NEUTRAL.items() if content.get(name) not in (None, value)]
    if drawn and beams > 1:
        others.append("num_beams with do_sample")
    elif beams == 1 and "early_stopping" in others:
        others.remove("early_stopping")  # of beams alone
    if others:
        logger.warning(
            "%s: %s %s not computed, and left out: outputs differ from those of transformers",
            where,
            ", ".join(sorted(others)),
            "is" if len(others) == 1 else "are",
        )
