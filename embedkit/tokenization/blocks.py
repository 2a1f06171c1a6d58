"""The tokens of a long text a block at a time: those of the whole text, in the memory that a block of it takes.

What a tokenizer keeps of each token takes some forty times the room of its characters, so a book is cut into blocks. A block
begins before the one before it ends; behind that place the tokens of both must be the same for a while, and there the second
goes on for the first. Where they are not (a word or white space as long as what two blocks share) the block grows until they
are, at last to the end of the text. Of a text that is cut one block is enough: `ids_at_one_end`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

Span = tuple[int, int]  # start and stop in characters
Extent = Callable[
    [str], tuple[int, Span] | None
]  # how many tokens a text has at most, of one at least, and where they start and stop; None: not known
Offsets = Callable[[str], Sequence[Span]]  # the tokens of a text, without special ones
Tokens = Callable[[str], tuple[Sequence[int], Sequence[Span]]]  # their ids as well

BLOCK_CHARS = 2**16
# What two blocks share. A tokenizer is in step again after a word or two: the first half is for that, what is compared comes
# after it, and the last quarter keeps the comparison away from where the first block ends.
_SHARED_CHARS = 2**11


def token_blocks(
    offsets: Offsets, text: str, *, block_chars: int = BLOCK_CHARS, shared_chars: int = _SHARED_CHARS
) -> Iterator[Sequence[Span]]:
    """Yield the tokens of a text in order, as `offsets` gives them for all of it, in several parts."""
    start, stop = 0, min(block_chars, len(text))
    tokens, first = offsets(text[:stop]), 0  # those before the first came with the block before
    while stop < len(text):
        following_start = stop - shared_chars
        following_stop = min(following_start + block_chars, len(text))
        following = _tokens(offsets, text, following_start, following_stop)
        border = following_start + shared_chars // 2
        last, next_first = _border(tokens, border), _border(following, border)
        if _in_step(tokens[last:], following[next_first:], border + shared_chars // 4):
            yield tokens[first:last]
            start, stop, tokens, first = following_start, following_stop, following, next_first
        else:
            stop = min(start + 2 * (stop - start), len(text))
            tokens = _tokens(offsets, text, start, stop)
    yield tokens[first:]


def ids_at_one_end(
    tokens: Tokens,
    text: str,
    count: int,
    *,
    left: bool = False,
    block_chars: int = BLOCK_CHARS,
    shared_chars: int = _SHARED_CHARS,
) -> tuple[list[int], bool]:
    """Return the ids that `tokens` gives for a text from its beginning on, `count` at least, or `left` of its end those before it.

    The rest is not tokenized: a second, small block over the edge of the first says up to where that has the tokens of the whole text.

    Shapes:
        returns: all ids or `count` and more of them; whether they are all
    """
    size = block_chars
    while size < len(text):
        start, stop = (len(text) - size, len(text)) if left else (0, size)
        edge = start if left else stop
        ids, own = tokens(text[start:stop])
        spans = [(start + first, start + last) for first, last in own]
        across = max(0, edge - _coprime(shared_chars))
        other = _tokens(lambda part: tokens(part)[1], text, across, min(edge + shared_chars, len(text)))
        border = edge + (shared_chars // 4 if left else -shared_chars // 2)
        place = _border(spans, border)
        kept = ids[place:] if left else ids[:place]
        same = _in_step(spans[place:], other[_border(other, border) :], border + shared_chars // 4)
        if same and len(kept) >= count:
            return list(kept), False
        size *= 2
    return list(tokens(text)[0]), True


def _coprime(number: int) -> int:
    """Return the number, or the next below it that neither 2, 3, 5 nor 7 divides.

    Of a long run of one character tokens have two, three or more each: two blocks that begin a multiple of it apart would be out of step
    with the text in the same way, and be the same.
    """
    while math.gcd(number, 2 * 3 * 5 * 7) > 1:
        number -= 1
    return number


def _tokens(offsets: Offsets, text: str, start: int, stop: int) -> Sequence[Span]:
    return [(start + first, start + last) for first, last in offsets(text[start:stop])]


def _border(tokens: Sequence[Span], at: int) -> int:
    """Return how many tokens begin before a character."""
    number = len(tokens)
    while number and tokens[number - 1][0] >= at:
        number -= 1
    return number


def _in_step(before: Sequence[Span], after: Sequence[Span], stop: int) -> bool:
    """Say whether two blocks have the same tokens up to a character, and any at all."""
    there = _border(before, stop)
    return there > 0 and before[:there] == after[: _border(after, stop)]
