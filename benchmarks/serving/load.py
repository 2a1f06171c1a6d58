"""Clients that keep one connection each and ask again as soon as they have an answer."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Load:
    """What some clients got: seconds of each answer, texts in them, and how many were refused or failed."""

    seconds: list[float] = field(default_factory=list)
    texts: int = 0
    refused: int = 0
    failed: int = 0
    wall: float = 0.0

    @property
    def rate(self) -> float:
        return self.texts / self.wall

    def percentile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    def row(self) -> dict[str, float]:
        milliseconds = {
            f"p{round(100 * p)} ms": round(1000 * self.percentile(p), 1) for p in (0.5, 0.95, 0.99)
        }
        return {
            "texts/s": round(self.rate, 1),
            **milliseconds,
            "refused": self.refused,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Target:
    """Where requests go: `body` makes the next one with the number of its texts, `check` looks at an answer (number, body)."""

    port: int
    path: str
    body: Callable[[int], tuple[bytes, int]]
    check: Callable[[int, bytes], bool] | None = None


def drive(target: Target, *, clients: int, seconds: float) -> Load:
    """Let so many clients ask for so long; what is running then is waited for and counts."""
    return asyncio.run(_drive(target, clients, seconds))


async def _drive(target: Target, clients: int, seconds: float) -> Load:
    load, numbers = Load(), iter(range(10**9))
    began = time.perf_counter()
    await asyncio.gather(*(_client(target, load, began + seconds, numbers) for _ in range(clients)))
    load.wall = time.perf_counter() - began
    return load


async def _client(target: Target, load: Load, ends: float, numbers: Iterator[int]) -> None:
    """Ask until the time is over; where the server breaks the connection off, the request has failed and the next one takes a new one."""
    while time.perf_counter() < ends:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=2**26)
        except OSError:
            load.failed += 1
            await asyncio.sleep(0.05)
            continue
        try:
            while time.perf_counter() < ends:
                await _ask(target, load, next(numbers), reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            load.failed += 1
        finally:
            writer.close()


async def _ask(
    target: Target, load: Load, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    body, texts = target.body(number)
    began = time.perf_counter()
    writer.write(
        f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    status, answer = await _answer(reader)
    if status == 429:
        load.refused += 1
        await asyncio.sleep(0.05)
    elif status != 200 or (target.check is not None and not target.check(number, answer)):
        load.failed += 1
    else:
        load.seconds.append(time.perf_counter() - began)
        load.texts += texts


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, await reader.readexactly(length)


def spread(loads: Sequence[Load]) -> dict[str, float]:
    """Return the row of several rounds: the median of each figure."""
    rows = [load.row() for load in loads]
    return {name: round(statistics.median(row[name] for row in rows), 1) for name in rows[0]}
