"""Say on stderr what goes on, with the seconds since the start."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

STARTED = time.time()


def say(*words: object) -> None:
    print(f"{time.time() - STARTED:7.1f}s", *words, file=sys.stderr, flush=True)


def rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 4) for name, number in numbers.items()}
