"""What embeds the texts of an index, by its kind: one vector a text, a vector for each token, or weights of terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit.errors import CheckpointError, IndexMismatchError
from embedkit.pipelines.models import Built, kind_of_model, load_encoder
from embedkit.pipelines.token_models import refuse_for_tokens

if TYPE_CHECKING:
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.multi_vector import MultiVectorEncoder
    from embedkit.encoding.sparse import SparseEncoder
    from embedkit.encoding.sparse_embedder import SparseEmbedder
    from embedkit.encoding.token_embedder import TokenEmbedder
    from embedkit.types import Computing, TextRole
    from indexes.types import Storage, VectorKind

    AnyEncoder = Encoder | MultiVectorEncoder | SparseEncoder
    AnyEmbedder = Embedder | TokenEmbedder | SparseEmbedder

USUAL_STORAGE: Storage = "float32"
_KINDS: dict[VectorKind, str] = {
    "dense": "a model with one vector a text",
    "multi-vector": "a multi-vector model, with a vector for each token",
    "sparse": "a learned sparse model, with weights of terms",
}


def describe_kind(encoder: AnyEncoder) -> str | None:
    """Say what kind of model it is where it does not give one vector a text; else None."""
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.sparse import SparseEncoder

    if isinstance(encoder, Encoder):
        return None
    return _KINDS["sparse" if isinstance(encoder, SparseEncoder) else "multi-vector"]


def check_kind(index: Built, model: str | Path) -> None:
    """Refuse a model of another kind than the index.

    Raises:
        IndexMismatchError: it is.
    """
    there, here = index.settings.kind, kind_of_model(model)
    if there != here:
        raise IndexMismatchError(
            f"{index.path} was built by {_KINDS[there]}; {model} is {_KINDS[here]}. Use what it was built with"
        )


def storage_of(kind: VectorKind, wanted: Storage | None = None) -> Storage:
    """Return how dense vectors or weights of terms are stored; None stands for no wish.

    Raises:
        ValueError: the kind is not stored as wanted.
    """
    if kind != "sparse":
        return wanted or USUAL_STORAGE
    if wanted not in (None, "int8"):
        raise ValueError(f"--storage is {wanted}; a sparse index keeps weights in 8 bits. Leave it out")
    return "int8"


def embedder_of(encoder: AnyEncoder, role: TextRole, *, by_field: bool = False) -> AnyEmbedder:
    """Make of a loaded encoder what embeds queries or documents with it and counts."""
    from embedkit.encoding.encoder import Encoder

    if isinstance(encoder, Encoder):
        from embedkit.encoding.embedder import Embedder

        return Embedder(encoder, role, by_field=by_field)
    from embedkit.encoding.sparse import SparseEncoder

    if isinstance(encoder, SparseEncoder):
        from embedkit.encoding.sparse_embedder import SparseEmbedder

        return SparseEmbedder(encoder, role)
    from embedkit.encoding.token_embedder import TokenEmbedder

    return TokenEmbedder(encoder, role)


def load_any_encoder(
    model: str | Path,
    computing: Computing,
    loading: Mapping[str, Any],  # Any: of each option's type
    *,
    merge_tokens: float = 0.0,
    measure: bool = True,
) -> AnyEncoder:
    """Load an encoder of whatever kind; `loading` are further options of its `load`.

    Raises:
        As `load` of `Encoder`, `MultiVectorEncoder`, `SparseEncoder`.
    """
    kind = kind_of_model(model)
    if kind == "multi-vector":
        from embedkit.encoding.multi_vector import MultiVectorEncoder

        return MultiVectorEncoder.load(model, computing=computing, measure=measure, **loading)
    if kind == "sparse":
        from embedkit.encoding.sparse import SparseEncoder

        return SparseEncoder.load(model, computing=computing, measure=measure, **loading)
    return load_encoder(model, computing, merge_tokens=merge_tokens, measure=measure, **loading)


def load_embedder(
    model: str | Path,
    computing: Computing,
    role: TextRole,
    *,
    merge_tokens: float = 0.0,
    interactive: bool = False,
    recursions: int | None = None,
    max_active_dims: int | None = None,
) -> AnyEmbedder:
    """Load what embeds queries or documents with a model of any kind that an index is made with.

    Raises:
        CheckpointError: an option does not go with the kind of model; else as `Encoder.load`.
    """
    kind = kind_of_model(model)
    if max_active_dims is not None and kind != "sparse":
        raise CheckpointError(
            f"{model}: max_active_dims goes with a learned sparse model, and this is {_KINDS[kind]}"
        )
    loading: dict[str, object] = {"interactive": interactive}
    if kind == "dense":
        loading["recursions"] = recursions
    elif kind == "multi-vector":
        refuse_for_tokens(model, merge_tokens=merge_tokens, recursions=recursions)
    else:
        _refuse_for_terms(model, merge_tokens=merge_tokens, recursions=recursions)
        loading["max_active_dims"] = max_active_dims
    encoder = load_any_encoder(model, computing, loading, merge_tokens=merge_tokens)
    return embedder_of(encoder, role, by_field=role == "document")


def _refuse_for_terms(model: str | Path, *, merge_tokens: float, recursions: int | None) -> None:
    if recursions is not None:
        raise CheckpointError(
            f"{model}: this is a learned sparse model, of which all layers are computed. Leave out recursions"
        )
    if merge_tokens:
        raise CheckpointError(
            f"{model}: this is a learned sparse model, which weighs every token; tokens are not merged",
            ". Leave out --merge-tokens",
        )
