"""What a machine that computes says of a command: the model, its precision, and what the shards will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.data.reading import DocumentReader
from embedkit.distributed.mined_shards import contents_hash, open_whole
from embedkit.distributed.plan import Computed
from embedkit.distributed.requests import MiningWanted, Resolved, ShardRequest, VectorsWanted
from embedkit.errors import CheckpointError
from embedkit.pipelines.embedders import embedder_of, load_any_encoder
from embedkit.pipelines.mining import WORDS_ALONE, MiningModels
from embedkit.pipelines.models import kind_of_model, or_default
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.retrieval.token_vectors import TokenVectors
from indexes import Settings
from indexes.types import Storage, VectorKind

if TYPE_CHECKING:
    from embedkit.inference.choice import Choice
    from embedkit.pipelines.embedders import AnyEncoder

_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "while",
    "an",
    "old",
    "man",
    "reads",
    "his",
    "paper",
    "in",
    "the",
    "sun",
]
_PROBES = 48
# What the settings of an index must say of each kind; vectors in files are float32 whatever it is.
_STORAGES: Mapping[VectorKind, Storage] = {"dense": "float32", "multi-vector": "2-bit", "sparse": "int8"}


def resolve(request: ShardRequest) -> Resolved:
    """Load the model, choose precision and backend (measured, where that is open), and say what the shards will be.

    Raises:
        ValueError: passages would be longer than what the model reads.
        CheckpointError, DeviceError: the model cannot be loaded or computed here.
    """
    from embedkit.pipelines.building import Documents

    if request.mining is not None:
        return _resolve_mining(request, request.mining)
    model = or_default(request.model)
    if request.vectors is not None:
        return _resolve_vectors(request, request.vectors)
    reader = DocumentReader([__file__], replace(request.reading, format="file"))  # of which nothing is read
    source = Documents(reader, request.computing, model=request.model, merge_tokens=request.merge_tokens)
    settings = source.settings(request.building)
    if request.kind != "flat" and settings.fields:
        raise ValueError(
            f"--kind {request.kind} finds by one product, and documents with fields are compared one by one"
        )
    if request.kind != "flat":
        settings.need_dense(f"an index of {model}", request.kind)
    assert source.embedder is not None
    return _resolved(request, source.embedder.encoder, settings)


def _resolve_vectors(request: ShardRequest, wanted: VectorsWanted) -> Resolved:
    from embedkit.encoding.job import encode_stream
    from embedkit.encoding.multi_vector import MultiVectorEncoder

    model = or_default(request.model)
    kind = kind_of_model(model)
    loading = {name: value for name, value in wanted.loading.items() if value is not None}
    encoder = load_any_encoder(model, request.computing, loading, merge_tokens=request.merge_tokens)
    prompt = wanted.options.prompt
    if wanted.prompt_name is not None:
        if isinstance(encoder, MultiVectorEncoder):
            raise CheckpointError(
                f"{model}: a multi-vector model has its own prompts. Leave out --prompt-name"
            )
        prompt = encoder.prompt(wanted.prompt_name)
    options = replace(wanted.options, prompt=prompt)
    encode_stream(encoder, (), options)  # refuses a role that the model needs and has not
    settings = Settings(
        dimension=encoder.width(options.role),
        fingerprint=encoder.fingerprint,
        kind=kind,
        storage=_STORAGES[kind],
    )
    encoding = {"options": asdict(options), "loading": loading, "ending": wanted.ending}
    return _resolved(request, encoder, settings, encoding)


def _resolve_mining(request: ShardRequest, wanted: MiningWanted) -> Resolved:
    from embedkit.models import lasting_name

    with open_whole(wanted.index) as index:
        models = MiningModels(
            wanted.by,
            request.computing,
            model=request.model,
            rerank=wanted.rerank,
            index=None if wanted.own else index,
        )
        encoder, judge = models.encoder, models.cross_encoder
        mining: dict[str, Any] = {
            "index": wanted.index,
            "index_hash": contents_hash(wanted.index),
            "by": wanted.by,
            "recipe": asdict(wanted.recipe),
            "columns": dict(wanted.columns),
            "manifest": wanted.manifest() | models.fingerprints(),
        }
    judged = None
    if judge is not None:
        # It is given the same pairs together whatever the cut, but not as many threads.
        judged = _computed(
            request, judge.choice, exact=judge.choice is not None and judge.choice.runtime == "native"
        )
        mining["judge"] = {
            "model": lasting_name(judge.folder.path),
            "fingerprint": judge.folder.fingerprint,
            "computed": asdict(judged),
        }
    if encoder is None:
        words = Computed(device="cpu", precision="fp32", backend="", threads=request.threads, exact=True)
        return Resolved(WORDS_ALONE.to_json(), "", judged or words, mining=mining)
    settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
    found = _resolved(replace(request, merge_tokens=encoder.merge_tokens), encoder, settings)
    exact = found.computed.exact and (judged is None or judged.exact)
    return replace(found, computed=replace(found.computed, exact=exact), mining=mining)


def _resolved(
    request: ShardRequest,
    encoder: AnyEncoder,
    settings: Settings,
    encoding: Mapping[str, Any] | None = None,
) -> Resolved:
    from embedkit.encoding.encoder import Encoder
    from embedkit.models import lasting_name

    choice = encoder.choice
    table = encoder.folder.static if isinstance(encoder, Encoder) else choice is None
    exact = table or (choice is not None and choice.runtime == "native" and _is_exact(encoder))
    computed = _computed(request, choice, exact=exact)
    return Resolved(settings.to_json(), lasting_name(encoder.folder.path), computed, encoding or {})


def _computed(request: ShardRequest, choice: Choice | None, *, exact: bool) -> Computed:
    return Computed(
        device="cpu" if choice is None else choice.device,
        precision="fp32" if choice is None else choice.precision,
        backend="auto" if choice is None else choice.runtime,
        threads=request.threads,
        exact=exact,
        force_precision=request.computing.force_precision,
        merge_tokens=request.merge_tokens,
    )


def _is_exact(encoder: AnyEncoder) -> bool:
    """Try whether the bits of a text depend on those beside it, with texts of several lengths together and one by one.

    Not every level and precision of the compiled kernels adds up the rows at the edge of a block as it does those inside.
    """
    from embedkit.encoding.encoder import Encoder

    texts = [" ".join(_WORDS[: 1 + number % len(_WORDS)]) for number in range(_PROBES)]
    encode = encoder.encode if isinstance(encoder, Encoder) else embedder_of(encoder, "document")
    together = encode(texts)
    return all(_bits(encode([text]), 0) == _bits(together, number) for number, text in enumerate(texts))


def _bits(vectors: Any, row: int) -> bytes:  # Any: vectors of whatever kind
    """Return the bits of what stands for a text."""
    if isinstance(vectors, np.ndarray):
        return bytes(vectors[row].data)
    if isinstance(vectors, TokenVectors):
        return vectors.text(row).tobytes()
    one: SparseVectors = vectors.take(np.array([row]))
    return one.terms.tobytes() + one.weights.tobytes()
