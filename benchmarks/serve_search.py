"""Requests per second of POST /search over loopback, by mode and number of clients, and what opening the index for each would cost.

    python benchmarks/serve_search.py INDEX [--seconds 5] [--clients 1,8]

The server runs in this process, the clients in others, each with one connection and one query at a time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from embedkit.pipelines.searching import open_search
from embedkit.retrieval.options import SearchOptions
from embedkit.serving.engine.engine import Engine
from embedkit.serving.http.search_api import routes
from embedkit.serving.indexes.live import LiveIndex
from embedkit.serving.indexes.models import IndexModels
from embedkit.serving.limits import Limits
from embedkit.serving.services import Services
from embedkit.types import Computing
from tests.serving.running import served


def ask(
    address: str, mode: str, queries: list[str], seconds: float, times: multiprocessing.Queue[list[float]]
) -> None:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    found = []
    ends = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < ends:
        body = json.dumps({"query": queries[number % len(queries)], "mode": mode})
        started = time.perf_counter()
        connection.request("POST", "/search", body)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(content.decode())
        found.append(time.perf_counter() - started)
        number += 1
    times.put(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    live = LiveIndex("docs", arguments.index, IndexModels(computing=Computing(precision=arguments.precision)))
    assert live.encoder is not None
    with live.opened() as opened:
        queries = [document.text[:40] for document in opened.index.first_documents(500)]
        print(f"{len(opened.index):,} passages, {live.encoder.folder.name}, {live.encoder.choice}")
    for mode in ("dense", "hybrid"):
        wanted = SearchOptions(mode=mode, group=True)
        started = time.perf_counter()
        for query in queries[:20]:
            with open_search(arguments.index, wanted, Computing(), encoder=live.encoder) as search:
                search.retriever.search([query], wanted)
        print(
            f"{mode}: opened for each query, in process: {(time.perf_counter() - started) / 20 * 1000:.2f} ms a query"
        )
        with open_search(arguments.index, wanted, Computing(), encoder=live.encoder) as search:
            started = time.perf_counter()
            for query in queries[:200]:
                search.retriever.search([query], wanted)
        print(
            f"{mode}: opened once, in process: {(time.perf_counter() - started) / 200 * 1000:.2f} ms a query"
        )
    limits = Limits()
    context = multiprocessing.get_context("spawn")
    with closing(Engine(limits)) as engine:
        services = Services(engine=engine, limits=limits, encoders={}, indexes={"docs": live})
        with served(routes(services)) as address:
            for mode in ("dense", "hybrid"):
                for count in map(int, arguments.clients.split(",")):
                    times: multiprocessing.Queue[list[float]] = context.Queue()
                    clients = [
                        context.Process(
                            target=ask,
                            args=(address, mode, queries[n:] + queries[:n], arguments.seconds, times),
                        )
                        for n in range(count)
                    ]
                    for client in clients:
                        client.start()
                    found = sorted(each for _ in clients for each in times.get())
                    for client in clients:
                        client.join()
                    print(
                        f"{mode}, {count} clients: {len(found) / arguments.seconds:,.0f} requests/s, "
                        f"p50 {found[len(found) // 2] * 1000:.1f} ms, p99 {found[int(len(found) * 0.99)] * 1000:.1f} ms"
                    )
    live.close()


if __name__ == "__main__":
    main()
