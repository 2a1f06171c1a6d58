"""Which models a pipeline takes, and loading them: the one named, else the index's own, else $EMBEDKIT_MODEL, else the shipped one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embedkit.models import ENCODER, SHIPPED, shipped

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.sparse import SparseEncoder
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.retrieval.reranker import Reranker
    from embedkit.types import Computing
    from indexes.storage.settings import Fingerprint, Settings
    from indexes.types import Metric, VectorKind

ENVIRONMENT = "EMBEDKIT_MODEL"
_CONFIGURED: dict[str, str] = {}  # "model" -> what configuration files name where the environment names none
MAXSIM = "maxsim"  # in place of a reranker: token by token, by the search's own encoder


class Built(Protocol):
    """What a model made: an index, or what a store holds of one."""

    @property
    def settings(self) -> Settings: ...

    @property
    def model_path(self) -> str | None:
        """Where the encoder's folder lay when it was last used."""
        ...

    @property
    def path(self) -> object:
        """What it is called in messages."""
        ...

    def check_encoder(self, fingerprint: Fingerprint | None) -> None: ...


def set_default_model(named: str | None) -> None:
    """Say which model comes before the shipped one where neither an option, an index nor the environment names any."""
    _CONFIGURED.clear()
    if named is not None:
        _CONFIGURED["model"] = named


def _default_model() -> str | None:
    return os.environ.get(ENVIRONMENT) or _CONFIGURED.get("model")


def or_default(named: str | None) -> str | Path:
    """Return the model that was named on the command line, in the environment or in a configuration file, else the shipped encoder."""
    return named or _default_model() or shipped(ENCODER)


def of_index(index: Built, named: str | None) -> str | Path:
    """Return the model that was named, else the one that the index was built with.

    Where that has gone from its place, the one in the environment or a configuration file and the shipped one are tried by
    their fingerprints.

    Raises:
        CheckpointError: none of these is the index's own.
        IndexMismatchError: the index was made of ready vectors.
    """
    from embedkit.errors import CheckpointError, IndexMismatchError

    noted = index.model_path
    if named is not None:
        return named
    if noted is not None and noted in SHIPPED:
        return shipped(noted)
    if noted is not None and Path(noted).is_dir():
        return noted
    if index.settings.fingerprint is None:
        raise IndexMismatchError(
            f"{index.path} was built from ready vectors: which model made them is not known, and texts do not fit it. "
            "Add vectors with --vectors and --ids, or build another index of texts"
        )
    others = [name for name in (_default_model(), ENCODER) if name]
    for other in others:
        if _is_of(index, other):
            return other
    raise CheckpointError(
        f"{index.path}: its model was {noted or 'not noted'}, where there is no folder, and it was not "
        f"{' or '.join(others)}. Name the model that it was built with: --model FOLDER"
    )


def _is_of(index: Built, model: str) -> bool:
    from embedkit.errors import CheckpointError, IndexMismatchError

    try:
        index.check_encoder(fingerprint_of(model, index.settings.fingerprint))
    except (CheckpointError, IndexMismatchError):
        return False
    return True


def fingerprint_of(
    model: str | Path, like: Mapping[str, Any] | None, **loading: Any
) -> dict[str, Any]:  # Any: JSON, and what `read_model_folder` takes
    """Return the fingerprint of a model of any kind, without its weights, used as `like`, the fingerprint of an index, says.

    Raises:
        CheckpointError: the folder holds no model that we can compute.
    """
    from embedkit.checkpoint.folder import fingerprint, read_model_folder
    from embedkit.inference.token_merging import merging_of, merging_part

    kind = kind_of_model(model)
    if kind == "sparse":
        from embedkit.encoding.sparse import sparse_fingerprint

        return sparse_fingerprint(model, like)
    if kind == "multi-vector":
        from embedkit.checkpoint.multi_vector import read_multi_vector_folder

        return read_multi_vector_folder(model).fingerprint
    return fingerprint(read_model_folder(model, **loading)) | merging_part(merging_of(like))


def metric_of(encoder: Encoder | SparseEncoder) -> Metric:
    """Return how an index compares the vectors of a model: as its folder says.

    Raises:
        CheckpointError: no index compares so.
    """
    from embedkit.errors import CheckpointError

    similarity = encoder.folder.modules.similarity
    found = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}.get(similarity)
    if found is None:
        raise CheckpointError(
            f"{encoder.folder.path}: its similarity_fn_name is {similarity!r}, by which no index searches",
            "; choose another with --metric",
        )
    metric: Metric = found  # type: ignore[assignment] # of those above
    return metric


def load_encoder(
    model: str | Path,
    computing: Computing,
    *,
    interactive: bool = False,
    max_seq_length: int | None = None,
    truncate_dim: int | None = None,
    merge_tokens: float = 0.0,
    recursions: int | None = None,
    measure: bool = True,
) -> Encoder:
    """Load an encoder as `Encoder.load` does, computed as the options say.

    Raises:
        As `Encoder.load`.
    """
    from embedkit.encoding.encoder import Encoder

    return Encoder.load(
        model,
        device=computing.device,
        precision=computing.precision,
        backend=computing.backend,
        force_precision=computing.force_precision,
        max_seq_length=max_seq_length,
        truncate_dim=truncate_dim,
        interactive=interactive,
        merge_tokens=merge_tokens,
        recursions=recursions,
        measure=measure,
    )


def kind_of_model(model: str | Path) -> VectorKind:
    """Say what an index of a model's vectors holds of each passage."""
    from embedkit.checkpoint.multi_vector import is_multi_vector
    from embedkit.checkpoint.sparse_modules import is_sparse
    from embedkit.models import find_model

    folder = find_model(model)
    if is_multi_vector(folder):
        return "multi-vector"
    return "sparse" if is_sparse(folder) else "dense"


def load_reranker(
    name: str, computing: Computing, *, encoder: Encoder | None = None, interactive: bool = False
) -> Reranker:
    """Load a cross-encoder or a multi-vector model, or make a reranker of the search's own `encoder` where the name is "maxsim".

    Raises:
        ValueError: maxsim without an encoder.
        As `CrossEncoder.load`.
    """
    if name == MAXSIM:
        from embedkit.reranking.maxsim import MaxSim

        if encoder is None:
            raise ValueError("maxsim needs the encoder of the search")
        return MaxSim(encoder)
    if kind_of_model(name) == "multi-vector":
        from embedkit.encoding.multi_vector import MultiVectorEncoder
        from embedkit.reranking.maxsim import MaxSim

        if (
            interactive and computing.precision == "auto"
        ):  # it reads many texts; one query is not worth measuring for
            computing = replace(computing, precision="fp32")
        return MaxSim(MultiVectorEncoder.load(name, computing=computing))
    return load_cross_encoder(name, computing, interactive=interactive)


def load_cross_encoder(model: str | Path, computing: Computing, *, interactive: bool = False) -> CrossEncoder:
    """Load a cross-encoder as `CrossEncoder.load` does, computed as the options say.

    Raises:
        As `CrossEncoder.load`.
    """
    from embedkit.reranking.cross_encoder import CrossEncoder

    return CrossEncoder.load(
        model,
        device=computing.device,
        precision=computing.precision,
        backend=computing.backend,
        force_precision=computing.force_precision,
        interactive=interactive,
    )
