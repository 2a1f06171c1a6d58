"""What `embedkit index build` and `add` take: their options, and where the vectors come from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..shared import models as which_model
from ..shared import options
from ..shared.options import BackendName, DeviceName, PrecisionName

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from indexes import Index


class Kind(StrEnum):
    flat = "flat"
    hnsw = "hnsw"
    ivf_flat = "ivf-flat"
    ivf_pq = "ivf-pq"


class StorageName(StrEnum):
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    binary = "binary"


class MetricName(StrEnum):
    cosine = "cosine"
    dot = "dot"
    l2 = "l2"


class TextUnit(StrEnum):
    line = "line"
    file = "file"


SomeInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files, folders, globs, or - for standard input; .txt files are documents as a whole.",
        show_default=False,
    ),
]
Vectors = Annotated[
    Path | None,
    typer.Option(
        "--vectors",
        metavar="FILE",
        help="Ready vectors (.npy) in place of INPUT and --model.",
        show_default=False,
    ),
]
Ids = Annotated[
    Path | None,
    typer.Option("--ids", metavar="FILE", help="The ids of --vectors, one a line.", show_default=False),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option(
        "--chunk-tokens",
        metavar="N",
        min=0,
        help="Cut longer documents into passages of at most N tokens; 0: never. Default: 256, or what the model reads.",
        show_default=False,
    ),
]
ChunkOverlap = Annotated[
    int,
    typer.Option(
        "--chunk-overlap", metavar="N", min=0, help="Tokens that a passage shares with the one before."
    ),
]
Unit = Annotated[TextUnit, typer.Option("--text-unit", help="What one document is in a .txt file.")]
Sync = Annotated[
    bool, typer.Option("--sync", help="Delete documents of these inputs that are no longer in them.")
]
CommitEvery = Annotated[
    int, typer.Option("--commit-every", metavar="N", min=1, help="Passages in one commit.")
]
KindOption = Annotated[
    Kind | None,
    typer.Option(
        "--kind", help="How to search: all vectors (flat), or an approximate structure.", show_default=False
    ),
]
TargetRecall = Annotated[
    float | None,
    typer.Option(
        "--target-recall",
        metavar="R",
        min=0.01,
        max=1.0,
        help="Measure recall@10 and choose the structure's settings to reach R.",
        show_default=False,
    ),
]


class Source:
    """Where the vectors come from: documents and an encoder, or ready vectors."""

    def __init__(
        self,
        inputs: list[str] | None,
        model: str | None,
        vectors: Path | None,
        ids: Path | None,
        device: DeviceName,
        precision: PrecisionName,
        text_unit: TextUnit,
        format: options.InputFormat | None,
        text_field: str | None,
        id_field: str | None,
        title_field: str | None,
        merge_tokens: float | None = None,
        backend: BackendName = BackendName.auto,
    ) -> None:
        from embedkit.data.reading import DocumentReader
        from embedkit.data.records import ReadOptions

        if (vectors is None) != (ids is None):
            raise typer.BadParameter("--vectors and --ids go together")
        if vectors is None and not inputs:
            raise typer.BadParameter("name an INPUT, or --vectors and --ids")
        if vectors is not None and inputs:
            raise typer.BadParameter("INPUT and --vectors exclude each other")
        self.inputs = inputs or []
        self.model, self.vectors, self.ids = model, vectors, ids
        self.device, self.precision = device, precision
        self.merge_tokens = merge_tokens
        self.backend = backend
        read = ReadOptions(
            format=format.value if format else None,
            text_field=text_field,
            id_field=id_field,
            title_field=title_field,
            text_unit=text_unit.value,
        )
        self.reader = DocumentReader(self.inputs, read) if inputs else None
        self._encoder: Encoder | None = None

    def load_encoder(self, index: Index | None) -> Encoder:
        """Load the model that was named, else the one that the index was built with; for a new index the default.

        An index keeps the share of tokens that its encoder merges, unless another is asked for, which it refuses.
        """
        from embedkit.encoding.encoder import Encoder
        from embedkit.inference.token_merging import merging_of

        if self._encoder is None:
            if index is None:
                model, share = which_model.or_default(self.model), 0.0
            else:
                model = which_model.of_index(index, self.model)
                share = merging_of(index.settings.fingerprint)
            self._encoder = Encoder.load(
                model,
                device=self.device.value,
                precision=self.precision.value,
                backend=self.backend.value,
                merge_tokens=share if self.merge_tokens is None else self.merge_tokens,
            )
        return self._encoder

    def read_vectors(self) -> Any:  # Any: a memory-mapped (N, E) float array
        from embedkit.data.vectors import open_vectors

        assert self.vectors is not None
        return open_vectors(self.vectors)


def cutting_of(encoder: Encoder, chunk_tokens: int | None, chunk_overlap: int) -> dict[str, int]:
    """Say how texts are cut; {} where they are not."""
    room = encoder.tokenizer.max_length - encoder.tokenizer.single.num_special
    if chunk_tokens == 0:
        return {}
    if chunk_tokens is not None and chunk_tokens > room:
        raise typer.BadParameter(
            f"--chunk-tokens is {chunk_tokens}; the model reads {room} and its special tokens"
        )
    size = min(256, room) if chunk_tokens is None else chunk_tokens
    return {"chunk_tokens": size, "chunk_overlap": min(chunk_overlap, size // 2)}
