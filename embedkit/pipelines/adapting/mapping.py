"""The last stage but one: a linear map behind the pooling, found from the passages' vectors, then learned from hybrid search."""

from __future__ import annotations

import random
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.data.records import Document, Hit, titled_text
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.pipelines.adapting.folder import AdaptFolder, write_counts
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Progress, Stage
from embedkit.pipelines.adapting.report import KnownVectors, encode_as
from embedkit.pipelines.mining import WORDS_ALONE
from embedkit.pipelines.models import load_encoder
from embedkit.training.hybrid_ranking import AskedPassages, learn_hybrid_ranking, most_steps
from embedkit.training.whitening import (
    ONE_SUBJECT,
    LinearMap,
    add_linear,
    before_normalization,
    fit_whitening,
    mean_cosine,
)
from embedkit.types import Computing, Float32
from indexes import Index, build

WINDOW = 256  # passages between two reports
# Passages that are ranked, and queries that rank them, at most: so learning takes seconds, however many there are.
MOST_RANKED = 5000
HITS = 100  # by words for a query: those behind hardly count


@dataclass(frozen=True)
class MappedPassages:
    """Vectors of N texts as documents, (N, E), not normalized; `rows` says which is a text's, and `linear` what was put behind them."""

    rows: Mapping[str, int]
    vectors: Float32
    linear: LinearMap

    def before(self) -> KnownVectors:
        return KnownVectors(self.rows, self.vectors)

    def after(self) -> KnownVectors:
        mapped = self.linear(self.vectors)
        mapped[~self.vectors.any(axis=1)] = 0  # a text without tokens is encoded again
        return KnownVectors(self.rows, mapped)


def check_mapped(model: ModelFolder) -> None:
    """Refuse a model whose vectors are not compared by cosine.

    Raises:
        TrainingError: it is so.
    """
    modules = model.modules
    learned = modules.sentence.similarity
    if learned is None and (modules.similarity == "cosine" or modules.sentence.normalize):
        return
    how = modules.similarity if learned is None else f"a learned {learned.kind} similarity"
    raise TrainingError(
        f"{model.path}: its vectors are compared by {how}; whitening and learning from hybrid search are for those compared by cosine. "
        "Leave both out: --whitening 0 --ranking-steps 0"
    )


def map_vectors(
    encoder: SentenceEncoder | StaticEncoder,
    folder: AdaptFolder,
    recipe: AdaptRecipe,
    model: ModelFolder,
    passages: Sequence[Document],
    pairs: Sequence[QueryPassage],
    computing: Computing,
) -> Generator[Progress, None, MappedPassages]:
    """Put a map behind a model: whitening by the vectors of the passages, as the documents that they are searched as, and what is learned.

    Returns the passages' vectors, so that they need not be encoded again.
    """
    shutil.rmtree(folder.averaged, ignore_errors=True)  # of a call that was stopped here
    modules = replace(model.modules, truncate_dim=None)  # the map is for all dimensions
    write_model(folder.averaged, before_normalization(encoder), model.tokenizer, modules, family=model.family)
    embedder = load_encoder(folder.averaged, computing)
    texts = [titled_text(each.title, each.text) for each in passages]
    found = []
    stage: Stage = "whiten" if recipe.whitening else "rank"
    for start in range(0, len(texts), WINDOW):
        yield Progress(stage, start / len(texts), f"{start:,} of {len(texts):,} passages encoded")
        found.append(encode_as(embedder, texts[start : start + WINDOW], "document"))
    vectors = np.concatenate(found)
    cosine = mean_cosine(vectors)
    write_counts(folder.mapped, {"mean_cosine": cosine})
    linear, share = LinearMap(np.eye(vectors.shape[1])), min(1.0, cosine / ONE_SUBJECT)
    if recipe.whitening:
        linear = fit_whitening(vectors, recipe.whitening * share, centring=share)
    if recipe.ranking_steps:
        yield Progress("rank", 0.0, "searching by words")
        asking = random.Random(recipe.seed).sample(pairs, min(MOST_RANKED, len(pairs)))
        queries = encode_as(embedder, [each.query for each in asking], "query")
        asked = _ask(folder, recipe, passages, vectors, asking, queries)
        linear = yield from _learn(linear, asked, recipe, pace=share)
    add_linear(encoder, linear)
    shutil.rmtree(folder.averaged)
    return MappedPassages({text: row for row, text in enumerate(texts)}, vectors, linear)


def _learn(
    linear: LinearMap, asked: AskedPassages, recipe: AdaptRecipe, *, pace: float
) -> Generator[Progress, None, LinearMap]:
    steps = most_steps(recipe.ranking_steps, len(asked.queries))
    found = learn_hybrid_ranking(linear, asked, steps=steps, seed=recipe.seed, pace=pace)
    for step, learned in enumerate(found, 1):
        yield Progress("rank", step / steps, f"{step:,} of {steps:,} steps")
        linear = learned
    return linear


def _ask(
    folder: AdaptFolder,
    recipe: AdaptRecipe,
    passages: Sequence[Document],
    vectors: Float32,
    asking: Sequence[QueryPassage],
    queries: Float32,
) -> AskedPassages:
    """Draw the passages that are ranked, and search them by words."""
    drawn = sorted(random.Random(recipe.seed).sample(range(len(passages)), min(MOST_RANKED, len(passages))))
    numbers = {passages[place].doc_id: number for number, place in enumerate(drawn)}
    documents: dict[str, int] = {}

    def number_of(document: object) -> int:
        return documents.setdefault(str(document), len(documents))

    hits = np.full((len(asking), HITS), -1, np.int64)
    scores = np.zeros((len(asking), HITS), np.float32)
    for row, found in enumerate(search_by_words(folder, [passages[place] for place in drawn], asking)):
        hits[row, : len(found)] = [numbers[hit.doc_id] for hit in found]
        scores[row, : len(found)] = [hit.score for hit in found]
    return AskedPassages(
        queries=queries,
        passages=vectors[drawn],
        query_documents=np.array([number_of(each.document) for each in asking], np.int64),
        passage_documents=np.array(
            [number_of(passages[place].metadata["document"]) for place in drawn], np.int64
        ),
        hits=hits,
        scores=scores,
    )


def search_by_words(
    folder: AdaptFolder, passages: Sequence[Document], asking: Sequence[QueryPassage]
) -> list[list[Hit]]:
    """Search passages for the words of queries, in an index that lasts as long as that takes."""
    shutil.rmtree(folder.words, ignore_errors=True)
    with Index.create(folder.words, WORDS_ALONE) as index:
        for _ in build(index, passages, embed=lambda texts: np.ones((len(texts), 1), np.float32)):
            pass
        found = index.search_text([each.query for each in asking], k=HITS, bare=True)
    shutil.rmtree(folder.words)
    return found
