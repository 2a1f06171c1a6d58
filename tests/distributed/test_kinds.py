"""Indexes in shards of multi-vector and learned sparse models: what shards hold, find and merge to is that of one index."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.distributed.layout import shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.errors import IndexMismatchError
from embedkit.extras import has_extra
from embedkit.inference.choice import choose_runtime
from embedkit.pipelines.embedders import load_embedder
from embedkit.pipelines.judging import judge
from embedkit.pipelines.options import BuildOptions
from embedkit.pipelines.searching import open_search
from embedkit.retrieval.options import SearchOptions
from embedkit.types import Computing
from indexes import (
    Index,
    ShardedIndex,
    compact,
    content_hash,
    join_shards,
    merge_indexes,
    merge_shards,
    verify,
)
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.distributed import hashes, write_texts
from tests.distributed import request as asked_for
from tests.distributed.test_identity import in_one_piece, run
from tests.tiny import tiny_config
from tests.tiny_multi_vector import write_tiny_multi_vector

ONE_STEP = 0.004  # of 8 bits, in which bits that differ may end up
KINDS = ("tokens", "terms")
FP32 = Computing(device="cpu", precision="fp32")
QUERIES = ["the girl plays guitar", "a dog at the beach", "song", "zzz 水"]
NATIVE = choose_runtime(tiny_config(num_attention_heads=2), "fp32", "cpu").runtime == "native"


@dataclass(frozen=True)
class Built:
    """Indexes of the same texts, which tests read."""

    kind: str
    folder: Path
    model: Path
    plan: ShardPlan


def options(**changes: Any) -> BuildOptions:
    """Texts that are cut into passages; the first commit of a shard is that of one piece."""
    return BuildOptions(**{"commit_every": 50, "chunk_tokens": 16, "chunk_overlap": 4} | changes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    heads = 2  # of 16, which the native kernels compute
    return {
        "tokens": write_tiny_multi_vector(folder / "colbert"),
        "terms": write_tiny_sparse(folder / "splade", heads=heads),
        "table": write_tiny_sparse(folder / "table", heads=heads, weigh_queries=True),
    }


def searched(folder: Path, model: Path, *, k: int = 10) -> list[list[tuple[str, int, float]]]:
    """Return what is found by meaning, exactly."""
    embed = load_embedder(model, FP32, "query")
    with ShardedIndex.open(folder) if (folder / "shards.json").exists() else Index.open(folder) as index:
        found = index.search(embed(QUERIES), k=k)
        return [[(hit.doc_id, hit.passage, hit.score) for hit in hits] for hits in found]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of JSON lines."""
    folder = tmp_path_factory.mktemp("parts")
    return [write_texts(folder / "a.jsonl", 110), write_texts(folder / "b.jsonl", 40, start=110, seed=1)]


@pytest.fixture(scope="module", params=KINDS)
def built(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[Path],
    models: dict[str, Path],
    request: pytest.FixtureRequest,
) -> Built:
    """Build an index in one piece, one in shards by this process, and by two workers; and one of each file."""
    folder, model = tmp_path_factory.mktemp(request.param), models[request.param]
    asked = asked_for(parts, model, building=options(), shards=3)
    in_one_piece(folder / "whole", asked)
    for name, workers in (("one", 0), ("two", 2)):
        summary = run(folder / name, asked, workers=workers)
        assert summary.complete, summary.failed
    for number, part in enumerate(parts):
        in_one_piece(folder / f"{number}.index", asked_for([part], model, building=options()))
    return Built(request.param, folder, model, ShardPlan.read(folder / "one"))


def test_the_plan_says_whether_bits_depend_on_other_texts(built: Built) -> None:
    assert built.plan.computed.exact == NATIVE
    assert built.plan.index_settings.kind == ("multi-vector" if built.kind == "tokens" else "sparse")
    assert hashes(built.folder / "one") == hashes(built.folder / "two")


def test_shards_find_and_merge_to_what_an_index_in_one_piece_does(built: Built, tmp_path: Path) -> None:
    folder, model = built.folder, built.model
    with Index.create(tmp_path / "merged", built.plan.index_settings) as merged:
        *_, last = merge_shards(merged, folder / "two")
        assert (last.added, last.finished) == (150, True)
    assert not list(verify(tmp_path / "merged"))
    found, whole = searched(folder / "two", model), searched(folder / "whole", model)
    assert searched(tmp_path / "merged", model) == found
    with Index.open(tmp_path / "merged", writable=True) as merged, Index.open(folder / "whole") as one:
        before = content_hash(merged)
        assert len(merged) == len(one)
        list(compact(merged))
        assert content_hash(merged) == before
        if built.plan.computed.exact:
            assert before == content_hash(one)
    if built.plan.computed.exact:
        assert found == whole
    for some, others in zip(found, whole, strict=True):
        np.testing.assert_allclose([hit[2] for hit in some], [hit[2] for hit in others], rtol=ONE_STEP)


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_a_search_over_shards_is_that_of_one_index(built: Built, tmp_path: Path, mode: str) -> None:
    with Index.create(tmp_path / "merged", built.plan.index_settings) as merged:
        merged.note_model_path(str(built.model))
        list(merge_shards(merged, built.folder / "two"))
    wanted = SearchOptions(mode=mode, k=7, where="year > 2005")  # type: ignore[arg-type] # a parameter
    answers = []
    for path in (tmp_path / "merged", built.folder / "two"):
        with open_search(path, wanted, FP32) as opened:
            assert opened.index.score_limit is None
            hits = opened.retriever.search(QUERIES, wanted)
            judged = [judge(opened, *each, wanted) for each in zip(QUERIES, hits, strict=True)]
            answers.append(
                [
                    [(one.hit.doc_id, one.hit.text, one.hit.scores, one.weak) for one in some]
                    for some in judged
                ]
            )
    assert sum(map(len, answers[0])) > 10
    assert answers[0] == answers[1]


def test_a_shard_that_is_gone_is_built_again_as_it_was(
    built: Built, parts: list[Path], tmp_path: Path
) -> None:
    """Token vectors take the codebook of the first shard."""
    shutil.copytree(built.folder / "one", tmp_path / "cut")
    shutil.rmtree(shard_path(tmp_path / "cut", 2))
    again = run(tmp_path / "cut", asked_for(parts, built.model, building=options(), shards=3))
    assert again.complete
    assert hashes(tmp_path / "cut") == hashes(built.folder / "one")


def test_indexes_of_one_kind_are_joined_and_of_several_refused(
    built: Built, tmp_path: Path, parts: list[Path], models: dict[str, Path]
) -> None:
    """Shards that were not built together have codebooks of their own; a score depends on the shard's alone."""
    indexes = [built.folder / f"{number}.index" for number in range(2)]
    join_shards(tmp_path / "joined", [str(index) for index in indexes])
    found = searched(tmp_path / "joined", built.model)
    of_parts = [searched(index, built.model) for index in indexes]
    for query, hits in enumerate(found):
        both = [*of_parts[0][query], *of_parts[1][query]]
        assert hits == sorted(both, key=lambda hit: (-hit[2], hit[0], hit[1]))[:10]
    other = models[next(name for name in KINDS if name != built.kind)]
    in_one_piece(tmp_path / "other.index", asked_for([parts[1]], other, building=options()))
    with pytest.raises(IndexMismatchError, match=r"kind is|was built by another encoder"):
        join_shards(tmp_path / "mixed", [str(indexes[0]), str(tmp_path / "other.index")])


def test_a_merge_takes_what_is_stored_and_refuses_another_codebook(built: Built, tmp_path: Path) -> None:
    for number in range(2):
        shutil.copytree(built.folder / f"{number}.index", tmp_path / f"{number}.index")
    join_shards(tmp_path / "joined", [str(tmp_path / f"{number}.index") for number in range(2)])
    wanted = searched(tmp_path / "joined", built.model)
    with (
        Index.open(tmp_path / "0.index", writable=True) as target,
        Index.open(tmp_path / "1.index") as source,
    ):
        if built.kind == "tokens":
            with pytest.raises(IndexMismatchError, match="tell token vectors by centroids of their own"):
                merge_indexes(target, source)
            return
        *_, last = merge_indexes(target, source)
        assert last.added == 40
        *_, again = merge_indexes(target, source)
        assert (again.added, again.unchanged) == (0, 40)
    assert searched(tmp_path / "0.index", built.model) == wanted


@pytest.mark.ray
def test_ray_workers_give_the_bits_of_local_ones(built: Built, parts: list[Path], tmp_path: Path) -> None:
    if not has_extra("ray"):
        pytest.skip("the package ray is not installed: pip install 'embedkit[ray]'")
    asked = asked_for(parts, built.model, building=options(), shards=3)
    two = run(tmp_path / "two", asked, workers=2, ray=True)
    assert two.complete, two.failed
    assert hashes(built.folder / "one") == hashes(tmp_path / "two")


def test_a_merge_of_two_kinds_is_refused(
    tmp_path: Path, parts: list[Path], models: dict[str, Path], static_model: Path
) -> None:
    in_one_piece(tmp_path / "terms.index", asked_for([parts[1]], models["terms"]))
    in_one_piece(tmp_path / "dense.index", asked_for([parts[1]], static_model))
    with (
        Index.open(tmp_path / "terms.index", writable=True) as target,
        Index.open(tmp_path / "dense.index") as source,
        pytest.raises(IndexMismatchError, match='kind is "sparse" there and "dense" here'),
    ):
        merge_indexes(target, source)


def test_what_does_not_go_with_a_kind_is_refused(
    tmp_path: Path, parts: list[Path], models: dict[str, Path]
) -> None:
    with pytest.raises(IndexMismatchError, match="hnsw takes one vector a passage"):
        run(tmp_path / "ann", asked_for(parts, models["terms"], kind="hnsw"))
    with pytest.raises(ValueError, match="a sparse index keeps weights in 8 bits"):
        run(tmp_path / "wide", asked_for(parts, models["terms"], building=options(storage="float32")))
    with pytest.raises(ValueError, match="token vectors are kept as 2-bit or 4-bit"):
        run(tmp_path / "wide", asked_for(parts, models["tokens"], building=options(storage="float32")))
    asked = asked_for(parts, models["terms"], building=options())
    assert run(tmp_path / "cut", asked).complete
    with pytest.raises(IndexMismatchError, match="was planned with other options"):
        run(tmp_path / "cut", asked_for(parts, models["table"], building=options()))
