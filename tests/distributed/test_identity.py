"""Byte identity: shards hold what one process builds, whoever builds them and however many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.data.reading import DocumentReader
from embedkit.distributed.building import ShardedBuild, Summary
from embedkit.distributed.executor import Executor, WorkerOptions
from embedkit.distributed.layout import shard_path
from embedkit.distributed.local import LocalExecutor
from embedkit.distributed.planning import planned
from embedkit.distributed.requests import ShardRequest
from embedkit.errors import IndexMismatchError
from embedkit.extras import has_extra
from embedkit.inference.choice import choose_runtime
from embedkit.pipelines.building import Documents, building
from embedkit.pipelines.options import BuildOptions
from indexes import Index, ShardedIndex
from tests.distributed import InThisProcess, contents, hashes, joined, request
from tests.tiny import tiny_config


def run(folder: Path, asked: ShardRequest, *, workers: int = 0, ray: bool = False) -> Summary:
    """Build by so many workers; without any, this process itself builds one shard after another."""

    def make(folder: Path, options: WorkerOptions) -> Executor:
        if ray:
            from embedkit.distributed.ray_workers import RayCluster

            return RayCluster("local", workers=workers).executor(folder, options)
        if workers == 0:
            return InThisProcess(folder)
        return LocalExecutor(folder, options, workers=workers)

    with planned(folder, asked) as plan:
        build = ShardedBuild(folder, plan, make, WorkerOptions(threads=1, timeout_seconds=120))
        for _ in build.run():
            pass
        return build.summary()


def in_one_piece(folder: Path, asked: ShardRequest) -> None:
    reader = DocumentReader(asked.inputs, asked.reading, walking=asked.walking)
    source = Documents(reader, asked.computing, model=asked.model)
    with building(folder, source, asked.building) as index:
        for _ in source.fill(index, asked.building):
            pass


def assert_same(folder: Path, shards: int, whole: Path) -> None:
    documents, vectors, words = joined(folder, shards)
    expected, stored, terms = contents(whole)
    assert documents == expected
    np.testing.assert_array_equal(vectors, stored)
    assert words == terms


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_shards_hold_what_an_index_in_one_piece_does(
    tmp_path: Path, corpus: list[Path], static_model: Path, storage: str
) -> None:
    """With a model whose bits depend on no other text; int8 takes the first shard's steps, whose first commit all texts here fit into."""
    options = BuildOptions(storage=storage, commit_every=50, chunk_tokens=64, chunk_overlap=8)  # type: ignore[arg-type] # a parameter
    asked = request(corpus, static_model, building=options)
    in_one_piece(tmp_path / "whole", asked)
    one = run(tmp_path / "one", asked)
    two = run(tmp_path / "two", asked, workers=2)
    assert one.complete
    assert two.complete
    assert one.total("documents") == 300
    assert one.total("truncated") == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert_same(tmp_path / "two", 4, tmp_path / "whole")


@pytest.mark.parametrize("shards", [1, 3, 11])
def test_the_cut_does_not_matter_where_bits_depend_on_no_other_text(
    tmp_path: Path, corpus: list[Path], static_model: Path, shards: int
) -> None:
    asked = request(corpus, static_model, shards=shards)
    in_one_piece(tmp_path / "whole", asked)
    assert run(tmp_path / "cut", asked).complete
    assert_same(tmp_path / "cut", shards, tmp_path / "whole")


@pytest.mark.slow
def test_two_workers_give_the_bits_of_one_with_a_transformer(
    tmp_path: Path, corpus: list[Path], tiny_model: Path
) -> None:
    """Where the compiled kernels run, also those of a build in one piece; elsewhere torch rounds by what stands beside a text."""
    asked = request(corpus, tiny_model, shards=3)
    one = run(tmp_path / "one", asked)
    run(tmp_path / "two", asked, workers=2)
    assert one.complete
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    in_one_piece(tmp_path / "whole", asked)
    if choose_runtime(tiny_config(), "fp32", "cpu").runtime == "native":
        assert_same(tmp_path / "one", 3, tmp_path / "whole")
    else:
        (_, vectors, _), (_, stored, _) = joined(tmp_path / "one", 3), contents(tmp_path / "whole")
        np.testing.assert_allclose(vectors, stored, atol=1e-6)  # 1.2e-7 was measured


@pytest.mark.ray
@pytest.mark.parametrize("model", ["static", "transformer"])
def test_two_ray_workers_give_the_bits_of_one_process(
    tmp_path: Path, corpus: list[Path], static_model: Path, tiny_model: Path, model: str
) -> None:
    if not has_extra("ray"):
        pytest.skip("the package ray is not installed: pip install 'embedkit[ray]'")
    asked = request(corpus, static_model if model == "static" else tiny_model)
    one = run(tmp_path / "one", asked)
    two = run(tmp_path / "two", asked, workers=2, ray=True)
    assert two.complete, two.failed
    assert one.complete
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat"])
def test_each_shard_has_an_approximate_structure_of_its_own(
    tmp_path: Path, corpus: list[Path], static_model: Path, kind: str
) -> None:
    """What shards hold is the same with and without; another kind is another plan."""
    asked = request(corpus, static_model, shards=3, kind=kind)
    assert run(tmp_path / "ann", asked, workers=1 if kind == "hnsw" else 0).complete
    assert run(tmp_path / "flat", request(corpus, static_model, shards=3)).complete
    assert hashes(tmp_path / "ann") == hashes(tmp_path / "flat")
    for number in range(3):
        with Index.open(shard_path(tmp_path / "ann", number)) as index:
            assert index.ann is not None
            assert index.ann.info.kind == kind
    with ShardedIndex.open(tmp_path / "ann") as near, ShardedIndex.open(tmp_path / "flat") as exact:
        queries = np.random.default_rng(0).normal(size=(20, near.settings.dimension)).astype(np.float32)
        found, expected = (
            [{doc_id for doc_id, _ in ids} for ids in index.search_ids(queries, k=10)]
            for index in (near, exact)
        )
        shared = sum(len(one & other) for one, other in zip(found, expected, strict=True))
        assert shared >= 180, "recall@10 of 0.9 at least: a shard has about 100 vectors"
    with pytest.raises(IndexMismatchError, match="kind was"):
        run(tmp_path / "ann", request(corpus, static_model, shards=3))
