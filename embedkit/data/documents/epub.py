"""Books in EPUB: their chapters in the order of reading."""

from __future__ import annotations

from embedkit.data.documents.archive import Archive, local, resolved
from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.data.html_charset import decode_html


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
    locked = _locked(archive)
    written = TextWriter()
    for name in chapters:
        if name in locked:
            raise DamagedError("it is encrypted. Only books without digital rights management are read")
        if name in archive.names:
            written.parts.append(written.at)
            written.page(decode_html(archive.read(name), name)[0])
    title = next((each.text or "" for each in root.iter() if local(each) == "title"), "")
    return written.finished(title)


def _locked(archive: Archive) -> set[str]:
    """Return the files that are encrypted, among them fonts, which any book may have."""
    name = "META-INF/encryption.xml"
    if name not in archive.names:
        return set()
    found = (each.get("URI", "") for each in archive.xml(name).iter() if local(each) == "CipherReference")
    return {resolved("", uri) for uri in found}
