"""/shard: what an index in shards asks a server that holds one of them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from embedkit.errors import IndexFileError
from embedkit.machine import num_cores
from embedkit.serving.http.choosing import one_index
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.search_bodies import MOST_HITS, TAG, error_body
from embedkit.serving.indexes.sharing import ShardBody, answer
from embedkit.serving.services import Services


def routes(services: Services) -> list[Route]:
    api = _ShardApi(services)
    return [
        Route(
            method="POST",
            path="/shard",
            handle=api.ask,
            summary="Ask an index as a shard of one elsewhere, for `embedkit search` over shards.",
            error_body=error_body,
            tag=TAG,
            takes=ShardBody,
        )
    ]


class _ShardApi:
    def __init__(self, services: Services) -> None:
        self.services = services
        self._threads = ThreadPoolExecutor(4 + 2 * num_cores(), thread_name_prefix="shard")

    async def ask(self, request: HttpRequest) -> HttpResponse:
        body: ShardBody = request.content
        index = one_index(self.services, body.index)
        most = self.services.limits.inputs
        if not 1 <= body.k <= MOST_HITS:
            raise RefusedError(400, f"k is {body.k}; it must be from 1 to {MOST_HITS:,}")
        if len(body.queries) > most:
            raise RefusedError(413, f"{len(body.queries):,} queries; this server takes {most:,} at once")
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, partial(answer, index, body)
            )
        except ValueError as exc:
            raise RefusedError(400, str(exc)) from exc
        except IndexFileError as exc:
            # Not 503: whoever gathers shards says at once which one failed.
            raise RefusedError(500, exc.message) from exc
        return HttpResponse(content=found)
