"""Documents of every kind: real files, made by the programs that people make them with, and where their text stands in them."""

from __future__ import annotations

import email.message
import gzip
import io
import json
import mailbox
import zipfile
from datetime import date
from pathlib import Path

import openpyxl
import pypdfium2
import pytest

from embedkit.data.documents.archive import MAX_UNPACKED_BYTES
from embedkit.data.documents.kinds import DOCUMENTS, read_otherwise, readers
from embedkit.data.documents.office import MAX_ROWS
from embedkit.data.documents.readers import READERS
from embedkit.data.places import Place, place_of
from embedkit.data.reading import DocumentReader, read_documents
from embedkit.data.records import Document
from embedkit.data.walking import WalkOptions, walk
from embedkit.errors import MissingExtraError, RecordError
from embedkit.extras import EXTRAS

MADE = Path(__file__).resolve().parent / "fixtures"  # by fixtures/make.py


def read(path: Path) -> Document:
    (document,) = read_documents([str(path)])
    return document


def place(document: Document, words: str) -> Place:
    at = document.text.index(words)
    found = place_of(document.marks, document.text, at, at + len(words))
    assert found is not None
    return found


def test_pdf_of_a_browser() -> None:
    document = read(MADE / "guide.pdf")
    assert document.title == "A field guide"
    assert "Ünïcode words" in document.text
    assert "owl silent" in document.text
    assert place(document, "The heron waits").named("guide.pdf") == "guide.pdf p. 1"
    assert place(document, "The eel travels far") == Place(pages=(2, 2), headings=("Fish", "Rivers"))
    at = document.text.index("swift")
    both = place_of(document.marks, document.text, at, len(document.text))
    assert both is not None
    assert both.named("guide.pdf") == "guide.pdf p. 1-2"


def test_docx_of_pandoc() -> None:
    document = read(MADE / "guide.docx")
    assert document.title == "A field guide"
    assert "Ünïcode words. A note on herons.\n" in document.text
    assert "swift | narrow\n" in document.text
    assert place(document, "The eel travels far").headings == ("Fish", "Rivers")


def test_odt_of_pandoc() -> None:
    document = read(MADE / "guide.odt")
    assert document.title == "A field guide"
    assert "Ünïcode words. A note on herons.\n" in document.text
    assert "swift | narrow\n" in document.text
    assert place(document, "The eel travels far").headings == ("Fish", "Rivers")


def test_pptx_of_pandoc() -> None:
    document = read(MADE / "guide.pptx")
    assert document.title == "A field guide"
    assert place(document, "The heron waits") == Place(slides=(2, 2), headings=("Birds",))
    assert place(document, "The eel travels far").named("guide.pptx") == "guide.pptx slide 3"
    assert "swift | narrow\n" in document.text
    slides = [document.text[at:].split("\n")[0] for at in document.parts]
    assert slides[:3] == ["A field guide", "Birds", "Fish"]


def test_epub_of_pandoc() -> None:
    document = read(MADE / "guide.epub")
    assert document.title == "A field guide"
    assert place(document, "The eel travels far").headings == ("Fish", "Rivers")
    assert [document.text[at:].split("\n")[0] for at in document.parts][-2:] == ["Birds", "Fish"]


@pytest.mark.parametrize("ending", ["odt", "docx"])
def test_texts_of_libreoffice(ending: str) -> None:
    document = read(MADE / f"pond.{ending}")
    assert document.title == "A pond guide"
    assert "Frogs sing in warm nights, as old poems say.  Bashō wrote of a pond.\n" in document.text
    assert not {"never", "check", "society"} & set(document.text.split())  # deleted, a comment, a header
    assert "tree frog | loud\n" in document.text
    assert "Text beside the box. A box at the side.\n" in document.text.replace("  ", " ")
    assert "Ünïcode Ελληνικά 日本." in document.text
    assert place(document, "They eat algae.").headings == ("Frogs", "Tadpoles")
    assert place(document, "Newts hide").headings == ("Newts",)


def test_pdf_of_libreoffice() -> None:
    document = read(MADE / "pond.pdf")
    assert document.title == "A pond guide"
    assert "• They breathe through gills.\n" in document.text.replace("\r", "")
    assert place(document, "They eat") == Place(pages=(1, 1), headings=("Frogs", "Tadpoles"))
    assert place(document, "Newts hide").named("pond.pdf") == "pond.pdf p. 2"
    raw = pypdfium2.PdfDocument(MADE / "pond.pdf")
    assert "Newts hide" in raw[1].get_textpage().get_text_range()  # opened at the place, it is there


def test_epub_of_libreoffice_has_headings_only_in_its_table_of_contents() -> None:
    document = read(MADE / "pond.epub")
    assert document.title == "A pond guide"
    assert place(document, "They breathe").headings == ("Frogs",)
    assert place(document, "Newts hide").headings == ("Newts",)


def test_a_book_without_a_readable_table_of_contents_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(MADE / "pond.epub") as book, zipfile.ZipFile(tmp_path / "b.epub", "w") as broken:
        for name in book.namelist():
            broken.writestr(name, b"<nav>&nbsp;" if "toc" in name else book.read(name))
    document = read(tmp_path / "b.epub")
    assert "Newts hide" in document.text
    assert document.marks == ()


@pytest.mark.parametrize("ending", ["pptx", "odp"])
def test_slides_of_libreoffice(ending: str) -> None:
    document = read(MADE / f"pond-slides.{ending}")
    assert document.title == "Pond slides"
    assert place(document, "Say it slowly.") == Place(slides=(1, 1), headings=("Frogs",))
    assert place(document, "Hidden under stones") == Place(slides=(2, 2), headings=("Newts",))
    assert "great crested | 16 cm\n" in document.text


@pytest.mark.parametrize("ending", ["xlsx", "ods", "xls"])
def test_sheets_of_libreoffice(ending: str) -> None:
    document = read(MADE / f"pond-sheets.{ending}")
    assert document.text.splitlines() == [
        "animal; day; count",
        "animal: newt; day: 2026-03-02; count: 3",
        "animal: toad; day: yes; count: 6",
        "only a text",
    ]
    assert place(document, "animal: toad").named("f") == "f Catch row 3"
    assert place(document, "only a text") == Place(sheet="Ünï notes", rows=(1, 1))


def test_rows_of_a_workbook_name_their_columns(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Sightings"
    sheet["B3"], sheet["C3"], sheet["D3"] = "bird", "seen", "count"
    sheet["B4"], sheet["C4"], sheet["D4"] = "heron", date(2026, 3, 2), 3
    sheet["B6"], sheet["D6"] = "owl", 2.5
    book.create_sheet("More notes").append(["only a text"])
    book.create_chartsheet("Chart")
    book.save(tmp_path / "birds.xlsx")
    document = read(tmp_path / "birds.xlsx")
    assert document.text.splitlines() == [
        "bird; seen; count",
        "bird: heron; seen: 2026-03-02; count: 3",
        "bird: owl; count: 2.5",
        "only a text",
    ]
    assert place(document, "bird: owl").named("birds.xlsx") == "birds.xlsx Sightings row 6"
    assert place(document, "only a text") == Place(sheet="More notes", rows=(1, 1))
    assert [document.text[at:].split(";")[0] for at in document.parts] == [
        "bird",
        "bird: heron",
        "bird: owl",
        "only a text\n",
    ]


def message(subject: str, text: str, subtype: str = "plain") -> email.message.EmailMessage:
    made = email.message.EmailMessage()
    made["Subject"], made["From"] = subject, "Ann <ann@example.org>"
    made["Date"] = "Mon, 02 Mar 2026 10:00:00 +0000"
    made.set_content(text, subtype=subtype)
    return made


def test_an_email_with_its_attachment_named(tmp_path: Path) -> None:
    made = message("Grüße vom See", "The heron waits.\nÄ")
    made.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="trip.pdf")
    (tmp_path / "a.eml").write_bytes(bytes(made))
    document = read(tmp_path / "a.eml")
    assert document.title == "Grüße vom See"
    assert document.metadata == {"from": "Ann <ann@example.org>", "date": "2026-03-02T10:00:00+00:00"}
    assert "The heron waits.\nÄ\n" in document.text
    assert document.text.endswith("Attachments: trip.pdf\n")
    assert place(document, "The heron").headings == ("Grüße vom See",)


def test_a_mailbox_is_a_part_for_each_email_at_its_line(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "all.mbox")
    box.add(message("First", "one\n\nFrom here on it is quoted.\n"))
    box.add(message("Second", "<p>two <b>words</b></p>", subtype="html"))
    box.close()
    document = read(tmp_path / "all.mbox")
    assert [document.text[at:].split("\n")[0] for at in document.parts] == ["First", "Second"]
    assert "\nFrom here on it is quoted." in document.text
    lines = (tmp_path / "all.mbox").read_text(encoding="utf-8").split("\n")
    found = place(document, "two words")
    assert found.headings == ("Second",)
    assert found.lines is not None
    assert lines[found.lines[0] - 1].startswith("From ")
    assert "Subject: Second" in lines[found.lines[0] : found.lines[0] + 5]


def test_a_notebook_by_its_cells(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Herons\n", "\n", "They wait."]},
        {"cell_type": "code", "source": "count(herons)\n", "outputs": [{"text": "printed"}]},
        {"cell_type": "markdown", "source": "## Owls\nsilent"},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}), encoding="utf-8")
    document = read(path)
    assert document.title == "Herons"
    assert document.text == "# Herons\n\nThey wait.\ncount(herons)\n## Owls\nsilent\n"
    assert place(document, "count(herons)").named("a.ipynb") == "a.ipynb cell 2"
    assert place(document, "silent") == Place(cells=(3, 3), headings=("Herons", "Owls"))
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"]}]}], "nbformat": 3}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert read(path).text == "x = 1\n"


def test_subtitles_keep_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes(
        "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Grüße</i> there\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\nThe heron\r\nwaits\r\n".encode(
            "cp1252"
        )
    )
    document = read(tmp_path / "a.srt")
    assert document.text == "Grüße there\nThe heron\nwaits\n"
    assert place(document, "heron\nwaits").named("a.srt") == "a.srt:7-8"
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\nNOTE a comment\n\nintro\n00:01.000 --> 00:02.000 align:start\n<v Bob>Hello\n\n00:02.000 --> 00:03.000\nHello\nagain\n",
        encoding="utf-8",
    )
    document = read(tmp_path / "a.vtt")
    assert (document.text, place(document, "again").lines) == ("Hello\nagain\n", (11, 11))


def test_every_kind_has_a_reader() -> None:
    assert set(READERS) == set(DOCUMENTS)


def zipped(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return raw.getvalue()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Return an archive of 0.5 MB that unpacks to more than is read."""
    raw = io.BytesIO()
    with (
        zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("word/document.xml", "w") as file,
    ):
        for _ in range(MAX_UNPACKED_BYTES // 2**20 + 1):
            file.write(bytes(2**20))
    return raw.getvalue()


@pytest.mark.parametrize("ending", [".docx", ".pptx", ".odt", ".epub", ".xlsx"])
def test_a_bomb_is_not_unpacked(ending: str, bomb: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{ending}"
    path.write_bytes(bomb)
    assert path.stat().st_size < 4_000_000
    with pytest.raises(
        RecordError, match=r"bomb\.\w+: it would unpack to 51\d,\d+,\d+ bytes; 512,000,000 are read"
    ):
        read(path)


@pytest.mark.parametrize("name", ["guide.pdf", "guide.docx", "guide.odt", "guide.pptx", "guide.epub"])
def test_a_file_that_is_cut_short_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes((MADE / name).read_bytes()[:900])
    with pytest.raises(RecordError, match=rf"{name}: it is cut short or damaged\. Make or fetch it again"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (
            "a.docx",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
            "it is encrypted, or of an older format",
        ),
        ("a.docx", zipped({"x": b""}), "it has no part 'word/document.xml'"),
        ("a.docx", zipped({"word/document.xml": b"<a><b></a>"}), "it cannot be read .*mismatched tag"),
        ("a.odt", zipped({"META-INF/manifest.xml": b"<encryption-data/>"}), "it is encrypted"),
        ("a.xlsx", b"no workbook", "it cannot be read"),
        ("a.ipynb", b'{"cells": 3}', "it is no notebook"),
        ("a.ipynb", b"[" * 100_000, "it is no notebook"),
        ("a.srt", b"words", "it has no times of subtitles"),
        ("a.eml", b"words", "it has no header of an e-mail"),
        ("a.mbox", b"words", "it has no line that begins an e-mail"),
        ("a.pdf", b"", "it is cut short or damaged"),
    ],
)
def test_what_is_no_document_is_named(name: str, raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(RecordError, match=rf"{name}: {message}"):
        read(tmp_path / name)


def test_an_encrypted_pdf_is_named() -> None:
    with pytest.raises(
        RecordError, match=r"encrypted\.pdf: it is encrypted\. Save it again without a password"
    ):
        read(MADE / "encrypted.pdf")


def test_a_workbook_of_too_many_rows_is_data(tmp_path: Path) -> None:
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for number in range(MAX_ROWS + 1):
        sheet.append([number])
    book.save(tmp_path / "data.xlsx")
    with pytest.raises(RecordError, match=r"it has more than 50,000 rows.*Save them as CSV"):
        read(tmp_path / "data.xlsx")


def test_one_broken_file_costs_a_warning_and_the_others_are_read(tmp_path: Path) -> None:
    for name in ("guide.pdf", "guide.docx", "encrypted.pdf"):
        (tmp_path / name).write_bytes((MADE / name).read_bytes())
    reader = DocumentReader([str(tmp_path)], tolerant=True, walking=WalkOptions(kinds="any"))
    assert [Path(document.source).name for document in reader] == ["guide.docx", "guide.pdf"]
    (failed,) = reader.failed
    assert "encrypted.pdf: it is encrypted" in failed


def test_without_the_extra_documents_are_counted_and_a_named_one_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.pdf", "b.pdf", "c.xlsx", "d.epub"):
        (tmp_path / name).write_bytes(b"")
    for extra in ("pdf", "sheets"):
        monkeypatch.setitem(EXTRAS, extra, "no_such_package")
    found, left = walk(tmp_path, WalkOptions(kinds="text"))
    assert [path.name for path in found] == ["d.epub"]
    assert left.described() == (
        "3 files that are documents (.pdf .xlsx; install what reads them with: pip install 'embedkit[documents]')"
    )
    assert left.as_dict() == {"*.pdf": 2, "*.xlsx": 1}
    assert type(left).from_json(left.to_json()) == left
    with pytest.raises(
        MissingExtraError, match=r"reading .*a\.pdf needs the package .*embedkit\[documents\]"
    ):
        read(tmp_path / "a.pdf")


def test_documents_may_be_larger_than_texts(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(bytes(200))
    (tmp_path / "a.txt").write_bytes(b"x" * 200)
    found, left = walk(tmp_path, WalkOptions(kinds="text", max_bytes=100))
    assert [path.name for path in found] == ["a.pdf"]
    assert left.described() == "1 file larger than 0.0001 MB"
    found, _ = walk(tmp_path, WalkOptions(kinds="text", max_bytes=4))
    assert found == []


def test_what_an_extra_reads_is_read_otherwise_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_otherwise(readers()) == frozenset()
    assert {".pdf", ".py", ".eml"} <= read_otherwise("")
    monkeypatch.setitem(EXTRAS, "pdf", "no_such_package")
    before = readers()
    monkeypatch.undo()
    assert read_otherwise(before) == {".pdf"}


def test_folders_of_records_are_read_as_before_and_a_document_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "guide.odt").write_bytes((MADE / "guide.odt").read_bytes())
    (tmp_path / "a.md").write_text("words\n", encoding="utf-8")
    assert [Path(each.source).name for each in read_documents([str(tmp_path)])] == ["a.md"]
    _, left = walk(tmp_path, WalkOptions())
    assert left.described() == "1 file of another kind (.odt)"
    zipped_twice = tmp_path / "guide.odt.gz"
    zipped_twice.write_bytes(gzip.compress((MADE / "guide.odt").read_bytes()))
    assert read(zipped_twice).text == read(tmp_path / "guide.odt").text
    found, _ = walk(tmp_path, WalkOptions(kinds="any"))
    assert [path.name for path in found] == ["a.md", "guide.odt", "guide.odt.gz"]


def test_a_pdf_of_pictures_alone_says_so(tmp_path: Path) -> None:
    pages = pypdfium2.PdfDocument.new()
    pages.new_page(100, 100)
    pages.save(tmp_path / "scan.pdf")
    pages.close()
    with pytest.raises(RecordError, match=r"scan\.pdf: its pages hold no text, only pictures.*ocrmypdf"):
        read(tmp_path / "scan.pdf")


def test_word_styles_changes_boxes_and_notes(tmp_path: Path) -> None:
    def part(name: str, inner: str) -> bytes:
        return f'<w:{name} xmlns:w="w" xmlns:mc="m">{inner}</w:{name}>'.encode()

    def paragraph(text: str, style: str = "", more: str = "") -> str:
        return f'<w:p><w:pPr><w:pStyle w:val="{style}"/>{more}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'

    styles = (
        '<w:style w:styleId="U1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:styleId="Mine"><w:name w:val="Mine"/><w:basedOn w:val="U1"/></w:style>'
        '<w:style w:styleId="Odd"><w:name w:val="Odd"/><w:basedOn w:val="Odd"/></w:style>'
    )
    box = paragraph("in a box")
    body = (
        paragraph("Top", "Mine")
        + paragraph("Below", "Odd", '<w:outlineLvl w:val="1"/>')
        + "<w:sdt><w:sdtContent><w:p><w:r><w:t>kept</w:t><w:tab/><w:t>on</w:t></w:r>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:t> and new</w:t></w:r></w:ins>"
        f"<w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r>"
        '<w:r><w:endnoteReference w:id="2"/></w:r></w:p></w:sdtContent></w:sdt>'
    )
    kinds = ("styles", "endnotes")
    related = "".join(f'<r Id="{kind}" Type="x/{kind}" Target="{kind}.xml"/>' for kind in kinds)
    files = {
        "word/document.xml": part("document", part("body", body).decode()),
        "word/styles.xml": part("styles", styles),
        "word/endnotes.xml": part("endnotes", f'<w:endnote w:id="2">{paragraph("the note")}</w:endnote>'),
        "word/_rels/document.xml.rels": f"<rs>{related}</rs>".encode(),
    }
    (tmp_path / "a.docx").write_bytes(zipped(files))
    document = read(tmp_path / "a.docx")
    assert document.text == "Top\nBelow\nkept on and new in a box the note\n"
    assert place(document, "kept").headings == ("Top", "Below")
    assert document.title == "Top"
