"""The first stage: documents become passages, passages become queries, and some are held out.

1. cut documents to what the model reads, and count those whose words it does not know
2. derive queries (`embedkit.pipelines.adapting.derived_queries`); where there is a generator, add what it wrote
3. leave out what names several passages
4. hold out passages: one query each, and what of the passage it was not taken from stands for it in what is searched
5. of the rest draw at most as many as are wanted
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedkit.data.records import Document, titled_text
from embedkit.errors import RecordError, TrainingError
from embedkit.pipelines.adapting.derived_queries import KINDS, Kind, derive_queries
from embedkit.pipelines.adapting.recipe import AdaptRecipe
from embedkit.tokenization.passages import PassageSplitter
from embedkit.tokenization.tokenizer import Tokenizer

# Fewer leave no more than a handful to measure with, and hard negatives that are hardly hard.
LEAST_PASSAGES = 50
LEAST_HELD_OUT = 20
OVERLAP = 0  # the end of one passage would be a false negative of a query for the next
MANY_UNKNOWN = 0.2  # of a passage's tokens: it is in a language or a script that the vocabulary does not know


@dataclass(frozen=True, slots=True)
class QueryPassage:
    """A query with the passage that answers it; `document` and `passage_id` are where both come from."""

    query: str
    passage: str
    kind: str
    document: str
    passage_id: str


@dataclass(frozen=True, kw_only=True)
class Passages:
    """The documents cut to what a model reads. `repeated` have the text of one before and are left out; `unknown` are foreign to the model."""

    passages: Sequence[Document]
    documents: int
    repeated: int
    unknown: int
    first_unknown: str


def cut(documents: Iterable[Document], tokenizer: Tokenizer) -> Passages:
    """Cut documents into passages; each notes its document's id as metadata.

    Raises:
        RecordError: two documents have one id, or there is none.
    """
    room = tokenizer.max_length - tokenizer.single.num_special
    split = PassageSplitter.of(tokenizer, chunk_tokens=room, chunk_overlap=OVERLAP)
    found: list[Document] = []
    names: set[str] = set()
    texts: set[tuple[str, str]] = set()
    unknown, first = 0, ""
    for document in documents:
        name, content = document.doc_id, (document.title, document.text)
        if name in names:
            raise RecordError(
                f"{document.where}: the id {name!r} is that of a document before. Give each its own"
            )
        names.add(name)
        if content in texts:
            continue
        texts.add(content)
        spans = split(document.title, document.text) or [(0, len(document.text))]  # a title alone is one
        for number, (start, stop) in enumerate(spans):
            place = name if len(spans) == 1 else f"{name}#{number}"
            found.append(
                Document(
                    place, document.text[start:stop], document.title, {"document": name, "number": number}
                )
            )
        if _unknown_share(tokenizer, titled_text(document.title, document.text)) > MANY_UNKNOWN:
            unknown, first = unknown + 1, first or document.where
    if not names:
        raise RecordError("there is no document to adapt to; give at least one")
    return Passages(
        passages=found,
        documents=len(names),
        repeated=len(names) - len(texts),
        unknown=unknown,
        first_unknown=first,
    )


def _unknown_share(tokenizer: Tokenizer, text: str) -> float:
    ids = tokenizer.ids([text])[0]
    number = tokenizer.unknown_id
    return 0.0 if number is None or not ids else ids.count(number) / len(ids)


@dataclass(frozen=True)
class Derived:
    """Derived pairs; `without` passages gave none, `left_out` queries name several passages or came twice."""

    pairs: Sequence[QueryPassage]
    counts: Mapping[str, int]
    without: int
    left_out: int


def derived_pairs(passages: Sequence[Document], seed: int) -> Derived:
    """Derive queries of passages. A title asks for the first passage of its document, and only this one begins with a sentence."""
    parts: tuple[tuple[Sequence[Kind], list[Document]], ...] = (
        (KINDS, [each for each in passages if each.metadata["number"] == 0]),
        (("heading", "crop"), [each for each in passages if each.metadata["number"] != 0]),
    )
    found = [derive_queries(some, kinds=kinds, seed=seed) for kinds, some in parts if some]
    documents = {each.doc_id: str(each.metadata["document"]) for each in passages}
    return Derived(
        pairs=[
            QueryPassage(each.query, each.passage, each.kind, documents[each.doc_id], each.doc_id)
            for part in found
            for each in part.queries
        ],
        counts={kind: sum(part.counts[kind] for part in found) for kind in KINDS},
        without=sum(part.without for part in found),
        left_out=sum(part.ambiguous + part.repeated for part in found),
    )


def generated_pairs(
    rows: Iterable[Mapping[str, Any]], passages: Sequence[Document]
) -> Iterator[QueryPassage]:
    """Read what a generator wrote for passages."""
    documents = {each.doc_id: str(each.metadata["document"]) for each in passages}
    for row in rows:
        if row["query"].strip():
            yield QueryPassage(row["query"], row["positive"], "generated", documents[row["id"]], row["id"])


def clear_pairs(pairs: Iterable[QueryPassage]) -> tuple[list[QueryPassage], int]:
    """Leave out queries that several documents have, and repetitions; return what is left, and how many were left out."""
    owners: dict[str, set[str]] = defaultdict(set)
    first: dict[tuple[str, str], QueryPassage] = {}
    count = 0
    for each in pairs:
        count += 1
        key = " ".join(each.query.casefold().split())
        owners[key].add(each.document)
        first.setdefault((key, each.document), each)
    kept = [each for (key, _), each in first.items() if len(owners[key]) == 1]
    return kept, count - len(kept)


def part_pairs(
    pairs: Sequence[QueryPassage], recipe: AdaptRecipe
) -> tuple[list[QueryPassage], list[QueryPassage]]:
    """Part queries into those to train on and those held out, by passage; of one that is held out a single query is drawn.

    Raises:
        TrainingError: there are queries for too few passages.
    """
    own: dict[str, list[QueryPassage]] = defaultdict(list)
    for each in pairs:
        own[each.passage_id].append(each)
    if len(own) < LEAST_PASSAGES:
        raise TrainingError(
            f"queries were found for {len(own):,} passage{'s' * (len(own) != 1)}, which is too little to adapt to: at least "
            f"{LEAST_PASSAGES} are needed, since some of them are held out to measure whether it helps. Give more documents or longer ones, "
            "or use the model as it is"
        )
    rng = random.Random(recipe.seed)
    names = sorted(own)
    rng.shuffle(names)
    size = min(recipe.max_held_out, max(LEAST_HELD_OUT, round(recipe.held_out * len(names))))
    held_out = [rng.choice(own[name]) for name in names[:size]]
    rest = [each for name in names[size:] for each in own[name]]
    rng.shuffle(rest)
    return rest[: recipe.max_queries], held_out
