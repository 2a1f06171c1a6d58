"""JSON lines that every reader takes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from embedkit.data.strict_json import from_loose_json, to_strict_json


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": 1.5, "ä": [True, None]}, '{"a": 1.5, "ä": [true, null]}'),
        (
            {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1, 2.0)},
            '{"a": null, "b": [null, {"c": null}], "d": [1, 2.0]}',
        ),
        ({"ä": "half \ud83d"}, r'{"\u00e4": "half \ud83d"}'),
        ({"x": math.nan, "y": "\ud83d"}, r'{"x": null, "y": "\ud83d"}'),
    ],
)
def test_what_json_cannot_hold_becomes_null_or_an_escape(content: Any, text: str) -> None:
    assert to_strict_json(content) == text
    json.loads(to_strict_json(content), parse_constant=pytest.fail)


def test_nan_and_infinities_are_read_as_null() -> None:
    assert from_loose_json('{"a": NaN, "b": [-Infinity, 1], "c": "NaN"}') == {
        "a": None,
        "b": [None, 1],
        "c": "NaN",
    }
