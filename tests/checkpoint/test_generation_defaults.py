"""generation_config.json: what is taken over, what is named because it is not computed, and what does not fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from embedkit.checkpoint.generation_defaults import read_generation_defaults
from embedkit.errors import CheckpointError
from embedkit.generation.options import GenerationOptions, resolve_options


def read(folder: Path, **content: object) -> dict[str, Any]:
    (folder / "generation_config.json").write_text(json.dumps(content), encoding="utf-8")
    return read_generation_defaults(folder, start=0, end=1)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"_from_model_config": True, "decoder_start_token_id": 0, "eos_token_id": 1}, {}),
        ({"num_beams": 3, "max_length": 21}, {"method": "beam", "num_beams": 3, "max_new_tokens": 20}),
        ({"num_beams": 1}, {"method": "greedy", "num_beams": 1}),
        ({"do_sample": False}, {"method": "greedy"}),
        ({"do_sample": True, "top_p": 0.9, "top_k": 0}, {"method": "sample", "top_p": 0.9}),
        ({"do_sample": True, "temperature": 1}, {"method": "sample", "temperature": 1.0, "top_k": 50}),
        (
            {"max_length": 20, "max_new_tokens": 9, "min_length": 4},
            {"max_new_tokens": 9, "min_new_tokens": 3},
        ),
        ({"min_length": 0, "length_penalty": 2, "repetition_penalty": 1.0}, {"length_penalty": 2.0}),
        ({"no_repeat_ngram_size": 2, "eos_token_id": [1], "top_p": None}, {"no_repeat_ngram": 2}),
        (
            {"num_beams": 4, "num_return_sequences": 2},
            {"method": "beam", "num_beams": 4, "num_outputs": 2},
        ),
    ],
    ids=str,
)
def test_settings_are_taken_over(
    content: dict[str, object], wanted: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, **content)
    assert found == wanted
    assert resolve_options(found, {}, "here") == GenerationOptions(**found)
    assert not caplog.records


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read_generation_defaults(tmp_path, start=0, end=1) == {}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"repetition_penalty": 1.2, "suppress_tokens": [3]}, "repetition_penalty, suppress_tokens are not"),
        ({"do_sample": True, "num_beams": 2}, "num_beams with do_sample is not computed"),
        ({"num_beams": 2, "early_stopping": True}, "early_stopping is not computed"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_named(
    content: dict[str, object], named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read(tmp_path, **content)
    (record,) = caplog.records
    assert named in record.getMessage()


def test_early_stopping_is_of_beams_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(tmp_path, early_stopping=True, num_beams=1) == {"method": "greedy", "num_beams": 1}
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"num_beams": "4"}, "'num_beams' is '4'; it must be a whole number"),
        (
            {"decoder_start_token_id": 2},
            "decoder_start_token_id is 2; the model's config and tokenizer say 0",
        ),
        ({"eos_token_id": [1, 7]}, r"eos_token_id is \[1, 7\]; the model's config and tokenizer say 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(content: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, **content)
