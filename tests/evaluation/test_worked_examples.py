"""The examples in the docstrings of the evaluation are true."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from embedkit.evaluation import agreement, metrics, significance


@pytest.mark.parametrize("module", [agreement, metrics, significance])
def test_examples_in_docstrings_are_true(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
