from __future__ import annotations

from typing import Any

import pytest

from embedkit.errors import CheckpointError, RecipeError
from embedkit.generation.options import GenerationOptions, resolve_options


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_outputs": 0}, "num_outputs is 0; it must be at least 1"),
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"temperature": 0.0}, r"temperature is 0\.0; it must be above 0"),
        ({"top_p": 1.1}, r"top_p is 1\.1; it must be above 0 and at most 1"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens is 9; it must be at most max_new_tokens 8"),
        ({"method": "greedy", "num_outputs": 2}, "num_outputs is 2 with method greedy, which gives one"),
        ({"num_outputs": 5}, "num_outputs is 5 of 4 beams; it must be at most num_beams"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1; it must be at least 0"),
    ],
)  # fmt: skip
def test_options_check_their_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationOptions(**fields)


def test_the_users_options_lie_over_the_folders_over_the_defaults() -> None:
    own = {"method": "sample", "top_k": 25, "max_new_tokens": 32}
    given = {"top_k": 5, "top_p": None, "num_outputs": 3}
    found = resolve_options(own, given, "folder")
    assert found == GenerationOptions(method="sample", top_k=5, max_new_tokens=32, num_outputs=3)


def test_more_outputs_than_beams_widen_the_search_unless_its_width_was_asked_for() -> None:
    assert resolve_options({}, {"num_outputs": 6}, "folder").num_beams == 6
    assert resolve_options({"num_beams": 2}, {"num_outputs": 6}, "folder").num_beams == 6
    with pytest.raises(RecipeError, match=r"folder: recipe: num_outputs is 6 of 4 beams.* Change the option"):
        resolve_options({}, {"num_outputs": 6, "num_beams": 4}, "folder")


def test_a_folder_of_a_later_version_is_told() -> None:
    with pytest.raises(CheckpointError, match="folder: generation has 'contrast', which is no option here"):
        resolve_options({"contrast": 1}, {}, "folder")
