"""Which encoder a command takes: the one it names, else the index's own, else $EMBEDKIT_MODEL, else the shipped one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.models import ENCODER, SHIPPED, shipped

from . import console

if TYPE_CHECKING:
    from indexes import Index

ENVIRONMENT = "EMBEDKIT_MODEL"


def or_default(named: str | None) -> str | Path:
    """Return the model that was named on the command line or in the environment, else the shipped encoder."""
    return named or os.environ.get(ENVIRONMENT) or shipped(ENCODER)


def of_index(index: Index, named: str | None) -> str | Path:
    """Return the model that was named, else the one that the index was built with.

    Where that has gone from its place, the one in the environment and the shipped one are tried by their fingerprints.

    Raises:
        CheckpointError: none of these is the index's own.
    """
    from embedkit.errors import CheckpointError

    noted = index.model_path
    if named is not None:
        return named
    if noted is not None and noted in SHIPPED:
        return shipped(noted)
    if noted is not None and Path(noted).is_dir():
        return noted
    others = [name for name in (os.environ.get(ENVIRONMENT), ENCODER) if name]
    for other in others:
        if _is_of(index, other):
            return other
    raise CheckpointError(
        f"{index.path}: its model was {noted or 'not noted'}, where there is no folder, and it was not "
        f"{' or '.join(others)}. Name the model that it was built with: --model FOLDER"
    )


def _is_of(index: Index, model: str) -> bool:
    from embedkit.checkpoint.folder import fingerprint, read_model_folder
    from embedkit.errors import CheckpointError, IndexMismatchError
    from embedkit.inference.token_merging import merging_of, merging_part

    merging = merging_part(merging_of(index.settings.fingerprint))
    try:
        index.check_encoder(fingerprint(read_model_folder(model)) | merging)
    except (CheckpointError, IndexMismatchError):
        return False
    return True


def say(encoder: str | None, reranker: str | None = None) -> None:
    """Say on standard error which models give the results."""
    parts = [f"model {encoder}"] if encoder else []
    if reranker:
        parts.append(f"reranked by {reranker}")
    if parts:
        console.note(", ".join(parts))
