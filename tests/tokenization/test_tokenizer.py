"""The tokenizer: special tokens, cuts that are counted, pairs, chunks, threads, and every kind of file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import CheckpointError
from embedkit.tokenization.tokenizer import Tokenizer, Truncation
from tests.tiny import SPECIAL, WORDS, tiny_tokenizer

TOKENIZER = tiny_tokenizer(max_length=8)
CLS, SEP = 2, 3
TEXT = st.text("adog \n.é", max_size=30)


def ids(text: str) -> list[int]:
    return TOKENIZER.ids([text])[0]


def test_special_tokens_stand_around_a_text() -> None:
    batch = TOKENIZER.encode(["the dog", ""])
    assert batch.input_ids.tolist() == [CLS, *ids("the dog"), SEP, CLS, SEP]
    assert batch.lengths.tolist() == [4, 2]
    assert [TOKENIZER.special_id(role) for role in ("pad", "unk", "cls", "sep", "mask")] == [0, 1, 2, 3, 4]


def test_cuts_are_counted_and_keep_the_last_special_token() -> None:
    batch = TOKENIZER.encode(["dog " * 6, "dog " * 7])
    assert batch.lengths.tolist() == [8, 8]
    assert batch.untruncated_lengths is not None
    assert batch.untruncated_lengths.tolist() == [8, 9]
    assert batch.truncated.tolist() == [False, True]
    assert batch.input_ids[8:].tolist() == [CLS, *ids("dog " * 6), SEP]


@given(st.lists(TEXT, max_size=5))
@settings(deadline=None)
def test_encoding_equals_the_librarys_own_with_truncation(texts: list[str]) -> None:
    reference = tokenizers.Tokenizer.from_str(TOKENIZER.backend.to_str())
    reference.enable_truncation(8)
    expected = [token for encoding in reference.encode_batch(texts) for token in encoding.ids]
    assert TOKENIZER.encode(texts).input_ids.tolist() == expected


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), st.sampled_from([5, 8, 9, 20]))
@settings(deadline=None)
def test_pairs_cut_longest_first_equal_the_librarys_own(pairs: list[tuple[str, str]], length: int) -> None:
    reference = tokenizers.Tokenizer.from_str(TOKENIZER.backend.to_str())
    reference.enable_truncation(length, strategy="longest_first")
    expected = reference.encode_batch(pairs)
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    batch = TOKENIZER.with_max_length(length).encode_pairs(first, second, truncation="longest_first")
    assert batch.input_ids.tolist() == [token for encoding in expected for token in encoding.ids]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [kind for encoding in expected for kind in encoding.type_ids]


def test_a_pair_by_hand() -> None:
    batch = TOKENIZER.encode_pairs(["the dog"], ["a cat"])
    assert batch.input_ids.tolist() == [CLS, *ids("the dog"), SEP, *ids("a cat"), SEP]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("first", "second", "truncation", "kept"),
    [  # room for 8 - 3 = 5 tokens of both
        (2, 9, "second", (2, 3)),
        (9, 9, "second", (4, 1)),
        (2, 9, "longest_first", (2, 3)),
        (9, 9, "longest_first", (2, 3)),
        (9, 1, "longest_first", (4, 1)),
        (9, 0, "longest_first", (5, 0)),
    ],
)
def test_what_is_cut_off_a_pair(
    first: int, second: int, truncation: Truncation, kept: tuple[int, int]
) -> None:
    batch = TOKENIZER.encode_pairs(["dog " * first], ["cat " * second], truncation=truncation)
    tokens = batch.input_ids.tolist()
    assert (tokens.count(ids("dog")[0]), tokens.count(ids("cat")[0])) == kept
    assert batch.truncated.tolist() == [True]
    assert batch.untruncated_lengths is not None
    assert batch.untruncated_lengths.tolist() == [first + second + 3]


def test_pairs_need_as_many_of_each() -> None:
    with pytest.raises(ValueError, match="1 first texts and 2 second texts; there must be as many of each"):
        TOKENIZER.encode_pairs(["a"], ["b", "c"])


@given(st.lists(TEXT, min_size=1, max_size=4))
@settings(deadline=None)
def test_chunks_hold_every_token_once_in_order(texts: list[str]) -> None:
    batch, owners = TOKENIZER.encode_chunks(texts)
    pieces = np.split(batch.input_ids, np.cumsum(batch.lengths)[:-1])
    assert int(batch.lengths.max()) <= 8
    for number, text in enumerate(texts):
        own = [piece.tolist() for piece, owner in zip(pieces, owners, strict=True) if owner == number]
        assert all(piece[0] == CLS and piece[-1] == SEP for piece in own)
        assert [token for piece in own for token in piece[1:-1]] == ids(text)
        assert len(own) == max(1, -(-len(ids(text)) // 6))


def test_a_repeated_prompt_stands_before_every_chunk() -> None:
    text = "the a " + "dog cat horse man boy girl"
    batch, owners = TOKENIZER.encode_chunks([text, "the a"], repeat=2)
    the, a, *words = ids(text)
    expected = [[CLS, the, a, *words[:4], SEP], [CLS, the, a, *words[4:], SEP], [CLS, the, a, SEP]]
    assert batch.input_ids.tolist() == [token for piece in expected for token in piece]
    assert owners.tolist() == [0, 0, 1]
    with pytest.raises(
        ValueError, match="max_length is 8; 2 special tokens and 6 repeated ones leave no room"
    ):
        TOKENIZER.encode_chunks([text], repeat=6)


def test_threads_get_the_same_ids() -> None:
    texts = [f"the dog runs {i}" for i in range(200)]
    expected = TOKENIZER.encode(texts).input_ids
    with ThreadPoolExecutor(4) as threads:
        cut = threads.submit(TOKENIZER.with_max_length(3).encode, texts)
        for batch in threads.map(lambda _: TOKENIZER.encode(texts), range(8)):
            np.testing.assert_array_equal(batch.input_ids, expected)
    assert cut.result().lengths.tolist() == [3] * 200


def test_a_saved_tokenizer_gives_the_same_ids_and_fingerprint(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == TOKENIZER.fingerprint
    assert (loaded.max_length, loaded.special_tokens) == (8, TOKENIZER.special_tokens)
    assert loaded.ids(["The dog, naïve."]) == TOKENIZER.ids(["The dog, naïve."])
    assert Tokenizer.load(tmp_path, lowercase=True).fingerprint != loaded.fingerprint


def test_the_length_comes_from_the_config_unless_it_is_absurd(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"model_max_length": int(1e30)}), encoding="utf-8")
    assert Tokenizer.load(tmp_path).max_length == 512
    assert Tokenizer.load(tmp_path, default_max_length=64).max_length == 64
    assert Tokenizer.load(tmp_path, max_length=5, default_max_length=64).max_length == 5


def test_a_vocabulary_alone_makes_the_tokenizer_of_bert(tmp_path: Path) -> None:
    pieces = list(TOKENIZER.backend.get_vocab().items())
    lines = [piece for piece, _ in sorted(pieces, key=lambda item: item[1])]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    built = Tokenizer.load(tmp_path)
    texts = ["The DOG runs.", "naïve", "[MASK] sings", "東京", ""]
    assert (
        built.encode(texts).input_ids.tolist()
        == tiny_tokenizer(max_length=512).encode(texts).input_ids.tolist()
    )
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    assert Tokenizer.load(tmp_path).ids(["DOG"]) == [
        [1]
    ]  # unknown: the vocabulary has lower-case letters only


def byte_level_files(folder: Path) -> None:
    signs = [chr(code) for code in range(33, 127)] + ["Ġ"]
    merges = [("d", "o"), ("do", "g"), ("Ġ", "dog")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *signs, *("".join(pair) for pair in merges), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_vocabulary_and_merges_make_the_tokenizer_of_roberta(tmp_path: Path) -> None:
    byte_level_files(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    batch = tokenizer.encode(["dog dog <mask>"])
    assert [tokenizer.backend.id_to_token(i) for i in batch.input_ids] == [
        "<s>",
        "dog",
        "Ġdog",
        "<mask>",
        "</s>",
    ]
    pair = tokenizer.encode_pairs(["dog"], ["dog"])
    assert [tokenizer.backend.id_to_token(i) for i in pair.input_ids] == [
        "<s>",
        "dog",
        "</s>",
        "</s>",
        "dog",
        "</s>",
    ]
    assert pair.token_type_ids is not None
    assert not pair.token_type_ids.any()


def test_missing_and_damaged_tokenizers_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no tokenizer; looked for tokenizer\.json, vocab\.txt, or vocab\.json"
    ):
        Tokenizer.load(tmp_path)
    (tmp_path / "notes.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"notes\.txt: no tokenizer; looked for"):
        Tokenizer.load(tmp_path / "notes.txt")
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL[:2], *WORDS]), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"vocab\.txt: there is no '\[SEP\]', which stands at an end"):
        Tokenizer.load(tmp_path)
    whole = TOKENIZER.backend.to_str()
    for damaged in (whole[: len(whole) // 2], "{}", "[1]", ""):
        (tmp_path / "tokenizer.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"the tokenizer files cannot be read .*Copy them again"):
            Tokenizer.load(tmp_path)
    TOKENIZER.save(tmp_path)
    with pytest.raises(CheckpointError, match="max_length is 2; with 2 special tokens it must be larger"):
        Tokenizer.load(tmp_path, max_length=2)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: not JSON"):
        Tokenizer.load(tmp_path)


def test_a_missing_special_token_is_named_with_those_that_are_there() -> None:
    tokenizer = Tokenizer(TOKENIZER.backend, {"cls": "[CLS]", "mask": "<no>"}, 8)
    with pytest.raises(
        CheckpointError, match=r"has no pad token; it has: cls, mask\. Name it in special_tokens_map"
    ):
        tokenizer.special_id("pad")
    with pytest.raises(CheckpointError, match="has no mask token"):
        tokenizer.special_id("mask")


def test_offsets_lead_back_to_the_text() -> None:
    text = "The dog, naïve"
    assert [text[start:end] for start, end in TOKENIZER.offsets(text)][:3] == ["The", "dog", ","]
