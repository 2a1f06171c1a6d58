"""Documents that are ZIP archives of XML: opening them, within bounds."""

from __future__ import annotations

import io
import posixpath
import zipfile
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from embedkit.data.documents.page import DamagedError

MAX_UNPACKED_BYTES = 512_000_000  # of all files in an archive
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how older formats of Office begin, and encrypted newer ones


class Archive:
    """An archive whose sizes have been looked at before anything is unpacked.

    Raises:
        DamagedError: it is damaged, encrypted, or would unpack to too much.
    """

    def __init__(self, raw: bytes) -> None:
        if raw.startswith(_OLE):
            raise DamagedError("it is encrypted, or of an older format. Save it again without a password")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(raw))
        except zipfile.BadZipFile as exc:
            raise DamagedError("it is cut short or damaged. Make or fetch it again") from exc
        entries = self._zip.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > MAX_UNPACKED_BYTES:
            raise DamagedError(
                f"it would unpack to {size:,} bytes; {MAX_UNPACKED_BYTES:,} are read. Split it into smaller ones"
            )
        if any(entry.flag_bits & 1 for entry in entries):
            raise DamagedError("it is encrypted. Save it again without a password")
        self.names = {entry.filename for entry in entries}

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise DamagedError(
                f"it has no part {name!r}. It is damaged, or something else than its name says"
            )
        return self._zip.read(name)

    def xml(self, name: str) -> Element:
        return ElementTree.fromstring(self.read(name))

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the parts that a part of an Office document, or "" the whole, names by id: the kind of each and its name."""
        folder, file = posixpath.split(name)
        rels = f"{folder}/_rels/{file}.rels".lstrip("/")
        if rels not in self.names:
            return {}
        return {
            each.get("Id", ""): (
                each.get("Type", "").rpartition("/")[2],
                resolved(name, each.get("Target", "")),
            )
            for each in self.xml(rels)
        }


def resolved(base: str, target: str) -> str:
    """Return the name that a part names another by: relative to itself, or from the root."""
    target = unquote(target.partition("#")[0])
    joined = posixpath.join("/" + posixpath.dirname(base), target)
    return posixpath.normpath(joined).lstrip("/")


def local(element: Element) -> str:
    """Return an element's name without its namespace; "" for comments."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """Return an attribute by its name without its namespace."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def title_of(archive: Archive) -> str:
    """Return the title among the properties of an Office document, or ""."""
    if "docProps/core.xml" not in archive.names:
        return ""
    found = (each.text or "" for each in archive.xml("docProps/core.xml").iter() if local(each) == "title")
    return next(found, "")
