"""What is searched: an index that is here, a store, or those of a server; the commands tell them apart no further."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..shared import console, models

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.pipelines.judging import JudgedHit, OpenSearch
    from embedkit.retrieval.options import SearchOptions
    from embedkit.serving.client.searching import ServedIndexes


class Searched(Protocol):
    """What finds and judges hits."""

    @property
    def reranks(self) -> bool: ...

    def search(self, queries: Sequence[str], options: SearchOptions) -> list[list[Hit]]: ...

    def search_ids(self, queries: Sequence[str], options: SearchOptions) -> list[list[tuple[str, float]]]: ...

    def judge(self, query: str, hits: Sequence[Hit], wanted: SearchOptions) -> Sequence[JudgedHit]: ...

    def count(self) -> int:
        """Count the passages that are searched."""
        ...

    def coverage(self) -> str | None:
        """Return how many shards gave the last answer, as "63/64", and say which are missing; None where there are none."""
        ...

    def say_what_was_cut(self) -> None:
        """Say what of the queries the model did not read."""
        ...


class LocalSource:
    """An open index, or a store."""

    def __init__(self, opened: OpenSearch, wanted: SearchOptions) -> None:
        """Say which models search it."""
        self._opened, self._mode = opened, wanted.mode
        self._told = ""
        encoder = None if opened.embedder is None else opened.embedder.encoder
        models.say_names(
            None if encoder is None or wanted.mode == "text" else encoder.folder.name,
            None if opened.reranker is None else opened.reranker.name,
        )
        models.say_choice(None if encoder is None else encoder.choice)

    @property
    def reranks(self) -> bool:
        return self._opened.reranker is not None

    def search(self, queries: Sequence[str], options: SearchOptions) -> list[list[Hit]]:
        return self._opened.retriever.search(queries, options)

    def search_ids(self, queries: Sequence[str], options: SearchOptions) -> list[list[tuple[str, float]]]:
        return self._opened.retriever.search_ids(queries, options)

    def judge(self, query: str, hits: Sequence[Hit], wanted: SearchOptions) -> Sequence[JudgedHit]:
        from embedkit.pipelines.judging import judge

        return judge(self._opened, query, hits, wanted)

    def count(self) -> int:
        return len(self._opened.index)

    def coverage(self) -> str | None:
        coverage = self._opened.index.take_coverage()
        if coverage is None:
            return None
        if not coverage.complete and (told := coverage.explained()) != self._told:
            self._told = told
            console.warn(told)
        return str(coverage)

    def say_what_was_cut(self) -> None:
        embedder = self._opened.embedder
        if embedder is not None and embedder.truncated:
            limit = embedder.tokenizer.max_length
            console.warn(
                f"{console.counted(embedder.truncated, 'query')} cut to the {limit} tokens that the model reads"
            )
        if embedder is not None and embedder.unknown:
            how = "only their words were searched" if self._mode == "hybrid" else "nothing was found for them"
            console.warn(
                f"{console.counted(embedder.unknown, 'query')} made of nothing that this model knows, as of another "
                f"script: {how}. Build the index with a model of that language"
            )


class ServerSource:
    """The indexes of a server."""

    def __init__(self, served: ServedIndexes) -> None:
        self._served = served
        self._named = False

    @property
    def reranks(self) -> bool:
        return self._served.rerank is not False

    def search(self, queries: Sequence[str], options: SearchOptions) -> list[list[Hit]]:
        found = self._served.search(queries, options)
        said = self._served.said
        if not self._named:  # which they are the first answer tells
            self._named = True
            models.say_names(", ".join(dict.fromkeys(said.models.values())) or None, said.reranker)
        return found

    def search_ids(self, queries: Sequence[str], options: SearchOptions) -> list[list[tuple[str, float]]]:
        return [[(hit.doc_id, hit.score) for hit in hits] for hits in self.search(queries, options)]

    def judge(self, query: str, hits: Sequence[Hit], wanted: SearchOptions) -> Sequence[JudgedHit]:
        """Return the judgement of the server."""
        from embedkit.pipelines.judging import JudgedHit
        from embedkit.serving.client.searching import ServedHit

        return [JudgedHit(hit, hit.strength, hit.weak) for hit in hits if isinstance(hit, ServedHit)]

    def count(self) -> int:
        return self._served.count()

    def coverage(self) -> None:
        """A note of the server says what is missing."""

    def say_what_was_cut(self) -> None:
        for note, times in self._served.said.notes.items():
            console.warn(note if times == 1 else f"{note} ({times:,} times)")
