"""What a document says cannot steer the terminal, and JSON still says it exactly."""

from __future__ import annotations

import json
import unicodedata

import pytest

from cli.shared.plain import plain, plain_json

# Where all control characters and all marks of direction lie; of the rest, a few.
SOME_OF_ALL = "".join(map(chr, (*range(0x3100), 0xD800, 0xDFFF, 0xFEFF, 0x1F44D, 0x10FFFF)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a \x1b[31mred\x1b[0m b", "a \ufffd[31mred\ufffd[0m b"),
        ("\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        ("\x9b31m \x9d0;title\x9c", "\ufffd31m \ufffd0;title\ufffd"),
        ("pay\u202egnp.exe \u2066x", "pay\ufffdgnp.exe \ufffdx"),
        ("one\r\ntwo\fthree\rfour\u2028five\x85", "one \ntwo three four five "),
        ("caf\udce9 \x00\x08\x7f", "caf\ufffd \ufffd\ufffd\ufffd"),
        ("lines\nand\ttabs stay, Grüße, 数据, שלום\u200f, نمی\u200cخواهم, 👩\u200d💻", None),
    ],
)
def test_control_characters_become_one_harmless_character_each(text: str, shown: str | None) -> None:
    assert plain(text) == (text if shown is None else shown)
    assert len(plain(text)) == len(text)


def test_no_control_character_of_unicode_gets_through() -> None:
    kinds = {unicodedata.category(character) for character in set(plain(SOME_OF_ALL)) - {"\n", "\t"}}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    directions = {unicodedata.bidirectional(character) for character in plain(SOME_OF_ALL)}
    assert not directions & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252", "shift_jis"])
def test_json_means_the_same_in_every_encoding(encoding: str) -> None:
    line = plain_json(json.dumps({SOME_OF_ALL: 1}, ensure_ascii=False), encoding)
    assert json.loads(line.encode(encoding).decode(encoding)) == json.loads(json.dumps({SOME_OF_ALL: 1}))
    assert plain(line) == line


def test_json_keeps_letters_that_the_encoding_has() -> None:
    assert plain_json('"Grüße 👍"', "utf-8") == '"Grüße 👍"'
    assert plain_json('"Grüße"', "latin-1") == '"Grüße"'
    assert plain_json('"数 👍"', "latin-1") == '"\\u6570 \\ud83d\\udc4d"'
