"""The routes of Hugging Face's text-embeddings-inference (TEI), and what its Python client posts to a bare address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine.scoring import text_tokenizer, token_budget
from embedkit.serving.http.api_engine import ApiEngine, Manners, TextsToEmbed, TextsToScore, best_first
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.http.tei_messages import (
    AnyRequest,
    Direction,
    EmbedAllRequest,
    EmbedRequest,
    Health,
    Info,
    Inputs,
    Rank,
    RerankRequest,
    SimilarityInputs,
    SimilarityParameters,
    SimilarityRequest,
    Token,
    TokenizeRequest,
)
from embedkit.serving.services import Services
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import OnTruncate

TAG = "TEI"
# TEI's own statuses: 413 for what is too much or too long, 400 for what is empty, 422 for what is wrong.
MANNERS = Manners(too_many=413, empty=400, too_long=413, wrong=422, cut_by="truncate=true")
MOST_CHARACTERS = 2**18  # of /tokenize, whose answer is a hundred times as large
TOKEN_IDS = "inputs holds token ids; this server makes tokens itself. Send texts"
_KINDS = {429: "Overloaded", 503: "Unhealthy"}


def error_body(status: int, message: str) -> Mapping[str, Any]:  # Any: JSON
    """Return an error as TEI's clients parse it."""
    return {"error": message, "error_type": _KINDS.get(status, "Validation" if status < 500 else "Backend")}


class Answers:
    """The handlers of the routes."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.engine = ApiEngine(services, MANNERS)

    async def any(self, request: HttpRequest) -> HttpResponse:
        asked: AnyRequest = request.content
        if isinstance(asked.inputs, SimilarityInputs):
            # Beside the parameters, or within them.
            beside = SimilarityParameters(
                truncate=asked.truncate,
                truncation_direction=asked.truncation_direction,
                prompt_name=asked.prompt_name,
            )
            return await self._compare(request, asked.inputs, asked.parameters or beside, asked.model)
        within = asked.parameters or SimilarityParameters()
        return await self._embed(
            request,
            EmbedRequest(
                inputs=asked.inputs,
                truncate=asked.truncate if asked.truncate is not None else within.truncate,
                truncation_direction=within.truncation_direction
                if asked.parameters
                else asked.truncation_direction,
                prompt_name=asked.prompt_name or within.prompt_name,
                normalize=asked.normalize,
                dimensions=asked.dimensions,
                model=asked.model,
            ),
        )

    async def embed(self, request: HttpRequest) -> HttpResponse:
        return await self._embed(request, request.content)

    async def _embed(self, request: HttpRequest, asked: EmbedRequest) -> HttpResponse:
        vectors, told = await self.engine.embed(
            request,
            TextsToEmbed(
                texts=_texts(asked.inputs),
                field="inputs",
                model=asked.model,
                prompt_name=asked.prompt_name,
                dimensions=asked.dimensions,
                on_truncate=_on_truncate(asked.truncate),
                cut_left=_is_left(asked.truncation_direction),
            ),
        )
        return HttpResponse(content=normalize(vectors) if asked.normalize else vectors, headers=told.headers)

    async def embed_all(self, request: HttpRequest) -> HttpResponse:
        asked: EmbedAllRequest = request.content
        vectors, told = await self.engine.token_vectors(
            request,
            TextsToEmbed(
                texts=_texts(asked.inputs),
                field="inputs",
                model=asked.model,
                prompt_name=asked.prompt_name,
                on_truncate=_on_truncate(asked.truncate),
                cut_left=_is_left(asked.truncation_direction),
            ),
        )
        return HttpResponse(content=list(vectors), headers=told.headers)

    async def similarity(self, request: HttpRequest) -> HttpResponse:
        asked: SimilarityRequest = request.content
        parameters = asked.parameters or SimilarityParameters()
        return await self._compare(request, asked.inputs, parameters, asked.model)

    async def _compare(
        self, request: HttpRequest, inputs: SimilarityInputs, how: SimilarityParameters, model: str | None
    ) -> HttpResponse:
        self.engine.check([inputs.source_sentence], "source_sentence")
        self.engine.check(inputs.sentences, "sentences")
        vectors, told = await self.engine.embed(
            request,
            TextsToEmbed(
                texts=[inputs.source_sentence, *inputs.sentences],
                field="sentences",
                model=model,
                prompt_name=how.prompt_name,
                on_truncate=_on_truncate(how.truncate),
                cut_left=_is_left(how.truncation_direction),
            ),
        )
        _, encoder = self.services.encoder(model)
        scores = encoder.similarity(encoder.as_queries(vectors[:1]), vectors[1:])[0]
        return HttpResponse(content=scores, headers=told.headers)

    async def rerank(self, request: HttpRequest) -> HttpResponse:
        asked: RerankRequest = request.content
        scores, probabilities, told = await self.engine.score(
            request,
            TextsToScore(
                query=asked.query,
                texts=asked.texts,
                field="texts",
                model=asked.model,
                on_truncate=_on_truncate(asked.truncate),
                cut_left=_is_left(asked.truncation_direction),
            ),
        )
        shown = scores if asked.raw_scores else probabilities
        ranks = [
            {
                "index": place,
                "score": float(shown[place]),
                **({"text": asked.texts[place]} if asked.return_text else {}),
            }
            for place in best_first(scores)
        ]
        return HttpResponse(content=ranks, headers=told.headers)

    async def tokenize(self, request: HttpRequest) -> HttpResponse:
        asked: TokenizeRequest = request.content
        _, encoder = self.services.encoder(asked.model)
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        self.engine.check(texts, "inputs")
        size = sum(map(len, texts))
        if size > MOST_CHARACTERS:
            raise RefusedError(
                413,
                f"inputs has {size:,} characters; {MOST_CHARACTERS:,} are made tokens of at most. Send fewer at a time",
            )
        prompt = self.engine.prompt(encoder, asked.prompt_name) or ""
        content = await asyncio.to_thread(
            _tokens, encoder.tokenizer, [prompt + text for text in texts], special=asked.add_special_tokens
        )
        return HttpResponse(content=content)

    async def info(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(content=_info(self.services))

    async def health(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(content={"status": "ok"})


def routes(services: Services) -> list[Route]:
    """Return the routes of TEI's API."""
    answers = Answers(services)
    posts = (
        ("/", answers.any, "Embed or compare texts, as Hugging Face's client asks", AnyRequest, list[Any]),
        ("/embed", answers.embed, "Embed texts", EmbedRequest, list[list[float]]),
        (
            "/embed_all",
            answers.embed_all,
            "Give the vectors of all tokens",
            EmbedAllRequest,
            list[list[list[float]]],
        ),
        ("/similarity", answers.similarity, "Compare a text with others", SimilarityRequest, list[float]),
        ("/rerank", answers.rerank, "Order texts by relevance to a query", RerankRequest, list[Rank]),
        ("/tokenize", answers.tokenize, "Show the tokens of texts", TokenizeRequest, list[list[Token]]),
    )
    gets = (
        ("/info", answers.info, "Tell of the first model and of limits", Info, False),
        ("/health", answers.health, "Say that the server answers", Health, True),
    )
    return [
        *(
            Route(
                method="POST",
                path=path,
                handle=handle,
                error_body=error_body,
                summary=summary,
                tag=TAG,
                takes=takes,
                gives=gives,
                wrong_body=MANNERS.wrong,
            )
            for path, handle, summary, takes, gives in posts
        ),
        *(
            Route(
                method="GET",
                path=path,
                handle=handle,
                error_body=error_body,
                summary=summary,
                tag=TAG,
                gives=gives,
                keyless=keyless,
            )
            for path, handle, summary, gives, keyless in gets
        ),
    ]


def _texts(given: Inputs) -> Sequence[str]:
    """Return the texts of a request.

    Raises:
        RefusedError: these are token ids.
    """
    if isinstance(given, str):
        return [given]
    texts = [each for each in given if isinstance(each, str)]
    if len(texts) < len(given):
        raise RefusedError(422, TOKEN_IDS)
    return texts


def _on_truncate(truncate: bool | None) -> OnTruncate:
    return "error" if truncate is False else "ok"


def _is_left(direction: Direction) -> bool:
    return direction.lower() == "left"


def _tokens(
    tokenizer: Tokenizer, texts: Sequence[str], *, special: bool
) -> list[list[Mapping[str, Any]]]:  # Any: JSON
    found: list[list[Mapping[str, Any]]] = []  # Any: JSON
    for text, encoding in zip(
        texts, tokenizer.backend.encode_batch(list(texts), add_special_tokens=special), strict=True
    ):
        rows: list[Mapping[str, Any]] = []  # Any: JSON
        for number, token, is_special, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        ):
            place = {"start": None, "stop": None} if is_special else {"start": start, "stop": stop}
            shown = token if is_special else text[start:stop]
            rows.append({"id": number, "text": shown, "special": bool(is_special), **place})
        found.append(rows)
    return found


def _info(services: Services) -> Mapping[str, Any]:  # Any: JSON
    """Describe the first encoder, or where there is none the first reranker."""
    if services.encoders or not services.rerankers:
        name, encoder = services.encoder(None)
        sentence = encoder.folder.modules.sentence
        kind: Mapping[str, Any] = {"embedding": {"pooling": "+".join(sentence.pooling)}}
        model: Any = encoder  # Any: an encoder or a reranker
        prompts, dimension = sorted(encoder.folder.modules.prompts), encoder.dimension
        tokenizer, budget = encoder.tokenizer, encoder.token_budget
    else:
        name, model = services.reranker(None)
        labels = model.folder.labels if isinstance(model, CrossEncoder) else ("maxsim",)
        numbered = {str(number): label for number, label in enumerate(labels)}
        kind = {
            "reranker": {
                "id2label": numbered,
                "label2id": {label: number for number, label in enumerate(labels)},
            }
        }
        prompts, dimension = [], None
        tokenizer, budget = text_tokenizer(model), token_budget(model)
    limits = services.limits
    return {
        "model_id": name,
        "model_sha": None,
        "model_dtype": "fp32" if model.choice is None else model.choice.precision,
        "model_type": kind,
        "max_input_length": tokenizer.max_length,
        "max_client_batch_size": limits.inputs,
        "max_batch_tokens": budget,
        "auto_truncate": True,
        "prompts": prompts,
        "dimension": dimension,
        "version": version("embedkit"),
    }
