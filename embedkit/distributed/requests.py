"""What the command asks for, and what a machine that computes says of it: the model, its precision, and what the shards will be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from embedkit.data.reading import DocumentReader
from embedkit.data.records import ReadOptions
from embedkit.data.walking import WalkOptions
from embedkit.distributed.plan import Computed
from embedkit.encoding.job import EncodeOptions
from embedkit.errors import IndexMismatchError
from embedkit.pipelines.models import kind_of_model, load_encoder, or_default
from embedkit.pipelines.options import BuildOptions
from embedkit.types import Computing
from indexes import Kind, Settings

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder

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


@dataclass(frozen=True, kw_only=True)
class VectorsWanted:
    """What `embedkit encode` asks for: the options of `EncodeOptions`, how the model is loaded, and the ending of the files."""

    options: EncodeOptions
    ending: str
    prompt_name: str | None = None
    loading: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """What the command asks for. `threads` are those of each worker; `vectors` asks for vectors in files in place of indexes."""

    inputs: Sequence[str]
    reading: ReadOptions
    walking: WalkOptions | None
    building: BuildOptions
    computing: Computing
    shards: int
    threads: int
    model: str | None = None
    merge_tokens: float = 0.0
    strict: bool = False
    allow_other: bool = False
    vectors: VectorsWanted | None = None
    kind: Kind = "flat"

    def asked(self) -> dict[str, Any]:  # Any: JSON
        """Return what must be the same for the same plan; who computes, and how many, may change."""
        building = asdict(self.building)
        del building["sync"]
        wanted: dict[str, Any] = {} if self.vectors is None else {"vectors": asdict(self.vectors)}
        wanted |= {} if self.kind == "flat" else {"kind": self.kind}
        return {
            **wanted,
            "inputs": list(self.inputs),
            "shards": self.shards,
            "model": str(or_default(self.model)),
            "merge_tokens": self.merge_tokens,
            "strict": self.strict,
            "allow_other": self.allow_other,
            "reading": asdict(self.reading),
            "walking": None if self.walking is None else asdict(self.walking),
            "building": building,
            "computing": asdict(self.computing),
        }


@dataclass(frozen=True)
class Resolved:
    """What a machine that computes says of the model: the settings of the index, as JSON, what computes it, and `ShardPlan.encoding`."""

    settings: str
    model_path: str
    computed: Computed
    encoding: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON


Resolve = Callable[[ShardRequest], Resolved]


def resolve(request: ShardRequest) -> Resolved:
    """Load the model, choose precision and backend (measured, where that is open), and say what the shards will be.

    Raises:
        ValueError: passages would be longer than what the model reads.
        CheckpointError, DeviceError: the model cannot be loaded or computed here.
    """
    from embedkit.encoding.embedder import Embedder
    from embedkit.pipelines.building import Documents

    model = or_default(request.model)
    kind = kind_of_model(model)
    if kind != "dense":
        raise IndexMismatchError(
            f"{model}: is a {kind} model, of which an index lies in one piece. Leave out --shards"
        )
    if request.vectors is not None:
        return _resolve_vectors(request, request.vectors)
    reader = DocumentReader([__file__], replace(request.reading, format="file"))  # of which nothing is read
    source = Documents(reader, request.computing, model=request.model, merge_tokens=request.merge_tokens)
    settings = source.settings(request.building)
    if request.kind != "flat" and settings.fields:
        raise ValueError(
            f"--kind {request.kind} finds by one product, and documents with fields are compared one by one"
        )
    assert isinstance(source.embedder, Embedder)
    return _resolved(request, source.embedder.encoder, settings)


def _resolve_vectors(request: ShardRequest, wanted: VectorsWanted) -> Resolved:
    from embedkit.encoding.job import encode_stream

    loading = dict(wanted.loading)
    encoder = load_encoder(
        or_default(request.model),
        request.computing,
        merge_tokens=request.merge_tokens,
        max_seq_length=loading.get("max_seq_length"),
        truncate_dim=loading.get("truncate_dim"),
        recursions=loading.get("recursions"),
    )
    prompt = wanted.options.prompt if wanted.prompt_name is None else encoder.prompt(wanted.prompt_name)
    options = replace(wanted.options, prompt=prompt)
    encode_stream(encoder, (), options)  # refuses a role that the model needs and has not
    settings = Settings(dimension=encoder.width(options.role), fingerprint=encoder.fingerprint)
    encoding = {"options": asdict(options), "loading": loading, "ending": wanted.ending}
    return _resolved(request, encoder, settings, encoding)


def _resolved(
    request: ShardRequest, encoder: Encoder, settings: Settings, encoding: Mapping[str, Any] | None = None
) -> Resolved:
    from embedkit.models import lasting_name

    choice = encoder.choice
    assert choice is not None
    computed = Computed(
        device=choice.device,
        precision=choice.precision,
        backend=choice.runtime,
        threads=request.threads,
        exact=encoder.folder.static or (choice.runtime == "native" and _is_exact(encoder)),
        force_precision=request.computing.force_precision,
        merge_tokens=request.merge_tokens,
    )
    return Resolved(settings.to_json(), lasting_name(encoder.folder.path), computed, encoding or {})


def _is_exact(encoder: Encoder) -> bool:
    """Try whether the bits of a text depend on those beside it, with texts of several lengths together and one by one.

    Not every level and precision of the compiled kernels adds up the rows at the edge of a block as it does those inside.
    """
    texts = [" ".join(_WORDS[: 1 + number % len(_WORDS)]) for number in range(_PROBES)]
    together = encoder.encode(texts)
    return all((encoder.encode([text])[0] == row).all() for text, row in zip(texts, together, strict=True))
