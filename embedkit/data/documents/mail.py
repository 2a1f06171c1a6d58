"""E-mails: one in a file (.eml), or many (.mbox). Attachments are named, not read."""

from __future__ import annotations

import re
from contextlib import suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.data.html_text import extract_text

_SHOWN = ("From", "To", "Date")
_SEPARATOR = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\n]*\n")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)


def read_eml(raw: bytes) -> Text:
    """Read one e-mail: its subject is its title, sender and date are fields."""
    written = TextWriter()
    message = _parsed(raw)
    fields = {name.lower(): said for name in _SHOWN if (said := _header(message, name))}
    with suppress(ValueError, TypeError):
        fields["date"] = parsedate_to_datetime(fields.get("date", "")).isoformat()
    subject = _header(message, "Subject")
    _write(message, subject, written)
    if not (subject or fields):
        raise DamagedError("it has no header of an e-mail. It is something else than its name says")
    return written.finished(subject, fields)


def read_mbox(raw: bytes) -> Text:
    """Read a mailbox: each e-mail is a part that stands in the line where it begins, under its subject."""
    borders = [found.span() for found in _SEPARATOR.finditer(raw)]
    if not borders:
        raise DamagedError(
            "it has no line that begins an e-mail ('From …'). It is something else than its name says"
        )
    written = TextWriter()
    line, counted = 1, 0
    for (start, behind), stop in zip(borders, [*(first for first, _ in borders[1:]), len(raw)], strict=True):
        line += raw.count(b"\n", counted, start)
        counted = start
        message = _parsed(_QUOTED_FROM.sub(rb"\1", raw[behind:stop]))
        written.mark("line", line, part=True)
        _write(message, _header(message, "Subject") or "(no subject)", written)
    return written.finished()


def _parsed(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, policy=policy.default)


def _write(message: EmailMessage, subject: str, written: TextWriter) -> None:
    written.heading(subject, 1)
    for name in _SHOWN:
        if said := _header(message, name):
            written.line(f"{name}: {said}")
    written.line(_body(message))
    names = (
        [each.get_filename() or each.get_content_type() for each in message.iter_attachments()]
        if (message.is_multipart())
        else []
    )
    if names:
        written.line(f"Attachments: {', '.join(names)}")


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
    ):  # what the parser of headers makes of broken ones
        return ""


def _body(message: EmailMessage) -> str:
    body = message.get_body(("plain", "html"))
    if body is None:
        return ""
    try:
        text = str(body.get_content())
    except (LookupError, ValueError):  # a character set that nobody knows
        payload = body.get_payload(decode=True)
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
    return extract_text(text).text if body.get_content_subtype() == "html" else text
