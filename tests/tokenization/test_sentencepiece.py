"""SentencePiece's file: read field by field, and refused where it is damaged or of another kind."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import CheckpointError
from embedkit.tokenization.sentencepiece import read_pieces
from embedkit.tokenization.tokenizer import Tokenizer


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def inner(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def model(*, kind: int = 1) -> bytes:
    """Three special pieces and three of text, one of them of two words' beginnings."""
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁dog", -1.0), ("▁", -2.0), ("d", -3.0)]
    pieces = b"".join(
        inner(
            1,
            inner(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + varint(24) + varint(1),
        )
        for text, score in scored
    )
    trainer = varint(3 << 3) + varint(kind) + varint(40 << 3) + varint(2) + inner(1, b"corpus.txt")
    return pieces + inner(2, trainer) + inner(3, inner(1, b"nmt_nfkc"))


def test_pieces_and_scores_are_read_and_make_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(model())
    pieces = read_pieces(path)
    assert pieces.scored[3] == ("▁dog", -1.0)
    assert (len(pieces.scored), pieces.unknown, pieces.charsmap) == (6, 2, b"")
    tokenizer = Tokenizer.load(tmp_path, model_class="T5Tokenizer")
    assert tokenizer.encode(["dog d"]).input_ids.tolist() == [3, 4, 5, 1]
    assert tokenizer.vocab_size == 106  # with <extra_id_0> to <extra_id_99>


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(model(kind=2))
    with pytest.raises(CheckpointError, match="a SentencePiece model of another kind than unigram"):
        read_pieces(path)


@pytest.mark.parametrize("length", [1, 5, 40, len(model()) - 3])
def test_a_file_that_is_cut_short_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(model()[:length])
    with pytest.raises(CheckpointError, match="SentencePiece"):
        read_pieces(path)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SentencePiece"):
        read_pieces(path)


def test_a_folder_without_one_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"looked for tokenizer\.json, .*, or spm\.model\. Copy"):
        Tokenizer.load(tmp_path, model_class="DebertaV2Tokenizer")
