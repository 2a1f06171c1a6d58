"""The routes that change an index: POST /documents and DELETE /documents/{id}; there are none unless the server is writable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from embedkit.data.records import ID_RULE, Document, is_id
from embedkit.errors import IndexBusyError, IndexFileError
from embedkit.serving.http.choosing import one_index
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.search_bodies import TAG, DocumentsBody, NewDocument, error_body, one_value
from embedkit.serving.indexes.writing import add_documents, delete_documents
from embedkit.serving.services import Services

T = TypeVar("T")
WRITERS = 4  # of several indexes; those of one take turns


def routes(services: Services) -> list[Route]:
    api = _WriteApi(services)
    return [
        Route(
            method="POST",
            path="/documents",
            handle=api.add,
            summary="Add documents to an index, or replace those that have their ids.",
            error_body=error_body,
            tag=TAG,
            takes=DocumentsBody,
            writes=True,
        ),
        Route(
            method="DELETE",
            path="/documents/{id:path}",
            handle=api.delete,
            summary="Delete a document: ?index=NAME.",
            error_body=error_body,
            tag=TAG,
            writes=True,
        ),
    ]


class _WriteApi:
    def __init__(self, services: Services) -> None:
        self.services = services
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")

    async def add(self, request: HttpRequest) -> HttpResponse:
        body: DocumentsBody = request.content
        index = one_index(self.services, body.index)
        most = self.services.limits.inputs
        if len(body.documents) > most:
            raise RefusedError(
                413,
                f"{len(body.documents):,} documents; this server takes {most:,} at once. Send them in parts",
            )
        documents = [_document(given, number) for number, given in enumerate(body.documents)]
        report = await self._in_thread(partial(add_documents, index, documents, self.services.engine))
        content = {
            "added": report.added,
            "replaced": report.updated,
            "unchanged": report.unchanged,
            "empty": report.empty,
            "passages": report.passages,
        }
        return HttpResponse(content=content)

    async def delete(self, request: HttpRequest) -> HttpResponse:
        index = one_index(self.services, one_value(request, ("index",)).get("index"))
        found = await self._in_thread(partial(delete_documents, index, [request.params["id"]]))
        return HttpResponse(content={"deleted": found.documents, "missing": list(found.missing)})

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Write; what was begun is ended, also where the client has gone: a commit is whole or not at all."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except IndexBusyError as exc:
            raise RefusedError(409, exc.message, headers={"retry-after": "5"}) from exc
        except IndexFileError as exc:
            raise RefusedError(503, exc.message, headers={"retry-after": "5"}) from exc


def _document(given: NewDocument, number: int) -> Document:
    if not is_id(given.id):
        raise RefusedError(422, f"documents[{number}]: the id is {given.id[:80]!r}; {ID_RULE}")
    place = f"documents[{number}]"
    return Document(given.id, given.text, given.title, given.metadata or {}, shown=place)
