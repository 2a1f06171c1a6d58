"""The process that reads documents: it may run out of time or memory, or crash, and takes nothing else with it.

Requests come on standard input, answers go to standard output, each as a line of JSON that says how many bytes follow, and these.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import IO

MAX_SECONDS = 60  # for one document
MAX_MEMORY_BYTES = 2**30
MAX_CHARS = 20_000_000  # of its text: some twenty long books


def main() -> None:
    """Answer requests until standard input ends. A document that takes too long ends the process, by SIGALRM."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends, and its end of the pipe with it
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # what libraries print
    os.dup2(silence, 2)
    while head := sys.stdin.buffer.readline():
        request = json.loads(head)
        signal.alarm(MAX_SECONDS)
        answer = _answer(sys.stdin.buffer.read(request["num_bytes"]), request["suffix"])
        signal.alarm(0)
        send(answers, {}, json.dumps(answer).encode())


def send(stream: IO[bytes], head: dict[str, str], content: bytes) -> None:
    """Write a request or an answer."""
    stream.write(json.dumps({**head, "num_bytes": len(content)}).encode() + b"\n")
    stream.write(content)
    stream.flush()


def _answer(raw: bytes, suffix: str) -> dict[str, object]:
    from embedkit.data.documents.page import DamagedError
    from embedkit.data.documents.readers import READERS
    from embedkit.errors import EmbedkitError

    try:
        found = READERS[suffix](raw)
    except DamagedError as exc:
        return {"problem": str(exc)}
    except EmbedkitError as exc:
        return {"problem": str(exc).removeprefix("it: ")}
    except MemoryError:
        return {"problem": f"it takes more than {MAX_MEMORY_BYTES / 1e9:.1f} GB of memory. Split it"}
    except Exception as exc:  # what libraries raise on files that are not what they should be has no end
        said = " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
        return {"problem": f"it cannot be read ({said}). It is cut short or damaged; make or fetch it again"}
    if len(found.text) > MAX_CHARS:
        return {
            "problem": f"it holds {len(found.text):,} characters of text; {MAX_CHARS:,} are read. Split it"
        }
    return asdict(found)
