"""Subtitles of films: SubRip (.srt) and WebVTT (.vtt). What is said stays, with its lines; times go."""

from __future__ import annotations

import re

from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.data.formats import decode_whole

_TIME = re.compile(r"\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->")
_TAG = re.compile(r"</?[^<>]*>|\{\\[^{}]*\}")


def read_subtitles(raw: bytes) -> Text:
    """Read what is said: the lines after each time, up to an empty one."""
    text, _ = decode_whole(raw, "it", guess=True)
    written = TextWriter()
    spoken, timed, last = False, False, ""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if _TIME.match(line):
            spoken = timed = True
        elif not line.strip():
            spoken = False
        elif spoken:
            said = " ".join(_TAG.sub("", line).split())
            if said and said != last:  # captions that roll say each line twice
                written.mark("line", number)
                written.line(said)
                last = said
    if not timed:
        raise DamagedError(
            "it has no times of subtitles (00:01:02,000 --> …). It is something else than its name says"
        )
    return written.finished()
