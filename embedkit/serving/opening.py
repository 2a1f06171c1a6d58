"""Opening what is served: models by their names, indexes with the models that made them, and the routes to all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from embedkit.errors import ConfigError
from embedkit.pipelines.models import load_cross_encoder, load_encoder, or_default
from embedkit.serving.engine.engine import Engine
from embedkit.serving.options import ServeOptions
from embedkit.serving.services import Services

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.serving.http.app import App
    from embedkit.serving.http.messages import Route

Model = TypeVar("Model", "Encoder", "CrossEncoder")


def open_services(wanted: ServeOptions) -> Services:
    """Load the models and open the indexes.

    Raises:
        IndexFileError, IndexMismatchError: an index cannot be opened, or was made by another model than is there.
        CheckpointError, DeviceError: a model cannot be loaded, or is not computed here.
        ConfigError: two models have one name, or an alias names none.
    """
    encoders = _named(
        [load_encoder(each, wanted.computing) for each in (wanted.models or [str(or_default(None))])]
    )
    rerankers = _named([load_cross_encoder(each, wanted.computing) for each in wanted.rerankers])
    for alias, model in wanted.aliases.items():
        if model not in encoders and model not in rerankers:
            there = ", ".join([*encoders, *rerankers])
            raise ConfigError(
                f"the alias {alias!r} is to name {model!r}, which is not served; there is {there}"
            )
    return Services(
        engine=Engine(wanted.limits),
        limits=wanted.limits,
        encoders=encoders,
        rerankers=rerankers,
        aliases=wanted.aliases,
        writable=wanted.writable,
    )


def all_routes(services: Services, app: App) -> Iterator[Route]:
    """Yield every route of a server."""
    yield from ()


def _named(models: list[Model]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for model in models:
        name = model.folder.name
        if name in found:
            paths = " and ".join(str(Path(each.folder.path)) for each in (found[name], model))
            raise ConfigError(f"two models are called {name!r}: {paths}. Rename one of the folders")
        found[name] = model
    return found
