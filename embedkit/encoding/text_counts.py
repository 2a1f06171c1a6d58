"""Counting the texts that were embedded, whatever is made of them."""

from __future__ import annotations

from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class CountedWindow(Protocol):
    """Some texts that were embedded, and what there is to say about them: (N,) bool each."""

    @property
    def truncated(self) -> NDArray[np.bool_]: ...

    @property
    def empty(self) -> NDArray[np.bool_]: ...

    @property
    def unknown(self) -> NDArray[np.bool_]: ...

    @property
    def num_tokens(self) -> int: ...


class TextCounts:
    """How many texts and tokens were embedded, and how many of the texts were cut, empty or unknown to the model."""

    def __init__(self) -> None:
        self.texts = 0
        self.tokens = 0
        self.truncated = 0
        self.empty = 0
        self.unknown = 0
        self._counting = Lock()

    def count(self, window: CountedWindow) -> None:
        """Add what was embedded; may be called from several threads."""
        with self._counting:
            self.texts += len(window.truncated)
            self.tokens += window.num_tokens
            self.truncated += int(np.count_nonzero(window.truncated))
            self.empty += int(np.count_nonzero(window.empty))
            self.unknown += int(np.count_nonzero(window.unknown))
