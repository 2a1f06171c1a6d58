"""The models that are on this machine: those that come with embedkit, and those in the Hugging Face hub's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from embedkit.errors import EmbedkitError
from embedkit.models import SHIPPED, shipped

Place = Literal["embedkit", "hub cache"]


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model's folder; `kind` "other" is one that embedkit does not compute, for the `reason`."""

    name: str
    place: Place
    folder: str
    kind: str
    family: str | None = None
    parameters: int | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:  # Any: JSON values
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def parameters_text(self) -> str:
        return "-" if self.parameters is None else f"{self.parameters:,}"

    @property
    def note(self) -> str:
        """What a person needs to go on: the folder, or why it is of no use."""
        return self.folder if self.reason is None else self.reason


def known_models() -> Iterator[KnownModel]:
    """Yield the models that come with embedkit, then those of the hub's cache by their names."""
    for name in SHIPPED:
        try:
            folder = shipped(name)
        except EmbedkitError as exc:
            yield KnownModel(name=name, place="embedkit", folder="-", kind="other", reason=str(exc))
        else:
            yield _known(name, "embedkit", folder)
    for name, folder in _cached():
        yield _known(name, "hub cache", folder)


def hub_cache() -> Path:
    """Return where Hugging Face's libraries keep what they fetch: $HF_HUB_CACHE, else `hub` in $HF_HOME or in the user's cache."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named)
    home = os.environ.get("HF_HOME")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home) if home else caches / "huggingface") / "hub"


def _cached() -> Iterator[tuple[str, Path]]:
    """Yield the name of each model with a config, and the snapshot that its main branch, else its newest one, is."""
    for repository in sorted(hub_cache().glob("models--*")):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        main = repository / "refs" / "main"
        snapshots = sorted((repository / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        if main.is_file():
            pinned = repository / "snapshots" / main.read_text(encoding="utf-8").strip()
            snapshots = [pinned] if pinned.is_dir() else snapshots
        files = ("config.json", "modules.json", "adapter_config.json")
        if snapshots and any((snapshots[-1] / file).is_file() for file in files):
            yield name, snapshots[-1]


def _known(name: str, place: Place, folder: Path) -> KnownModel:
    from embedkit.checkpoint.classification import is_classifier, read_classifier_folder
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.checkpoint.generation import is_generator, read_generator_folder
    from embedkit.checkpoint.multi_vector import is_multi_vector, read_multi_vector_folder
    from embedkit.checkpoint.sparse_modules import is_sparse
    from embedkit.model.costs import num_parameters

    where: dict[str, Any] = {"name": name, "place": place, "folder": str(folder)}
    try:
        if is_generator(folder):
            generator = read_generator_folder(folder)
            return KnownModel(**where, kind="generator", family=generator.family)
        if is_classifier(folder):
            classifier = read_classifier_folder(folder)
            size = num_parameters(classifier.config)
            return KnownModel(**where, kind="cross-encoder", family=classifier.family, parameters=size)
        if is_multi_vector(folder):
            encoder = read_multi_vector_folder(folder).encoder
            size = num_parameters(encoder.config)
            return KnownModel(**where, kind="multi-vector", family=encoder.family, parameters=size)
        if is_sparse(folder):
            return _known_sparse(where, folder)
        read = read_model_folder(folder)
    except EmbedkitError as exc:
        return KnownModel(**where, kind="other", reason=str(exc))
    if read.static:
        size = read.config.vocab_size * read.config.hidden_size
        return KnownModel(**where, kind="dense", family="static", parameters=size)
    return KnownModel(**where, kind="dense", family=read.family, parameters=num_parameters(read.config))


def _known_sparse(where: dict[str, Any], folder: Path) -> KnownModel:
    from embedkit.checkpoint.sparse import read_sparse_folder
    from embedkit.model.costs import num_parameters

    model = read_sparse_folder(folder).sides["document"].model
    if model is None:
        return KnownModel(**where, kind="sparse", family="token weights")
    return KnownModel(**where, kind="sparse", family=model.family, parameters=num_parameters(model.config))
