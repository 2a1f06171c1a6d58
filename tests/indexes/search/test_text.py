"""Search by words, in every script, and what a query can reach."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data.records import Document
from indexes import Index, verify
from indexes.search.text import find_terms, match_expression
from tests.indexes.fakes import create, embed

TEXTS = {
    "whales": (
        "Whales",
        "Whales are mammals. They swim in the sea and sing to each other over long distances.",
    ),
    "fish": ("Fish", "Fish swim in the sea."),
    "sea": ("", "The sea is deep."),
    "land": ("Land", "Nothing of it here."),
    "café": ("", "Un café crème, s'il vous plaît."),
}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = create(tmp_path / "i")
    docs = [Document(doc_id, text, title, {"n": len(text)}) for doc_id, (title, text) in TEXTS.items()]
    index.add(docs, embed(list(TEXTS)))
    return index


def ids(index: Index, query: str, **options: object) -> list[str]:
    return [hit.doc_id for hit in index.search_text([query], **options)[0]]  # type: ignore[arg-type]  # tests give the right ones


def test_words_are_found_by_their_stems_in_title_and_text(index: Index) -> None:
    assert ids(index, "singing whale") == ["whales"]
    assert ids(index, "swimming") == ["fish", "whales"]  # the shorter text first
    assert ids(index, "CAFE") == ["café"]
    assert ids(index, "zebra") == []


def test_more_matching_words_rank_higher_and_scores_fall(index: Index) -> None:
    hits = index.search_text(["do fish swim in the deep sea"], k=3)[0]
    assert {hit.doc_id for hit in hits} == {"fish", "sea", "whales"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].scores == {"text": hits[0].score}


def test_stop_words_count_only_where_nothing_else_does() -> None:
    assert expression("What is the sea?") == '"sea"'
    assert expression("to be or not") == '"to" OR "be" OR "or" OR "not"'
    assert expression("?! ") == ""


def expression(query: str) -> str:
    return match_expression(find_terms(query, 2))


@pytest.mark.parametrize(
    "query", ['"', "sea AND", "NEAR(a b)", "title:sea*", "a-b ^c", "{x}", "' OR 1=1 --", "NOT NOT", ""]
)
def test_a_query_is_words_and_never_a_language(index: Index, query: str) -> None:
    index.search_text([query])


@pytest.mark.parametrize("version", [1, 2])
@settings(deadline=None)
@given(st.text(max_size=50))
def test_any_text_makes_an_expression_that_fts5_takes(version: int, text: str) -> None:
    terms = match_expression(find_terms(text, version))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
        if terms:
            assert connection.execute("SELECT 1 FROM texts WHERE texts MATCH ?", (terms,)).fetchall() == []


def test_deleted_and_replaced_words_are_not_found(index: Index) -> None:
    index.delete(["fish"])
    index.add([Document("sea", "Now about mountains.")], embed(["x"]))
    assert ids(index, "deep fish") == []
    assert ids(index, "mountain") == ["sea"]


def test_equal_scores_come_in_the_order_of_their_ids_however_many_they_are(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        docs = [Document(f"d{number:03d}", "the same words") for number in reversed(range(200))]
        index.add(docs, embed([doc.doc_id for doc in docs]))
        assert ids(index, "same", k=3) == ["d000", "d001", "d002"]


def test_text_search_takes_filters_and_groups(index: Index) -> None:
    assert ids(index, "sea", where="n < 20") == ["sea"]
    assert ids(index, "sea swim", group=True, k=2) == ["fish", "whales"]


# By script: a text, and words of it as one may write them.
SCRIPTS = {
    "Chinese": (
        "中文合约转换体验课问题，数据库检索系统很重要。我养了一只猫。",
        "数据库 检索系统 合约 猫 重要",
    ),
    "Japanese": (
        "今日は成語しりとりをした。ｶﾀｶﾅのデータベース",
        "しりとり 成語 カタカナ データ データベース 今",
    ),
    "Korean": ("오늘 끝말잇기 게임을 했다. 책을 읽었다", "게임 게임이 끝말잇기 오늘 책"),
    "Thai": ("ภาษาไทยเป็นภาษาที่สวยงาม ดื่มน้ำเย็น", "ไทย ภาษา น้ำ สวยงาม เย็น"),
    "Lao": ("ພາສາລາວເປັນພາສາທີ່ງາມ", "ລາວ ພາສາ ງາມ"),
    "Khmer": ("ភាសាខ្មែរគឺជាភាសាផ្លូវការ", "ខ្មែរ ភាសា ផ្លូវការ"),
    "Burmese": ("မြန်မာဘာသာစကား", "မြန်မာ ဘာသာ စကား"),
    "Arabic": ("الكِتَابُ على الطّاولة أحمد مـــدرسة ٢٠٢٤", "الكتاب الطاولة احمد مدرسه 2024"),
    "Persian": ("می‌خواهم کتاب‌ها را بخوانم", "خواهم كتاب بخوانم ها"),
    "Hebrew": ("הַסֵּפֶר עַל הַשּׁוּלְחָן", "הספר על השולחן"),
    "Hindi": ("हिन्दी में किताब पढ़ना, २०२४", "हिन्दी हिंदी किताब पढ़ना 2024"),
    "Tamil": ("தமிழ் மொழி அழகானது", "தமிழ் மொழி"),
    "Greek": ("Ἡ Ἀθῆναι εἶναι ὡραία πόλις", "Αθηναι ΠΟΛΙΣ ωραια"),
    "Russian": ("Ёлка стоит, за́мок на горе", "елка замок"),
    "Turkish": ("İstanbul'da güneş", "istanbul gunes"),
    "Vietnamese": ("Tiếng Việt rất đẹp", "tieng viet"),
    "German": ("Die STRASSE ist groß; Fußgänger", "Straße strasse gross fussganger"),
    "French": ("Un café crème à l\u2019hôtel, cœur", "cafe CREME hotel cœur"),
    "ligatures": ("the ﬁrst ﬂight of the oﬃce, soft\u00adhyphen", "first flight office softhyphen"),
    "full width": ("ＦＵＬＬ　ｗｉｄｔｈ　１２３", "full width 123"),
    "signs": ("Embedkit™ costs 3½ € at 20℃, №5 ①first, CO₂", "embedkit 3 20 5 first co2"),
    "mixed": ("AI搜索2024年とAPI設計", "AI 搜索 2024 年 API 設計"),
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = create(tmp_path_factory.mktemp("scripts") / "i")
    docs = [Document(name, text) for name, (text, _) in SCRIPTS.items()]
    index.add(docs, embed(list(SCRIPTS)))
    assert list(verify(index.path)) == []
    return index


@pytest.mark.parametrize(
    ("script", "word"), [(name, word) for name, (_, words) in SCRIPTS.items() for word in words.split()]
)
def test_a_word_is_found_in_every_script(scripts: Index, script: str, word: str) -> None:
    assert script in ids(scripts, word)


@pytest.mark.parametrize(
    ("text", "other"),
    [("мой", "мои"), ("काम", "कम"), ("ป่า", "ปา"), ("데이터", "게임"), ("数据", "据数"), ("кот", "код")],
)
def test_what_makes_another_word_is_not_dropped(
    scripts: Index, text: str, other: str, tmp_path: Path
) -> None:
    with create(tmp_path / "i") as index:
        index.add([Document("d", text)], embed(["d"]))
        assert ids(index, text) == ["d"]
        assert ids(index, other) == []


def test_documents_of_every_script_are_forgotten_whole(tmp_path: Path) -> None:
    with create(tmp_path / "i") as index:
        docs = [Document(name, text) for name, (text, _) in SCRIPTS.items()]
        index.add([*docs, Document("kept", "kept")], embed([*SCRIPTS, "kept"]))
        index.delete([*list(SCRIPTS)])
        assert list(verify(index.path)) == []
        left = index.database.execute("SELECT count(*) FROM text_index_docsize").fetchone()[0]
        assert left == 1
        for _, words in SCRIPTS.values():
            assert ids(index, words) == []


def test_no_score_exceeds_its_limit_and_a_chance_word_stays_far_below(index: Index) -> None:
    """5 rows, and "sea" stands in 3 of them: no idf above 0. "deep" in one: log(4.5 / 1.5). "zebra" in none: log(5.5 / .5)."""
    queries = ["deep", "zebra", "deep deep zebra", "sea", "?!"]
    deep, zebra, both, sea, nothing = index.text_limits(queries)
    assert deep == pytest.approx(2.2 * math.log(4.5 / 1.5))
    assert zebra == pytest.approx(2.2 * math.log(5.5 / 0.5))
    assert both == pytest.approx(2 * deep + zebra)
    assert sea == pytest.approx(2.2e-6)
    assert nothing == 0
    for query, limit in zip(queries, index.text_limits(queries), strict=True):
        assert all(hit.score <= limit for hit in index.search_text([query])[0])
    (chance,) = index.search_text(["deep zebra lion tiger"])[0]
    assert chance.score / index.text_limits(["deep zebra lion tiger"])[0] < 0.1


def test_equal_words_in_a_filtered_search_have_the_limit_of_the_whole_index(index: Index) -> None:
    assert np.isfinite(index.text_limits(["sea " * 300])[0])
