"""What the words of a text are, in every script: the same for documents, for queries and for what is marked in a hit.

1. Compatibility forms become ordinary ones (Unicode's NFKC): ﬁ → fi, ＡＢＣ → ABC, ｶﾞ → ガ.
2. Marks that may be written or left out are dropped: accents (SQLite does it for Latin letters), Hebrew and Arabic points, tatweel,
   invisible characters. Vowel signs of South and South-East Asia stay, since without them a word is another word; so does й.
3. Letters that are written one way or the other become one: ß → ss, ё → е, ά → α, أ → ا, न्द → ंद, ۳ → 3. See Larkey, Ballesteros and
   Connell 2002, https://doi.org/10.1145/564376.564425, for Arabic; Larkey, Connell and Abduljaleel 2003,
   https://doi.org/10.1145/974740.974746, for Hindi.
4. In scripts without spaces, and in Korean, whose particles stick to their nouns, each character is a word, in Thai and its neighbours
   each cluster of a letter with its signs (Theeramunkong et al. 2000, https://doi.org/10.1145/355214.355225). They are searched in
   overlapping pairs of neighbours, 数据库 as 数据 and 据库, which serve as well as words for Chinese (Nie et al. 2000,
   https://doi.org/10.1145/355214.355235) and Korean (Lee and Ahn 1996, https://doi.org/10.1145/243199.243269). To store the pairs
   themselves would take up to twice the room and the time, and make the search up to twice as fast (benchmarks/scripts.py).

FTS5 does the rest (`TOKENIZER`): it splits at all but letters, digits and marks, folds case, and stems English.

FTS5 forgets a row only when told exactly what it held, so the words of a text must never change under an index: the tables here are
fixed, and NFKC is that of Unicode 3.2, which every Python has. Characters that came later stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

TOKENIZER = "porter unicode61 remove_diacritics 2 categories 'L* N* Co M*'"
_UNICODE = unicodedata.ucd_3_2_0

# What NFKC may change, alone or together with the character before it. The rest is as it should be already.
_UNSETTLED = re.compile(
    "[^\x00-\x7f\u00c0-\u00ff\u0410-\u044f\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\u0905-\u0939\u093e-\u094c\u0e01-\u0e32\u0e34-\u0e37"
    "\u0e40-\u0e47\u2013-\u2016\u2018-\u201f\u3001-\u3020\u3041-\u3094\u30a1-\u30fa\u30fc\u3400-\u4db5\u4e00-\u9fa5\uac00-\ud7a3]+"
)
# NFKC would glue these to a word beside them: ½ № ™ ① ㎏.
_SIGN = re.compile(
    "[\u00bc-\u00be\u2100\u2101\u2103\u2105\u2106\u2109\u2116\u2120-\u2122\u2150-\u215f\u2460-\u24ea\u3200-\u33ff]"
)
_DROPPED = (
    "\u00ad\u034f\u200d-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef"  # invisible
    "\u0300-\u034e\u0350-\u036f\u0483-\u0487\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"  # on letters of several scripts
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u08d3-\u08e1\u08e3-\u08ff"  # Arabic
    "\u0711\u0730-\u074a\u0951-\u0954\u180b-\u180d"  # Syriac, Vedic, Mongolian
)
_ZEROS = "\u0660\u06f0\u0966\u09e6\u0a66\u0ae6\u0b66\u0c66\u0ce6\u0d66\u0e50\u0ed0\u0f20\u1040\u17e0\u1810"

# Han, kana and Hangul; of the other scripts without spaces those that Unicode's line breaking calls SA (UAX 14).
_CJK = (
    "\u3005\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_SOUTH_EAST = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd"
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7c\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaac2\uaadb-\uaadd"
)
# A character with what belongs to it: a vowel written before, a consonant written below, marks, a vowel written after.
_CLUSTER = re.compile(
    "[\u0e40-\u0e44\u0ec0-\u0ec4]?.(?:[\u1039\u17d2].|[\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0eb0-\u0ebc\u0ec8-\u0ece"
    "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108f\u109a-\u109d\u17b4-\u17d3\u17dd])*",
    re.DOTALL,
)
_MAY_BE_UNSPACED = re.compile(f"[{_CJK}{_SOUTH_EAST}]")  # found five times as fast
_UNSPACED = re.compile(f"(?P<characters>[{_CJK}]+)|(?P<clusters>[{_SOUTH_EAST}]+)")
_PIECE = re.compile(f"{_UNSPACED.pattern}|[^\\s{_CJK}{_SOUTH_EAST}]+")
# In Devanagari a nasal before a consonant of its own row may be written as a dot above.
_NASALS = {"ङ": "क-घ", "ञ": "च-झ", "ण": "ट-ढ", "न": "त-ध", "म": "प-भ"}
_VIRAMA = "\u094d"
# Besides marks, what may change with the character before it.
_JOINING = re.compile("[\u1160-\u11ff\u200c\u3131-\u318e\ud7b0-\ud7fb\uff9e-\uffdc]")


# ASCII that stays as it is, or what is not, with the character before.
_STRETCH = re.compile("[\x00-\x7f]+(?![^\x00-\x7f])|[\x00-\x7f]?[^\x00-\x7f]+")


def _letters() -> dict[str, str]:
    """Return what becomes of a letter or digit that is written one way or the other."""
    table = {"ß": "ss", "ẞ": "ss", "ё": "е", "Ё": "Е", "ѐ": "е", "Ѐ": "Е", "ѝ": "и", "Ѝ": "И"}
    table |= {"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه"}
    table |= {"ँ": "ं"}
    greek = map(chr, (*range(0x370, 0x400), *range(0x1F00, 0x2000)))
    table |= {letter: _UNICODE.normalize("NFD", letter)[0] for letter in greek}
    table |= {chr(ord(zero) + digit): str(digit) for zero in _ZEROS for digit in range(10)}
    return {letter: other for letter, other in table.items() if letter != other}


_LETTERS = _letters()
_FOLDED = re.compile(f"[{_DROPPED}{''.join(_LETTERS)}]")
_NASAL = re.compile("|".join(f"{nasal}{_VIRAMA}(?=[{row}])" for nasal, row in _NASALS.items()))
# In Arabic script a zero-width non-joiner parts words as a space does; elsewhere it is one more invisible character.
_NON_JOINER = re.compile("(?<![\u0620-\u06ff])\u200c")


class _Spaces(dict[int, int]):
    """What `str.translate` needs to make a space of each separator; filled as characters are met."""

    def __missing__(self, code: int) -> int:
        category = unicodedata.category(chr(code))
        # SQLite takes some characters that are not assigned for letters; where it does not, a term is a phrase.
        self[code] = code if category[0] in "LNM" or category in ("Co", "Cn") else 0x20
        return self[code]


_SPACES = _Spaces()


def index_words(text: str) -> str:
    """Return a text as FTS5 gets it: where it is not ASCII, folded, and with spaces between what is a word by itself."""
    if text.isascii():
        return text
    text = fold(text)
    if not _MAY_BE_UNSPACED.search(text):
        return text
    return _UNSPACED.sub(lambda run: f" {' '.join(_units(run))} ", text)


def fold(text: str) -> str:
    """Do steps 1 to 3."""
    if text.isascii():
        return text
    text = _settle(text)
    if _VIRAMA in text:
        text = _NASAL.sub("ं", text)
    if "\u200c" in text:
        text = _NON_JOINER.sub("", text)
    return _FOLDED.sub(lambda found: _LETTERS.get(found[0], ""), text)


def _settle(text: str) -> str:
    """Do step 1."""
    parts: list[str] = []
    end = 0
    for run in _UNSETTLED.finditer(text):
        start = max(end, run.start() - 1)
        signs_apart = _SIGN.sub(r" \g<0> ", text[start : run.end()])
        parts += (text[end:start], _UNICODE.normalize("NFKC", signs_apart))
        end = run.end()
    return "".join(parts) + text[end:]


def _units(piece: re.Match[str]) -> Sequence[str]:
    """Return the characters or clusters of a piece without spaces; none where it is a word."""
    if piece["characters"] is not None:
        return piece[0]
    return _CLUSTER.findall(piece[0]) if piece["clusters"] is not None else ()


def query_terms(query: str) -> list[str]:
    """Return what to look for: a query's words, in order, those that stand twice twice, and pairs of neighbours with a space between.

    Worked example: "Full 数据库 猫" -> Full, 数 据, 据 库, 猫.
    """
    terms: list[str] = []
    for piece in _PIECE.finditer(fold(query).translate(_SPACES)):
        units = _units(piece)
        terms += map(" ".join, pairwise(units)) if len(units) > 1 else [piece[0]]
    return terms


def placed_terms(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield all that `query_terms` may ask for of a text, words, characters and pairs, with start and stop in it."""
    folded, starts, stops = _folded_with_places(text)
    for piece in _PIECE.finditer(folded.translate(_SPACES)):
        units = _units(piece) or (piece[0],)
        borders = [*accumulate(map(len, units), initial=piece.start())]
        for width in (1, 2):
            for at in range(len(units) + 1 - width):
                first, last = borders[at], borders[at + width]
                yield " ".join(units[at : at + width]), starts[first], stops[last - 1]


def _folded_with_places(text: str) -> tuple[str, list[int], list[int]]:
    """Fold a text and return for each character of the outcome where in the text what it was made of starts and stops."""
    folded: list[str] = []
    starts: list[int] = []
    stops: list[int] = []
    for piece in _STRETCH.finditer(text):
        first = piece.start()
        part = fold(piece[0])
        if part == piece[0]:
            folded.append(part)
            starts += range(first, piece.end())
            stops += range(first + 1, piece.end() + 1)
            continue
        for joined in _joined(piece[0]):
            part = fold(joined)
            folded.append(part)
            starts += [first] * len(part)
            first += len(joined)
            stops += [first] * len(part)
    return "".join(folded), starts, stops


def _joined(text: str) -> Iterator[str]:
    """Cut a text into its characters, each with what follows and may change with it."""
    first = 0
    for at, (before, char) in enumerate(pairwise(text), 1):
        if not (unicodedata.category(char)[0] == "M" or _JOINING.match(char) or before == _VIRAMA):
            yield text[first:at]
            first = at
    yield text[first:]
