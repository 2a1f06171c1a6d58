"""LanceDB: tables in a folder or in a bucket of an object store, through its Python client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.index import FTS, BTree, HnswSq

from embedkit.errors import StoreError

_KEPT = timedelta(hours=1)  # how long a version stays that readers may still have open
_FAILURES = (ValueError, RuntimeError, OSError, pa.ArrowException)


class LanceFolder:
    """A folder of tables; whatever goes wrong in it is a `StoreError` that names the place.

    In a bucket (s3://…) `options` go to its client, and `explain` may say in other words what an error there means.
    """

    def __init__(
        self,
        folder: str,
        place: str,
        options: Mapping[str, str] | None = None,
        explain: Callable[[str], str | None] = lambda said: None,
    ) -> None:
        self.place, self._folder, self._options, self._explain = place, folder, options, explain

    @cached_property
    def _database(self) -> Any:  # Any: LanceDB is not typed here, where it may be missing
        return lancedb.connect(self._folder, storage_options=self._options)  # which makes the folder

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as exc:
            if (meaning := self._explain(str(exc))) is not None:
                raise StoreError(f"{self.place}: {meaning}") from exc
            lines = [line.strip() for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
            full = isinstance(exc, OSError) or "No space left" in str(exc)
            advice = (
                "Check the disk and the permissions of the folder; the same command goes on" if full else ""
            )
            raise StoreError(f"{self.place}: LanceDB says: {lines[0][:300]}. {advice}".rstrip(" .")) from exc

    def names(self) -> set[str]:
        """Return the names of the tables."""
        if self._options is None:  # not asked for, as LanceDB would make the folder
            return {path.stem for path in Path(self._folder).glob("*.lance") if path.is_dir()}
        found: set[str] = set()
        with self.errors():
            page = self._database.list_tables()
            found.update(page.tables)
            while page.page_token:
                page = self._database.list_tables(page_token=page.page_token)
                found.update(page.tables)
        return found

    def open(self, name: str) -> LanceTable:
        with self.errors():
            return LanceTable(self, self._database.open_table(name))

    def find(self, name: str) -> LanceTable | None:
        """Open a table; None where there is none, or one whose making was stopped: it is listed and has no version yet."""
        if name not in self.names():
            return None
        with self.errors():
            try:
                return LanceTable(self, self._database.open_table(name))
            except (ValueError, FileNotFoundError) as exc:
                if "was not found" not in str(exc):
                    raise
                return None

    def create(self, name: str, dimension: int, *, half: bool) -> LanceTable:
        """Make the table of rows, empty."""
        number = pa.float16() if half else pa.float32()
        texts = [
            pa.field(name_, pa.utf8()) for name_ in ("title", "body", "source", "words", "record", "digest")
        ]
        schema = pa.schema(
            [
                pa.field("doc_id", pa.utf8()),
                pa.field("passage", pa.int32()),
                *texts,
                pa.field("metadata", pa.json_(pa.utf8())),
                pa.field("embedding", pa.list_(number, dimension)),
            ]
        )
        with self.errors():
            return LanceTable(self, self._database.create_table(name, schema=schema, exist_ok=True))

    def drop(self, name: str) -> None:
        with self.errors():
            self._database.drop_table(name)

    def read_text(self, name: str) -> str | None:
        """Return the text that `write_text` wrote; None where there is no such table, or nothing in it."""
        table = self.find(name)
        if table is None:
            return None
        found = table.first_row()
        return str(found[0]["info"]) if found and "info" in found[0] else None

    def write_text(self, name: str, text: str) -> None:
        """Write a table of one text, in one step in place of what it was."""
        with self.errors():
            there = name in self.names()  # to overwrite what is not there would be warned of
            self._database.create_table(
                name, pa.table({"info": [text]}), mode="overwrite" if there else "create"
            )


class LanceTable:
    def __init__(
        self, database: LanceFolder, table: Any
    ) -> None:  # Any: LanceDB is not typed here, where it may be missing
        self._database, self._table = database, table

    @property
    def columns(self) -> list[str]:
        return list(self._table.schema.names)

    def first_row(self) -> list[dict[str, Any]]:  # Any: what the columns hold
        """Return any row, or none where the table is empty."""
        with self._database.errors():
            return list(self._table.search().limit(1).to_arrow().to_pylist())

    @property
    def is_half(self) -> bool:
        return bool(self._table.schema.field("embedding").type.value_type == pa.float16())

    def count(self, where: str | None = None) -> int:
        with self._database.errors():
            return int(self._table.count_rows(where))

    def append(self, columns: Mapping[str, Sequence[object]], vectors: npt.NDArray[np.float32]) -> None:
        """Put rows in, in one version, without a look at those that are there: `upsert` reads the keys of all."""
        with self._database.errors():
            self._table.add(self._rows(columns, vectors))

    def upsert(self, columns: Mapping[str, Sequence[object]], vectors: npt.NDArray[np.float32]) -> None:
        """Put rows in, each in place of what has its id and passage, in one version."""
        with self._database.errors():
            merge = self._table.merge_insert(["doc_id", "passage"])
            merge.when_matched_update_all().when_not_matched_insert_all().execute(
                self._rows(columns, vectors)
            )

    def _rows(
        self, columns: Mapping[str, Sequence[object]], vectors: npt.NDArray[np.float32]
    ) -> Any:  # Any: a table of pyarrow's
        arrays = {}
        for field in self._table.schema:
            if field.name == "embedding":
                numbers = pa.array(vectors.ravel().astype(np.float16 if self.is_half else np.float32))
                arrays[field.name] = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
            elif field.name == "metadata":
                texts = pa.array(columns["metadata"], pa.utf8())
                arrays[field.name] = pa.ExtensionArray.from_storage(pa.json_(pa.utf8()), texts)
            else:
                arrays[field.name] = pa.array(columns[field.name], field.type)
        return pa.table(arrays)

    def delete(self, where: str) -> None:
        with self._database.errors():
            self._table.delete(where)

    def select(
        self, columns: Sequence[str], batch: int, where: str | None = None
    ) -> Iterator[dict[str, list[Any]]]:  # Any: what the columns hold
        """Yield some columns of all rows, or of those that a condition lets pass, in batches, of one version; vectors as (N, E) float32."""
        with self._database.errors():
            query = self._table.search().select(list(columns)).limit(max(1, self._table.count_rows(where)))
            for part in (query if where is None else query.where(where)).to_batches(batch):
                if part.num_rows:
                    yield {name: _values(part.column(name)) for name in part.schema.names}

    def nearest(
        self, vector: npt.NDArray[np.float32], *, metric: str, k: int, where: str | None, ef: int | None
    ) -> list[tuple[str, int, float]]:
        """Return (doc_id, passage, distance) of the k nearest rows, the distances by the stored vectors; without `ef` of all rows."""
        with self._database.errors():
            query = self._table.search(vector, vector_column_name="embedding", query_type="vector")
            query = query.distance_type(metric).limit(k)
            query = query.bypass_vector_index() if ef is None else query.ef(max(ef, 3 * k)).refine_factor(3)
            query = query if where is None else query.where(where, prefilter=True)
            found = query.select(["doc_id", "passage", "_distance"]).to_arrow().to_pylist()
        return [(row["doc_id"], row["passage"], row["_distance"]) for row in found]

    def by_words(self, words: str, *, k: int, where: str | None) -> list[tuple[str, int, float]]:
        """Return (doc_id, passage, BM25) of the best k rows that have one of the words."""
        with self._database.errors():
            query = self._table.search(words, query_type="fts", fts_columns="words").limit(k)
            query = query if where is None else query.where(where, prefilter=True)
            found = query.select(["doc_id", "passage", "_score"]).to_arrow().to_pylist()
        return [(row["doc_id"], row["passage"], row["_score"]) for row in found]

    def indexes(self) -> set[str]:
        """Return the columns that have an index."""
        with self._database.errors():
            return {column for index in self._table.list_indices() for column in index.columns}

    def index_ids(self) -> None:
        with self._database.errors():
            self._table.create_index("doc_id", config=BTree())

    def index_words(self) -> None:
        with self._database.errors():
            self._table.create_index("words", config=FTS(with_position=False))

    def index_vectors(self, *, metric: str, m: int, ef_construction: int) -> None:
        """Make the graph, over numbers of 8 bits; what it finds is compared by the vectors themselves."""
        with self._database.errors():
            config = HnswSq(distance_type=metric, m=m, ef_construction=ef_construction)
            self._table.create_index("embedding", config=config)

    def drop_index(self, column: str) -> None:
        with self._database.errors():
            for index in self._table.list_indices():
                if column in index.columns:
                    self._table.drop_index(index.name)

    def optimize(self) -> None:
        """Merge small files, take new rows into the indexes, and remove old versions."""
        with self._database.errors():
            self._table.optimize(cleanup_older_than=_KEPT)


def _values(column: Any) -> Any:  # Any: pyarrow is not typed here
    if pa.types.is_fixed_size_list(column.type):
        numbers = column.flatten().to_numpy(zero_copy_only=False)
        return numbers.reshape(len(column), column.type.list_size).astype(np.float32)
    return column.to_pylist()
