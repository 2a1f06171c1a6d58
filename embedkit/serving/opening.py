"""Opening what is served: models by their names, indexes with the models that made them, and the routes to all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from embedkit.checkpoint.folder import check_one_model
from embedkit.errors import ConfigError
from embedkit.pipelines.models import MAXSIM, load_encoder, load_reranker, or_default
from embedkit.serving import page
from embedkit.serving.engine.engine import Engine
from embedkit.serving.engine.scoring import AnyReranker
from embedkit.serving.http import cohere_api, metrics, ollama_api, openai_api, openapi, search_api, tei_api
from embedkit.serving.indexes.live import open_indexes
from embedkit.serving.indexes.models import IndexModels
from embedkit.serving.indexes.names import index_names
from embedkit.serving.model_names import served_name
from embedkit.serving.options import ServeOptions
from embedkit.serving.services import Services

if TYPE_CHECKING:
    from embedkit.checkpoint.classification import ClassifierFolder
    from embedkit.checkpoint.folder import ModelFolder
    from embedkit.checkpoint.multi_vector import MultiVectorFolder
    from embedkit.encoding.encoder import Encoder
    from embedkit.serving.http.app import App
    from embedkit.serving.http.messages import Route

Model = TypeVar("Model", "Encoder", AnyReranker)


def open_services(wanted: ServeOptions) -> Services:
    """Load the models and open the indexes, in a thread that ends then.

    What computes in this thread would leave it a team of OpenMP's threads (GNU). With that and the engine's own there are more than
    processors, and those that wait go to sleep at once: one short text took 21 ms in place of 15, eight 33 in place of 28.

    Raises:
        IndexFileError, IndexMismatchError: an index cannot be opened, or was made by another model than is there.
        CheckpointError, DeviceError: a model cannot be loaded, or is not computed here.
        ConfigError: two models have one name, or an alias names none.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as thread:
        return thread.submit(_open_services, wanted).result()


def _open_services(wanted: ServeOptions) -> Services:
    from embedkit.encoding.encoder import Encoder

    named = [load_encoder(each, wanted.computing) for each in wanted.models]
    indexes = open_indexes(
        index_names(wanted.indexes),
        IndexModels(named, wanted.computing),
        wanted.gathering,
        allow_regex=wanted.allow_regex,
    )
    try:
        own = {id(index.encoder): index.encoder for index in indexes.values() if index.encoder is not None}
        encoders = named or [encoder for encoder in own.values() if isinstance(encoder, Encoder)]
        if not encoders and not own:
            encoders = [load_encoder(or_default(None), wanted.computing)]
        served = _named(encoders)
        for encoder in encoders:
            check_one_model(encoder.folder, "a server")
        rerankers = _named([_load_reranker(each, wanted) for each in wanted.rerankers])
        _check_aliases(wanted, [*served, *rerankers])
        return Services(
            engine=Engine(wanted.limits),
            limits=wanted.limits,
            encoders=served,
            rerankers=rerankers,
            indexes=indexes,
            aliases=wanted.aliases,
            writable=wanted.writable,
        )
    except BaseException:
        for index in indexes.values():
            index.close()
        raise


def all_routes(services: Services, app: App) -> Iterator[Route]:
    """Yield every route of a server; the first says how errors look where no route is near."""
    yield from search_api.routes(services)
    yield from openai_api.routes(
        services
    )  # before Cohere's: what is unknown below /v1 is refused as OpenAI does
    yield from cohere_api.routes(services)
    yield from tei_api.routes(services)
    yield from ollama_api.routes(services)
    yield from metrics.routes(services, app)
    yield from openapi.routes(lambda: app.routes)
    yield from page.routes()


def _load_reranker(name: str, wanted: ServeOptions) -> AnyReranker:
    """Load a cross-encoder, or a multi-vector model that reranks.

    Raises:
        ConfigError: the name is "maxsim", which is an encoder's of a search, and none of a server's own.
    """
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.maxsim import MaxSim

    if name == MAXSIM:
        raise ConfigError(
            "'maxsim' reranks with the encoder of one search; a server's rerankers are models of their own. "
            "Name a cross-encoder, or a multi-vector model"
        )
    model = load_reranker(name, wanted.computing)
    assert isinstance(model, CrossEncoder | MaxSim)
    return model


def _check_aliases(wanted: ServeOptions, there: Sequence[str]) -> None:
    for alias, model in wanted.aliases.items():
        if model not in there:
            raise ConfigError(
                f"the alias {alias!r} is to name {model!r}, which is not served; there is {', '.join(there)}"
            )


def _named(models: list[Model]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for model in models:
        name = served_name(_folder(model).name)
        if name in found:
            paths = " and ".join(str(Path(_folder(each).path)) for each in (found[name], model))
            raise ConfigError(f"two models are called {name!r}: {paths}. Rename one of the folders")
        found[name] = model
    return found


def _folder(model: Encoder | AnyReranker) -> ModelFolder | ClassifierFolder | MultiVectorFolder:
    from embedkit.reranking.maxsim import MaxSim

    return model.tokens.folder if isinstance(model, MaxSim) else model.folder
