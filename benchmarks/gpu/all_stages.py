"""All stages, in order, with their time limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from . import (
    ceilings,
    check_commands,
    check_encoding,
    check_models,
    check_repetition,
    check_search,
    check_training,
    speed_encoding,
    speed_search,
    speed_training,
)
from .setting import Setting
from .stages import Case, Stage


def all_stages(setting: Setting) -> list[Stage]:
    """Checks come first; their limits leave nearly half of the time for the measurements."""

    def stage(
        name: str, seconds: float, cases: Callable[[Setting], Iterator[Case]], *, checks: bool = False
    ) -> Stage:
        # Sizes are tiny then, but the machine may be slow.
        return Stage(name, setting.size(seconds, 600), partial(cases, setting), checks)

    return [
        stage("encoding", 45, check_encoding.cases, checks=True),
        stage("packed tokens", 20, check_models.packed_cases, checks=True),
        stage("reranking and heads", 25, check_models.reranking_cases, checks=True),
        stage("search", 30, check_search.cases, checks=True),
        stage("training", 60, check_training.cases, checks=True),
        stage("repetition", 45, check_repetition.cases, checks=True),
        stage("commands and tests", 75, check_commands.cases, checks=True),
        stage("rates of the device", 15, ceilings.cases),
        stage("speed of encoding", 90, speed_encoding.cases),
        stage("speed of training", 60, speed_training.cases),
        stage("speed of search", 75, speed_search.cases),
        stage("compiled layers", 60, check_repetition.compiled_cases),  # last, since compiling is slow
    ]
