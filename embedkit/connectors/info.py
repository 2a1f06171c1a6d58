"""What a push writes beside the data: what the vectors are, which model made them, which fields there are, and whether it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from embedkit.connectors.store import Hnsw, Store, StoredAs, TableLayout
from embedkit.errors import IndexMismatchError, StoreError
from indexes import Settings
from indexes.storage.settings import check_same

if TYPE_CHECKING:
    from indexes import Index

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """`fields` names the metadata's fields with the kinds of JSON values that each has; `finished` says whether the last push ended."""

    settings: Settings
    model_path: str | None = None
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hnsw: Hnsw = field(default_factory=Hnsw)
    finished: bool = False
    rows: int = 0
    documents: int = 0

    @classmethod
    def of(cls, index: Index, storage: StoredAs, hnsw: Hnsw) -> StoreInfo:
        """Say what an index holds, as a store keeps it.

        Raises:
            IndexMismatchError: the index has vectors that no store compares as we do.
        """
        if index.settings.fields:
            raise IndexMismatchError(
                f"{index.path}: its documents have fields, which are compared one by one; a store compares whole vectors. "
                "Build an index without fields to push it"
            )
        return cls(
            settings=replace(index.settings, storage=storage),
            model_path=index.model_path,
            fields=index.field_kinds(),
            hnsw=hnsw,
        )

    @property
    def layout(self) -> TableLayout:
        storage: StoredAs = "float16" if self.settings.storage == "float16" else "float32"
        return TableLayout(dimension=self.settings.dimension, metric=self.settings.metric, storage=storage)

    def to_json(self) -> str:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {"settings": json.loads(self.settings.to_json()), "hnsw": asdict(self.hnsw)}
        return json.dumps({"format": FORMAT, **values}, sort_keys=True, default=dict)

    @classmethod
    def from_json(cls, text: str, place: str) -> StoreInfo:
        """Read what `to_json` wrote.

        Raises:
            StoreError: it is of a newer version, or not what was written.
        """
        try:
            values = json.loads(text)
            version = values.pop("format")
            if version == FORMAT:
                settings = Settings.from_json(json.dumps(values.pop("settings")))
                return cls(settings=settings, hnsw=Hnsw(**values.pop("hnsw")), **values)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise StoreError(
                f"{place}: what embedkit wrote beside the data cannot be read ({exc}). Push the index again under another name"
            ) from exc
        raise StoreError(
            f"{place}: it was pushed in format {version}; this embedkit reads format {FORMAT}. Update embedkit"
        )

    def check_fits(self, other: StoreInfo, place: str) -> None:
        """Refuse to push what is of another kind than what is there; `self` is what is there.

        Raises:
            IndexMismatchError: the model, dimension, metric or way of cutting differs; the message names each with both values.
        """
        ours, theirs = self.settings, other.settings
        check_same(
            _shape(ours), _shape(theirs), place, "holds another kind of index"
        )  # first: it says most about what is wrong
        ours.check_encoder(theirs.fingerprint, place)


def read_info(store: Store) -> StoreInfo:
    """Return what a store says of what was pushed there.

    Raises:
        StoreError: nothing was pushed there.
    """
    text = store.read_info()
    if text is None:
        raise StoreError(f"{store.place}: nothing was pushed there. Push with: embedkit index push INDEX URL")
    return StoreInfo.from_json(text, store.place)


def _shape(settings: Settings) -> dict[str, object]:
    return {
        "dimension": settings.dimension,
        "metric": settings.metric,
        "storage": settings.storage,
        **settings.cutting,
    }
