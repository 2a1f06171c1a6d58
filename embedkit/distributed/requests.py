"""What the command asks for, and what a machine that computes says of it (`embedkit.distributed.resolving`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from embedkit.data.records import ReadOptions
from embedkit.data.walking import WalkOptions
from embedkit.distributed.plan import Computed
from embedkit.encoding.job import EncodeOptions
from embedkit.pipelines.mining import By
from embedkit.pipelines.models import or_default
from embedkit.pipelines.options import BuildOptions
from embedkit.training.mining.recipe import MiningRecipe
from embedkit.training.rows.columns import Role
from embedkit.types import Computing
from indexes import Kind


@dataclass(frozen=True, kw_only=True)
class VectorsWanted:
    """What `embedkit encode` asks for: the options of `EncodeOptions`, how the model is loaded, and the ending of the files."""

    options: EncodeOptions
    ending: str
    prompt_name: str | None = None
    loading: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MiningWanted:
    """What `embedkit mine` asks for: which hits of which index become negatives, found by what, and which scores are compared.

    The index was there, or (`own`) is made of the documents of a `corpus`, or of the positives of all rows. `columns` says how rows are read.
    """

    recipe: MiningRecipe
    by: By
    index: str
    own: bool
    corpus: Sequence[str] = ()
    rerank: str | None = None
    columns: Mapping[Role, str] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:  # Any: JSON
        """Return what is told of it beside the rows."""
        found: dict[str, Any] = {"by": self.by, "corpus": list(self.corpus)}
        return found if self.own else found | {"index": self.index}


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """What the command asks for. `threads` are those of each worker; `vectors` asks for vectors in files in place of indexes, and `mining`
    for rows with hard negatives.
    """

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
    mining: MiningWanted | None = None
    kind: Kind = "flat"

    def asked(self) -> dict[str, Any]:  # Any: JSON
        """Return what must be the same for the same plan; who computes, and how many, may change."""
        building = asdict(self.building)
        del building["sync"]
        wanted: dict[str, Any] = {} if self.vectors is None else {"vectors": asdict(self.vectors)}
        wanted |= {} if self.mining is None else {"mining": asdict(self.mining)}
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
    """What a machine that computes says of the model: the settings of the index, as JSON, what computes it, and the plan's `encoding` and
    `mining`.
    """

    settings: str
    model_path: str
    computed: Computed
    encoding: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    mining: Mapping[str, Any] = field(default_factory=dict)


Resolve = Callable[[ShardRequest], Resolved]
