"""SentencePiece's own file of a unigram model, read without its library: pieces, their scores, and the map of characters.

The file is one message of protocol buffers. Of it three fields are read: the pieces (1), each with its text (1), score (2) and type (3);
of the trainer (2) the kind of model (3) and the number of the unknown piece (40); of the normalizer (3) the map (2).
Source: https://github.com/google/sentencepiece, sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers

from embedkit.errors import CheckpointError

# The classes whose vocabulary may be such a file, and what it is called.
FILES = {
    "DebertaV2Tokenizer": "spm.model",
    "T5Tokenizer": "spiece.model",
    "XLMRobertaTokenizer": "sentencepiece.bpe.model",
}
_UNIGRAM = 1
_EXTRA_IDS = 100  # of T5: <extra_id_0> to <extra_id_99>, which its file does not have


@dataclass(frozen=True)
class UnigramPieces:
    """The pieces of a model with their scores, in their order; its unknown one; its map of characters, which may be empty."""

    scored: tuple[tuple[str, float], ...]
    unknown: int
    charsmap: bytes


def read_pieces(path: Path) -> UnigramPieces:
    """Read a file of SentencePiece's.

    Raises:
        CheckpointError: it is damaged, or not of a unigram model.
    """
    scored: list[tuple[str, float]] = []
    unknown, kind, charsmap = 0, _UNIGRAM, b""
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1 and isinstance(value, bytes):
                piece = dict(_fields(value))
                text, score = piece.get(1, b""), piece.get(2, 0.0)
                assert isinstance(text, bytes)
                assert isinstance(score, float)
                scored.append((text.decode("utf-8"), score))
            elif number == 2 and isinstance(value, bytes):
                trainer = dict(_fields(value))
                kind, unknown = int(trainer.get(3, _UNIGRAM)), int(trainer.get(40, 0))
            elif number == 3 and isinstance(value, bytes):
                found = dict(_fields(value)).get(2, b"")
                charsmap = found if isinstance(found, bytes) else b""
    except (IndexError, ValueError, AssertionError, struct.error) as exc:
        raise CheckpointError(
            f"{path}: cannot be read as a model of SentencePiece. Copy the file again from where the model came from"
        ) from exc
    if kind != _UNIGRAM or not 0 <= unknown < len(scored):
        raise CheckpointError(
            f"{path}: a SentencePiece model of another kind than unigram; embedkit reads those with a tokenizer.json. "
            "Let transformers write one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return UnigramPieces(tuple(scored), unknown, charsmap)


def build(path: Path, name: str) -> tokenizers.Tokenizer:
    """Build the tokenizer of a class without what the class itself adds, its splitting and its template.

    Raises:
        CheckpointError: as `read_pieces`.
    """
    pieces = read_pieces(path)
    scored, unknown = list(pieces.scored), pieces.unknown
    if name == "T5Tokenizer":
        scored += [(f"<extra_id_{number}>", 0.0) for number in range(_EXTRA_IDS - 1, -1, -1)]
    elif name == "XLMRobertaTokenizer":  # which numbers its special tokens as fairseq did
        scored = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *scored[3:], ("<mask>", 0.0)]
        unknown = 3
    backend = tokenizers.Tokenizer(models.Unigram(scored, unk_id=unknown, byte_fallback=False))
    if pieces.charsmap:
        backend.normalizer = normalizers.Precompiled(pieces.charsmap)
    backend.decoder = decoders.Metaspace()
    return backend


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Yield the fields of a message with their numbers: varints, 64 and 32 bits (as a float), and bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        match key & 7:
            case 0:
                value, at = _varint(content, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, struct.unpack_from("<d", content, at)[0]
                at += 8
            case 2:
                size, at = _varint(content, at)
                if at + size > len(content):
                    raise ValueError("a field is longer than the file")
                yield key >> 3, content[at : at + size]
                at += size
            case 5:
                yield key >> 3, struct.unpack_from("<f", content, at)[0]
                at += 4
            case kind:
                raise ValueError(f"a field of kind {kind}")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
