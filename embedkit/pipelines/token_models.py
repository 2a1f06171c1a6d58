"""Multi-vector models and the indexes that they make, and what does not apply to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.errors import CheckpointError
from embedkit.pipelines.models import MAXSIM

if TYPE_CHECKING:
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.pipelines.options import BuildOptions
    from indexes import Settings
    from indexes.types import Storage

USUAL_STORAGE: Storage = "2-bit"


def refuse_for_tokens(
    model: str | Path,
    *,
    merge_tokens: float | None = None,
    recursions: int | None = None,
    rerank: Sequence[str] = (),
) -> None:
    """Refuse what does not apply to a multi-vector model.

    Raises:
        CheckpointError: something of it was asked for.
    """
    for asked, option, why in (
        (merge_tokens, "--merge-tokens", "it gives each token a vector of its own"),
        (recursions, "--recursions", "its layers are passed once"),
        (MAXSIM in rerank, "--rerank maxsim", "its search is by maxsim already, over all passages"),
    ):
        if asked:
            raise CheckpointError(
                f"{model}: is a multi-vector model, for which {option} means nothing: {why}. Leave it out"
            )


def token_settings(
    encoder: MultiVectorEncoder, options: BuildOptions, cutting: Mapping[str, int] | None = None
) -> Settings:
    """Return the settings of a new index of token vectors.

    Raises:
        ValueError: an option does not apply to them.
    """
    from indexes import Settings
    from indexes.storage.codes import TOKEN_BITS

    if options.metric not in (None, "cosine"):
        raise ValueError(
            f"--metric {options.metric}: token vectors are compared by cosine, and a score is the sum of the best. Leave it out"
        )
    if options.storage is not None and options.storage not in TOKEN_BITS:
        raise ValueError(
            f"--storage {options.storage} is for one vector a text; token vectors are kept as {' or '.join(TOKEN_BITS)}"
        )
    return Settings(
        dimension=encoder.dimension,
        storage=options.storage or USUAL_STORAGE,
        fingerprint=encoder.fingerprint,
        cutting=cutting or {},
        kind="multi-vector",
    )
