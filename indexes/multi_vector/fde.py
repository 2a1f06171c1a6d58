"""Fixed-dimensional encodings: one vector a text whose products are near to MaxSim, for the first stage of any ordinary index.

1. Random hyperplanes cut the space of token vectors into 2^bits parts (SimHash); a text has a block of numbers for each part.
2. A query's block is the sum of its vectors in the part; a document's is their mean, so that each of the query's vectors meets, as in
   MaxSim, about one of the document's. A document's part without a vector takes the one that is nearest to it by its bits.
3. A random projection shortens each block; all of it is repeated with other hyperplanes, and the blocks stand side by side.
4. Where a final width is given, a random projection takes all of it there.
Source: Dhulipala et al. 2024 (MUVERA), https://arxiv.org/abs/2405.19504, sections 2 and 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexMismatchError
from embedkit.retrieval.token_vectors import TokenVectors

from ..storage.codes import FloatArray

Parts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FixedEncoder:
    """Makes encodings of token vectors; those that are to be compared must come from equal encoders.

    >>> encoder = FixedEncoder(dimension=128)
    >>> encoder.width
    10240
    """

    dimension: int
    bits: int = 5
    repetitions: int = 20
    projected: int = 16  # numbers of a block; as many as the dimension, or more: it is not projected
    final: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.dimension, self.repetitions, self.projected, self.final or 1) < 1
            or not 0 <= self.bits <= 16
        ):
            raise ValueError(f"{self}: all sizes must be at least 1, and bits from 0 to 16")

    @property
    def width(self) -> int:
        """The numbers of an encoding."""
        return self.final or self.repetitions * 2**self.bits * self.block

    @property
    def block(self) -> int:
        """The numbers of one part."""
        return min(self.projected, self.dimension)

    def queries(self, vectors: TokenVectors) -> FloatArray:
        """Encode N queries: (N, width); zeros for one without vectors."""
        return self._encode(vectors, documents=False)

    def documents(self, vectors: TokenVectors) -> FloatArray:
        """Encode N documents: (N, width); zeros for one without vectors."""
        return self._encode(vectors, documents=True)

    @cached_property
    def _planes(self) -> FloatArray:
        rng = np.random.default_rng([self.seed, 0])
        return rng.standard_normal((self.repetitions, self.dimension, self.bits)).astype(np.float32)

    @cached_property
    def _shortening(self) -> FloatArray | None:
        if self.block == self.dimension:
            return None
        rng = np.random.default_rng([self.seed, 1])
        signs = rng.choice(np.array([-1, 1], np.float32), (self.repetitions, self.dimension, self.block))
        return np.asarray(signs / np.float32(self.block**0.5))

    @cached_property
    def _ending(self) -> FloatArray | None:
        if self.final is None:
            return None
        rng = np.random.default_rng([self.seed, 2])
        signs = rng.choice(
            np.array([-1, 1], np.float32), (self.repetitions * 2**self.bits * self.block, self.final)
        )
        return np.asarray(signs / np.float32(self.final**0.5))

    def _encode(self, vectors: TokenVectors, *, documents: bool) -> FloatArray:
        if vectors.vectors.shape[1] != self.dimension:
            raise IndexMismatchError(
                f"token vectors of {vectors.vectors.shape[1]} dimensions were given; the encoding is of {self.dimension}"
            )
        blocks = [self._repeat(vectors, number, documents=documents) for number in range(self.repetitions)]
        # Each repetition is near to MaxSim by itself: together they are their mean.
        found = np.concatenate(blocks, axis=1) / np.float32(self.repetitions**0.5)
        return found if self._ending is None else np.asarray(found @ self._ending, np.float32)

    def _repeat(self, vectors: TokenVectors, number: int, *, documents: bool) -> FloatArray:
        """Return the blocks of one repetition: (N, 2^bits * block)."""
        values = vectors.vectors
        if self._shortening is not None:
            values = values @ self._shortening[number]
        signs = vectors.vectors @ self._planes[number] > 0
        parts = (signs.astype(np.int64) << np.arange(self.bits)).sum(axis=1)
        count, total = 2**self.bits, len(vectors)
        owners = np.repeat(np.arange(total), vectors.counts) * count + parts
        sums = np.zeros((total * count, self.block), np.float32)
        order = np.argsort(owners, kind="stable")
        firsts = np.flatnonzero(np.diff(owners[order], prepend=-1))
        if len(firsts):
            sums[owners[order][firsts]] = np.add.reduceat(values[order], firsts, axis=0)
        if documents:
            sizes = np.bincount(owners, minlength=total * count)
            sums /= np.maximum(sizes, 1)[:, None]
            _fill(sums, sizes, values, parts, vectors, count)
        return sums.reshape(total, count * self.block)


def _fill(
    sums: FloatArray, sizes: Parts, values: FloatArray, parts: Parts, vectors: TokenVectors, count: int
) -> None:
    """Give each empty part of a document the vector whose part differs in the fewest bits, the first of equal ones."""
    differing = np.array([number.bit_count() for number in range(count)])
    starts = vectors.starts
    for text in np.flatnonzero(vectors.counts).tolist():
        empty = np.flatnonzero(sizes[text * count : (text + 1) * count] == 0)
        if len(empty):
            own = slice(starts[text], starts[text + 1])
            nearest = np.argmin(differing[empty[:, None] ^ parts[own]], axis=1)
            sums[text * count + empty] = values[own][nearest]
