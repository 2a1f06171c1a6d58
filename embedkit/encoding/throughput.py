"""How many texts a second an encoder takes, by their length and by how many come at once."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedkit.encoding.encoder import Encoder

# Common words: one token each in nearly every vocabulary, so that texts of a wanted length can be cut.
_COMMON = (
    "the of and to in a is that for it was on are as with they be at one have this from by hot but some what there we "
    "can out other were all your when up use word how said an each she which do their time if will way about many then "
    "them would write like so these her long make thing see him two has look more day could go come did my sound no most "
    "number who over know water than call first people may down side been now find any new work part take get place"
)
WORDS = _COMMON.split()
LONG = 5.0


@dataclass(frozen=True)
class Throughput:
    """Encoding `batch` texts of `length` tokens in one call: the median seconds of a call."""

    length: int
    batch: int
    seconds: float
    calls: int

    @property
    def texts_per_second(self) -> float:
        return self.batch / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.length * self.texts_per_second


def texts_of_length(encoder: Encoder, length: int, count: int, *, seed: int = 0) -> list[str]:
    """Make different texts of `length` tokens, special ones included.

    Raises:
        ValueError: the model reads fewer tokens, or the length leaves no room for a word.
    """
    room = length - encoder.tokenizer.single.num_special
    if room < 1 or length > encoder.tokenizer.max_length:
        raise ValueError(
            f"texts of {length} tokens were asked for; this model reads {encoder.tokenizer.single.num_special + 1} "
            f"to {encoder.tokenizer.max_length}"
        )
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        text = " ".join(draw.choices(WORDS, k=room))
        texts.append(text[: encoder.tokenizer.offsets(text)[:room][-1][1]])
    return texts


def measure_encoding(
    encoder: Encoder, *, lengths: Sequence[int], batches: Sequence[int], seconds: float = 1.0
) -> Iterator[Throughput]:
    """Measure each length with each batch: one call unmeasured, then calls for `seconds`, three at least.

    A call that takes longer than `LONG` times that is made once: what its first call sets up is next to nothing then.
    """
    enough = LONG * seconds if seconds else math.inf
    for length in lengths:
        texts = texts_of_length(encoder, length, max(batches))
        for batch in batches:
            first = _timed(encoder, texts[:batch])
            taken = [first] if first > enough else []
            while sum(taken) < seconds or (len(taken) < 3 and sum(taken) <= enough):
                taken.append(_timed(encoder, texts[:batch]))
            yield Throughput(length, batch, statistics.median(taken), len(taken))


def _timed(encoder: Encoder, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    encoder.encode(texts, on_truncate="ok")
    return time.perf_counter() - started
