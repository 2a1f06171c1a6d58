"""How token vectors become a centroid and a few bits a number, and back.

A vector is stored as the number of the centroid that it is nearest to, and the difference from it:
1. Each number of the difference is divided by the scale of its dimension, and all of them by their root mean square.
2. Each then falls between two of a few cutoffs, and stands for the mean of what fell there.
3. What these stand for is as long as the difference by a gain, the one with the least square error, to the nearest 1.1%: a byte.
What is decoded is brought to unit length again.
Source: Santhanam et al. 2022, https://arxiv.org/abs/2112.01488, section 3.3; scales and gains are ours. The gain is worth its byte: on
simplewiki it takes a sixth off what the mean cosine with the vector itself lacks to 1.
"""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedkit.errors import IndexFileError
from embedkit.native.maxsim import StoredTokens
from embedkit.native.search import StoredVectors, can_search, num_threads
from embedkit.native.threads import on_threads

from ..storage.codes import FloatArray

Ids = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]
MAX_CENTROIDS = 65_536  # whose numbers fill two bytes
_MAGIC = b"EMBKCBK\x01"
_HEADER = struct.Struct("<8sIII")  # magic, bits, dimension, centroids
GAINS = np.exp2((np.arange(256) - 128) / 32).astype(np.float32)  # of each byte: a sixteenth to nearly 16
_CHUNK = 2048  # vectors whose products with all centroids are looked at together


@dataclass(frozen=True)
class Codebook:
    """What token vectors are told by.

    Shapes:
        centroids: (C, D) float32, of unit length or zeros; scales: (D,) float32; cutoffs: (2^bits - 1,) and weights: (2^bits,)
            float32, ascending
    """

    bits: int
    centroids: FloatArray
    scales: FloatArray
    cutoffs: FloatArray
    weights: FloatArray

    @property
    def dimension(self) -> int:
        return int(self.centroids.shape[1])

    @property
    def per_byte(self) -> int:
        """How many numbers stand in a byte, the first of them in its lowest bits."""
        return 8 // self.bits

    @property
    def row_bytes(self) -> int:
        """The bytes of one token: its gain and its numbers."""
        return 1 - (-self.dimension // self.per_byte)

    @cached_property
    def table(self) -> FloatArray:
        """What the numbers of each byte stand for: (256, numbers in a byte) float32."""
        digits = np.arange(256)[:, None] >> (self.bits * np.arange(self.per_byte)) & (2**self.bits - 1)
        return np.ascontiguousarray(self.weights[digits])

    @cached_property
    def native(self) -> StoredTokens:
        """The same as the kernels take it."""
        return StoredTokens(self.centroids, self.scales, self.table, GAINS)

    def nearest(self, vectors: FloatArray) -> Ids:
        """Return the centroid that each of (T, D) vectors is nearest to, by cosine: (T,)."""
        parts = [vectors[start : start + _CHUNK] for start in range(0, len(vectors), _CHUNK)]
        if len(parts) < 2:
            return np.concatenate([np.empty(0, np.uint16), *map(self._nearest, parts)])
        with ThreadPoolExecutor(num_threads(), "centroids") as pool:
            return np.concatenate(list(on_threads(pool, self._nearest, parts)))

    def _nearest(self, vectors: FloatArray) -> Ids:
        if can_search():
            floor = np.full(len(vectors), -np.inf, np.float32)
            found = StoredVectors(self.centroids, None, squared=False).scan(vectors, 1, floor=floor)[1][:, 0]
        else:
            found = np.argmax(vectors @ self.centroids.T, axis=1)
        return found.astype(np.uint16)

    def encode(self, vectors: FloatArray) -> tuple[Ids, Bytes]:
        """Turn (T, D) vectors of unit length into (T,) centroids and (T, row_bytes) bytes."""
        ids = self.nearest(vectors)
        codes = np.empty((len(vectors), self.row_bytes), np.uint8)
        for start in range(0, len(vectors), _CHUNK):
            part = slice(start, start + _CHUNK)
            values = normed(vectors[part] - self.centroids[ids[part]], self.scales)
            digits = self._digits(values)
            told, differences = self.weights[digits] * self.scales, vectors[part] - self.centroids[ids[part]]
            gains = np.einsum("td,td->t", told, differences) / np.einsum("td,td->t", told, told)
            steps = 128 + np.rint(32 * np.log2(np.maximum(gains, GAINS[0])))
            codes[part, 0] = np.minimum(steps, 255)
            codes[part, 1:] = self._packed(digits)
        return ids, codes

    def _digits(self, values: FloatArray) -> Bytes:
        """Return between which cutoffs each of (T, D) numbers falls."""
        digits = np.zeros(values.shape, np.uint8)
        for cutoff in self.cutoffs:
            digits += values > cutoff
        return digits

    def _packed(self, digits: Bytes) -> Bytes:
        count, filled = len(digits), (self.row_bytes - 1) * self.per_byte
        whole = np.zeros((count, filled), np.uint8)
        whole[:, : self.dimension] = digits
        shifted = whole.reshape(count, self.row_bytes - 1, self.per_byte) << (
            self.bits * np.arange(self.per_byte, dtype=np.uint8)
        )
        return np.asarray(np.bitwise_or.reduce(shifted, axis=2))

    def decode(self, ids: Ids, codes: Bytes) -> FloatArray:
        """Return what is stored of T tokens as (T, D) float32 of unit length."""
        filled = (self.row_bytes - 1) * self.per_byte
        vectors = self.table[codes[:, 1:]].reshape(len(ids), filled)[:, : self.dimension]
        vectors *= self.scales
        vectors *= GAINS[codes[:, 0]][:, None]
        vectors += self.centroids[ids]
        vectors /= np.maximum(np.sqrt(np.einsum("td,td->t", vectors, vectors)), 1e-12)[:, None]
        return vectors

    def to_bytes(self) -> bytes:
        """Return the codebook as a database keeps it, a checksum before it."""
        head = _HEADER.pack(_MAGIC, self.bits, self.dimension, len(self.centroids))
        arrays = (self.centroids, self.scales, self.cutoffs, self.weights)
        data = head + b"".join(array.astype("<f4").tobytes() for array in arrays)
        return struct.pack("<I", zlib.crc32(data)) + data

    @classmethod
    def from_bytes(cls, stored: bytes, place: str) -> Codebook:
        """Read what `to_bytes` wrote.

        Raises:
            IndexFileError: it is not what was written.
        """
        data = memoryview(stored)[4:]
        damaged = IndexFileError(
            f"{place}: the codebook of the token vectors is not what was written, and nothing else says what they are. "
            "Build the index again"
        )
        if len(data) < _HEADER.size or struct.pack("<I", zlib.crc32(data)) != bytes(stored[:4]):
            raise damaged
        magic, bits, dimension, count = _HEADER.unpack(data[: _HEADER.size])
        numbers = np.frombuffer(data, "<f4", offset=_HEADER.size).astype(np.float32)
        sizes = (count * dimension, dimension, 2**bits - 1, 2**bits)
        if magic != _MAGIC or len(numbers) != sum(sizes):
            raise damaged
        centroids, scales, cutoffs, weights = np.split(numbers, np.cumsum(sizes)[:-1])
        return cls(bits, centroids.reshape(count, dimension), scales, cutoffs, weights)


def normed(differences: FloatArray, scales: FloatArray) -> FloatArray:
    """Divide (T, D) differences by the scales of their dimensions, and each vector by the root mean square of its numbers."""
    values: FloatArray = differences / scales
    widths = np.sqrt(np.mean(values * values, axis=1, keepdims=True))
    values /= np.maximum(widths, 1e-6)
    return values
