"""What a document and a passage are known by: hashes that prove what was stored, and that a vector is that of a text."""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache

_PLACE = struct.Struct("<Iqq")  # number, start and stop of a passage
_HASHED_CHARS = 2**20  # of a text at a time: its UTF-8 need not be there as a whole


def content_hash(doc_id: str, title: str, text: str, metadata: str, vector: bytes = b"") -> bytes:
    """Hash what a document holds: 16 bytes for id, title and text, 8 for the metadata, 8 for a ready vector."""
    # The lengths keep ("ab", "c") apart from ("a", "bc").
    head = f"{len(doc_id)} {len(title)} {len(text)} {doc_id}{title}"
    words = hashlib.blake2b((head + text[:_HASHED_CHARS]).encode(), digest_size=16)
    for start in range(_HASHED_CHARS, len(text), _HASHED_CHARS):
        words.update(text[start : start + _HASHED_CHARS].encode())
    digest = words.digest() + _metadata_hash(metadata)
    return digest + hashlib.blake2b(vector, digest_size=8).digest() if vector else digest


def is_whole(digest: object, doc_id: str, title: str, text: str, metadata: str) -> bool:
    """Say whether a document still has the hash that it was stored with; that of a ready vector beside it is not looked at.

    A damaged database may give values of other types: then it has not.
    """
    texts = (doc_id, title, text, metadata)
    return (
        isinstance(digest, bytes)
        and all(isinstance(each, str) for each in texts)
        and digest[:24] == content_hash(*texts)
    )


@lru_cache(maxsize=4096)  # most documents of a collection have few different ones, or none
def _metadata_hash(metadata: str) -> bytes:
    return hashlib.blake2b(metadata.encode(), digest_size=8).digest()


def passage_key(digest: bytes, number: int, start: int, stop: int) -> int:
    """Tie a vector to its text: 8 bytes of a hash of the document's words and the passage's place in it."""
    place = digest[:16] + _PLACE.pack(number, start, stop)
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little")
