"""Decoding HTML pages: mark, declaration, UTF-8."""

import codecs

import pytest

from embedkit.data.html_charset import decode_html
from embedkit.errors import RecordError


@pytest.mark.parametrize(
    ("declaration", "charset", "text"),
    [
        ("", "utf-8", "naïve"),
        ("<meta charset=utf-8>", "utf-8", "naïve"),
        ("<META CharSet='ISO-8859-1'>", "cp1252", "naïve “quoted” €"),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
            "cp1251",
            "привет",
        ),
        ('<?xml version="1.0" encoding="iso-8859-2"?>', "iso8859-2", "zażółć"),
        ("<meta charset=gb2312>", "gb18030", "中文"),
        ("<meta charset=Shift_JIS>", "cp932", "日本語"),
        ("<meta charset=iso-2022-jp>", "iso2022_jp", "日本語"),
        ("<meta charset=euc-kr>", "cp949", "한국어"),
        ("<!-- <meta charset=latin-1> -->", "utf-8", "naïve"),
        ("<meta charset=utf-16>", "utf-8", "naïve"),
    ],
)
def test_a_page_is_read_in_its_declared_charset_else_as_utf8(
    declaration: str, charset: str, text: str
) -> None:
    page = declaration + text
    assert decode_html(page.encode(charset), "a.html")[0] == page


def test_a_byte_order_mark_goes_before_the_declaration() -> None:
    for mark, charset in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        page = "<meta charset=latin-1>é"
        assert decode_html(mark + page.encode(charset), "a.html")[0] == page


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<p>caf\xe9", "a.html: byte 0xe9 at offset 6 is not UTF-8. Convert the file to UTF-8"),
        (
            b"<meta charset=euc-jp>\xff",
            "a.html: byte 0xff at offset 21 is not euc-jp, which the page declares. ",
        ),
        (
            b"\xff\xfe\x00\xd8",
            "a.html: byte 0x00 at offset 0 is not UTF-16-LE, as its byte-order mark says. ",
        ),
        (b"<meta charset=klingon>", "a.html: the page declares the charset 'klingon', which is not known. "),
        (b"<meta charset=unicode_escape>", "a.html: the page declares the charset 'unicode_escape'"),
        (b"<meta charset=hex>", "a.html: the page declares the charset 'hex'"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_place(raw: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode_html(raw, "a.html")
    assert str(caught.value).startswith(message)
