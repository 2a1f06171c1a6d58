"""Books in EPUB: their chapters in the order of reading."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError

from embedkit.data.documents.archive import Archive, local, resolved
from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.data.html_charset import decode_html

_NCX = "application/x-dtbncx+xml"  # the table of contents of EPUB 2


def read_epub(raw: bytes) -> Text:
    """Read a book, with its headings; each of its files is a part."""
    archive = Archive(raw)
    package = next(
        (
            each.get("full-path", "")
            for each in archive.xml("META-INF/container.xml").iter()
            if local(each) == "rootfile"
        ),
        "",
    )
    root = archive.xml(package)
    files = {
        each.get("id", ""): resolved(package, each.get("href", ""))
        for each in root.iter()
        if local(each) == "item"
    }
    chapters = [files.get(each.get("idref", ""), "") for each in root.iter() if local(each) == "itemref"]
    locked, contents = _locked(archive), _contents(archive, package, root)
    written = TextWriter()
    for name in chapters:
        if name in locked:
            raise DamagedError("it is encrypted. Only books without digital rights management are read")
        if name in archive.names:
            written.parts.append(written.at)
            written.page(decode_html(archive.read(name), name)[0], contents.get(name, ""))
    title = next((each.text or "" for each in root.iter() if local(each) == "title"), "")
    return written.finished(title)


def _contents(archive: Archive, package: str, root: Element) -> dict[str, str]:
    """Return what the table of contents calls each file, for those whose own headings are no more than large type."""
    found: dict[str, str] = {}
    for item in root.iter():
        name = resolved(package, item.get("href", ""))
        is_table = "nav" in item.get("properties", "").split() or item.get("media-type") == _NCX
        if local(item) != "item" or not is_table or name not in archive.names:
            continue
        try:
            table = archive.xml(name)
        except ParseError:
            continue  # the chapters are there without it
        for entry in table.iter():
            target, words = _entry(entry)
            if target and words:
                found.setdefault(resolved(name, target), words)
    return found


def _entry(entry: Element) -> tuple[str, str]:
    """Return where an entry of a table of contents leads, and its words; "" for another element."""
    if local(entry) == "a":
        return entry.get("href", ""), " ".join("".join(entry.itertext()).split())
    if local(entry) != "navPoint":
        return "", ""
    target = next((each.get("src", "") for each in entry if local(each) == "content"), "")
    labels = ("".join(each.itertext()) for each in entry if local(each) == "navLabel")
    return target, " ".join(next(labels, "").split())


def _locked(archive: Archive) -> set[str]:
    """Return the files that are encrypted, among them fonts, which any book may have."""
    name = "META-INF/encryption.xml"
    if name not in archive.names:
        return set()
    found = (each.get("URI", "") for each in archive.xml(name).iter() if local(each) == "CipherReference")
    return {resolved("", uri) for uri in found}
