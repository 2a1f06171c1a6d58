"""Changing a value in a JSON file: the rest stays, to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.serving.mcp.jsonc import read_jsonc, set_member

SETTINGS = """// My settings
{
    "theme": "dark, // not a comment",
    /* servers */
    "servers": {
        "other": {"command": "x"}, // keep, this
    },
    "numbers": [1, 2,],
}
"""


def test_comments_commas_and_layout_stay() -> None:
    changed = set_member(SETTINGS, ["servers", "mine"], {"command": "y"})
    assert changed == SETTINGS.replace(
        '"other": {"command": "x"}, // keep, this\n',
        '"other": {"command": "x"}, // keep, this\n        "mine": {\n            "command": "y"\n        }\n',
    )
    assert set_member(changed, ["servers", "mine"], 1) == changed.replace(
        '{\n            "command": "y"\n        }', "1"
    )
    assert read_jsonc(changed)["servers"] == {"other": {"command": "x"}, "mine": {"command": "y"}}


def test_what_is_missing_on_the_way_is_made() -> None:
    assert read_jsonc(set_member("", ["a", "b"], 1)) == {"a": {"b": 1}}
    assert set_member('{\n  "x": 1 // one\n}\n', ["a"], 2) == '{\n  "x": 1, // one\n  "a": 2\n}\n'


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "{", '{"a": {"b": }}', "nonsense"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no object|Expecting"):
        set_member(text, ["a", "b"], 1)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(), values, max_size=4),
    st.text(),
    st.text(),
    values,
    st.sampled_from([None, 1, 2, "\t"]),
)
def test_a_member_is_set_and_the_others_stay(
    content: dict[str, Any], key: str, inner: str, value: Any, indent: int | str | None
) -> None:
    text = json.dumps(content, indent=indent)
    around = content.get(key, {})
    if not isinstance(around, dict):
        with pytest.raises(ValueError, match="no object"):
            set_member(text, [key, inner], value)
        return
    assert json.loads(set_member(text, [key, inner], value)) == content | {key: around | {inner: value}}
