"""/encode: what `embedkit encode --server` asks for: vectors without a rounded bit, and what was cut, empty or unknown."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.encoding.windows import TextRefusedError
from embedkit.serving.engine.engine import EmbedWork
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.search_bodies import TAG, error_body
from embedkit.serving.services import Services
from embedkit.types import OnTruncate, TextRole

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class EncodeBody:
    """Texts to be encoded, as `embedkit encode` does it; none ask what the model is."""

    texts: list[str] = field(default_factory=list)
    model: str | None = None
    role: TextRole | None = None
    prompt: str | None = None
    on_truncate: OnTruncate = "warn"


def routes(services: Services) -> list[Route]:
    async def encode(request: HttpRequest) -> HttpResponse:
        return await _encode(services, request.content)

    summary = "Encode texts: base64 of little-endian float32, a row a text."
    return [
        Route(
            method="POST",
            path="/encode",
            handle=encode,
            summary=summary,
            error_body=error_body,
            tag=TAG,
            takes=EncodeBody,
        )
    ]


async def _encode(services: Services, body: EncodeBody) -> HttpResponse:
    name, encoder = services.encoder(body.model)
    if len(body.texts) > services.limits.inputs:
        raise RefusedError(
            413,
            f"{len(body.texts):,} texts; this server takes {services.limits.inputs:,} at once. Send them in parts",
        )
    _check(encoder, body)
    content: dict[str, Any] = {"model": _described(name, encoder, body.role)}  # Any: JSON
    if not body.texts:
        return HttpResponse(content=content)
    work = EmbedWork(
        encoder=encoder,
        texts=body.texts,
        role=body.role,
        prompt=body.prompt,
        on_truncate=body.on_truncate,
        priority="bulk",
    )
    try:
        found = await asyncio.wrap_future(services.engine.embed(work))
    except TextRefusedError as exc:
        refusal = {"error": {"message": exc.message, "status": 422, "row": exc.row}}
        return HttpResponse(status=422, content=refusal)
    vectors = base64.b64encode(np.ascontiguousarray(found.vectors, "<f4").tobytes()).decode("ascii")
    content |= {
        "vectors": vectors,
        "tokens": found.tokens,
        **{
            kind: np.flatnonzero(flags)
            for kind, flags in (
                ("truncated", found.truncated),
                ("empty", found.empty),
                ("unknown", found.unknown),
            )
        },
    }
    return HttpResponse(content=content)


def _check(encoder: Encoder, body: EncodeBody) -> None:
    if body.role is not None and body.prompt is not None:
        raise RefusedError(400, "role and prompt exclude each other: each says what is put before the texts")
    if encoder.fields and body.role != "query":
        fields = ", ".join(encoder.fields)
        raise RefusedError(
            400,
            f"the documents of this model have the fields {fields}, which no server encodes. Where the model is, do it with: "
            "embedkit encode --role document",
        )


def _described(name: str, encoder: Encoder, role: TextRole | None) -> Mapping[str, Any]:  # Any: JSON
    choice = encoder.choice
    return {
        "name": name,
        "dimension": encoder.width(role),
        "max_length": encoder.tokenizer.max_length,
        "fingerprint": encoder.fingerprint,
        "prompts": dict(encoder.folder.modules.prompts),
        "merge_tokens": encoder.merge_tokens,
        "computed_by": repr(encoder.backend),
        "choice": None
        if choice is None
        else {
            "runtime": choice.runtime,
            "device": choice.device,
            "precision": choice.precision,
            "reason": choice.reason,
        },
    }
