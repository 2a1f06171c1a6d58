"""Stages of cases: each keeps to its time limit, survives a failing case, and writes every result at once.

Standard library only.
"""

from __future__ import annotations

import json
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

SETUP = "setup"  # the name of the case where a stage fails before it has one
State = Literal["ok", "wrong", "failed", "skipped", "timed out"]


class SkipError(Exception):
    """A case cannot run here; the message says why."""


class OutOfTimeError(BaseException):  # so that no `except Exception` in between catches it
    """The stage has used up its time."""


@dataclass(frozen=True)
class Measured:
    """The numbers that a case found, and the limits that some of them must not exceed."""

    values: Mapping[str, float | str]
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """The names of the numbers above their limit, or NaN."""
        return [name for name, limit in self.limits.items() if not float(self.values[name]) <= limit]


Case = tuple[str, Callable[[], Measured]]


@dataclass(frozen=True)
class Stage:
    """Cases that share a time limit; with `checks`, all of them must have run."""

    name: str
    seconds: float
    cases: Callable[[], Iterator[Case]]
    checks: bool


@dataclass(frozen=True)
class Result:
    """The result of one case."""

    stage: str
    case: str
    state: State
    seconds: float
    values: Mapping[str, float | str] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    message: str = ""


class Log:
    """Prints each result and appends it to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("", encoding="utf-8")
        self.results: list[Result] = []

    def add(self, result: Result) -> None:
        self.results.append(result)
        # JSON has neither NaN nor infinity: they are written as strings.
        values = {
            name: value if isinstance(value, str) or math.isfinite(value) else str(value)
            for name, value in result.values.items()
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**asdict(result), "values": values}) + "\n")
        numbers = ", ".join(
            f"{name} {plain(value)}"
            + (f" (limit {plain(result.limits[name])})" if name in result.limits else "")
            for name, value in result.values.items()
        )
        last = result.message.strip().splitlines()[-1:] if result.message else []
        text = f"{result.state:8}  {result.stage}: {result.case}  {numbers}{''.join(last)}  [{result.seconds:.1f} s]"
        print(text, flush=True)


def plain(value: float | str) -> str:
    """Format a number with three or four significant digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def run_stage(stage: Stage, log: Log, *, until: float) -> None:
    """Run a stage's cases in order, until its own time limit or `until` (as time.monotonic counts)."""
    print(f"\n{stage.name} …", flush=True)
    stop = min(until, time.monotonic() + stage.seconds)
    cases: Iterator[Case] | None = None
    while True:
        name, message, found = SETUP, "", Measured({})
        started = time.monotonic()
        try:
            with limited(stop - started):
                cases = stage.cases() if cases is None else cases
                case = next(cases, None)
                if case is None:
                    return
                name, work = case
                found = work()
            state: State = "wrong" if found.wrong else "ok"
        except SkipError as exc:
            state, message = "skipped", str(exc)
        except OutOfTimeError:
            state, message = (
                "timed out",
                f"the {stage.seconds:.0f} s of the stage, or the time of the whole run, were over",
            )
        except Exception:  # any error is a result of its case; the other cases still run
            state, message = "failed", traceback.format_exc()
        seconds = round(time.monotonic() - started, 3)
        log.add(Result(stage.name, name, state, seconds, found.values, found.limits, message))
        if state == "timed out" or name == SETUP:  # a generator that raised yields no more cases
            return


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the body after so many seconds, as soon as Python code runs again."""
    if seconds <= 0:
        raise OutOfTimeError

    def end(number: int, frame: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
