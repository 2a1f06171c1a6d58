"""Plans: the same command goes on; whatever differs is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.distributed.layout import PLAN
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.planning import planned
from embedkit.distributed.product import WorkerRefusedError
from embedkit.distributed.requests import ShardRequest
from embedkit.distributed.shard import ShardBuilder
from embedkit.errors import EmbedkitError, IndexFileError, IndexMismatchError, RecordError
from embedkit.pipelines.options import BuildOptions
from tests.distributed import request, write_texts
from tests.tiny import write_static_model


@pytest.fixture
def asked(corpus: list[Path], static_model: Path) -> ShardRequest:
    return request(corpus, static_model)


def make(folder: Path, asked: ShardRequest) -> ShardPlan:
    with planned(folder, asked) as plan:
        return plan


def test_the_same_command_finds_the_same_plan(tmp_path: Path, asked: ShardRequest) -> None:
    plan = make(tmp_path / "big", asked)
    before = (tmp_path / "big" / PLAN).read_bytes()
    assert make(tmp_path / "big", asked) == plan
    assert (tmp_path / "big" / PLAN).read_bytes() == before
    assert make(tmp_path / "other", asked) == plan
    assert [sum(part.last - part.first for part in parts) for parts in plan.shards] == [
        plan.size_of(shard) for shard in range(4)
    ]
    assert sum(plan.size_of(shard) for shard in range(4)) == sum(each.num_bytes for each in plan.inputs)


def test_more_or_fewer_workers_are_no_other_plan(tmp_path: Path, asked: ShardRequest) -> None:
    plan = make(tmp_path / "big", asked)
    assert make(tmp_path / "big", replace(asked, threads=7)).computed.threads == plan.computed.threads


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards": 5}, "shards was 4 and is 5"),
        (
            {"building": BuildOptions(chunk_tokens=99)},
            r'building was \{.*"chunk_tokens":null.* and is .*"chunk_tokens":99',
        ),
        ({"strict": True}, "strict was false and is true"),
    ],
)
def test_other_options_are_named(
    tmp_path: Path, asked: ShardRequest, changes: dict[str, object], message: str
) -> None:
    make(tmp_path / "big", asked)
    with pytest.raises(
        IndexMismatchError, match=f"planned with other options: {message}.* begin anew elsewhere"
    ):
        make(tmp_path / "big", replace(asked, **changes))  # type: ignore[arg-type] # a parameter


def test_a_changed_input_is_named(tmp_path: Path, asked: ShardRequest, corpus: list[Path]) -> None:
    make(tmp_path / "big", asked)
    raw = corpus[1].read_bytes()
    corpus[1].write_bytes(raw)  # another time, the same bytes
    make(tmp_path / "big", asked)
    corpus[1].write_bytes(raw.replace(b"2001", b"2002", 1))
    with pytest.raises(
        IndexMismatchError, match=r"the input is not what was planned: .*b\.jsonl has other bytes"
    ):
        make(tmp_path / "big", asked)
    corpus[1].write_bytes(raw + b"\n")
    with pytest.raises(IndexMismatchError, match=r"b\.jsonl had [\d,]+ bytes and has"):
        make(tmp_path / "big", asked)


def test_files_that_came_or_went_are_named(tmp_path: Path, static_model: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_texts(tmp_path / "in" / name, 5)
    asked = request([tmp_path / "in"], static_model)
    make(tmp_path / "big", asked)
    write_texts(tmp_path / "in" / "c.jsonl", 5)
    with pytest.raises(IndexMismatchError, match=r"1 new, such as .*c\.jsonl"):
        make(tmp_path / "big", asked)
    (tmp_path / "in" / "c.jsonl").unlink()
    (tmp_path / "in" / "b.jsonl").unlink()
    with pytest.raises(IndexMismatchError, match=r"b\.jsonl cannot be read"):
        make(tmp_path / "big", asked)


def rewrite(folder: Path, **changes: object) -> None:
    """Write a plan as another embedkit or machine would have made it."""
    replace(ShardPlan.read(folder), **changes).write(folder)  # type: ignore[arg-type] # a test names the fields


def test_another_version_is_refused_by_the_driver_and_by_every_worker(
    tmp_path: Path, asked: ShardRequest
) -> None:
    make(tmp_path / "big", asked)
    rewrite(tmp_path / "big", embedkit="9.9")
    with pytest.raises(
        IndexMismatchError, match=r"the plan was made by 9\.9\. Install that version on every machine"
    ):
        make(tmp_path / "big", asked)
    with pytest.raises(
        WorkerRefusedError, match=r"cannot work on this plan: embedkit is .* the plan was made by 9\.9"
    ):
        ShardBuilder(tmp_path / "big").prepare()


def test_another_model_is_refused(tmp_path: Path, corpus: list[Path]) -> None:
    model = write_static_model(tmp_path / "model")
    asked = request(corpus, model)
    make(tmp_path / "big", asked)
    write_static_model(tmp_path / "new", seed=9)
    for path in (tmp_path / "new").rglob("*.safetensors"):
        path.replace(model / path.relative_to(tmp_path / "new"))
    with pytest.raises(IndexMismatchError, match="was built by another encoder"):
        make(tmp_path / "big", asked)
    with pytest.raises(WorkerRefusedError, match="was built by another encoder"):
        ShardBuilder(tmp_path / "big").prepare()


def test_a_worker_that_cannot_compute_as_planned_is_refused_unless_the_plan_allows_it(
    tmp_path: Path, asked: ShardRequest
) -> None:
    """A static model is a table, which our kernels do not compute."""
    plan = make(tmp_path / "big", asked)
    rewrite(tmp_path / "big", computed=replace(plan.computed, backend="native"))
    with pytest.raises(
        WorkerRefusedError, match="the native backend does not compute this model in fp32 here"
    ):
        ShardBuilder(tmp_path / "big").prepare()
    rewrite(tmp_path / "big", computed=replace(plan.computed, backend="native"), allow_other=True)
    builder = ShardBuilder(tmp_path / "big")
    builder.prepare()
    receipt = builder.build(0, lambda progress: None)
    assert (receipt.as_planned, receipt.backend, receipt.precision) == (False, "numpy", "fp32")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1}'])
def test_a_damaged_plan_is_named(tmp_path: Path, asked: ShardRequest, text: str) -> None:
    make(tmp_path / "big", asked)
    (tmp_path / "big" / PLAN).write_text(text, encoding="utf-8")
    with pytest.raises(IndexFileError, match=r"plan\.json: the plan is damaged"):
        make(tmp_path / "big", asked)


def test_a_plan_that_was_edited_is_named(tmp_path: Path, asked: ShardRequest) -> None:
    make(tmp_path / "big", asked)
    content = json.loads((tmp_path / "big" / PLAN).read_text(encoding="utf-8"))
    content["commit_every"] += 1
    (tmp_path / "big" / PLAN).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(IndexFileError, match="its hash differs"):
        make(tmp_path / "big", asked)


def test_two_drivers_do_not_build_in_one_folder(tmp_path: Path, asked: ShardRequest) -> None:
    with planned(tmp_path / "big", asked), pytest.raises(IndexFileError, match=r"process \d+ is writing"):
        make(tmp_path / "big", asked)


def test_what_is_not_in_shards_is_left_alone(tmp_path: Path, asked: ShardRequest) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "x").touch()
    with pytest.raises(IndexFileError, match="holds something that is no index in shards"):
        make(tmp_path / "big", asked)


def test_standard_input_cannot_be_cut(tmp_path: Path, asked: ShardRequest) -> None:
    with pytest.raises(RecordError, match="standard input cannot be cut into shards"):
        make(tmp_path / "big", replace(asked, inputs=["-"]))
    assert not (tmp_path / "big").exists()


def test_a_model_that_is_refused_leaves_no_plan(tmp_path: Path, asked: ShardRequest) -> None:
    with pytest.raises(EmbedkitError):
        make(tmp_path / "big", replace(asked, model=str(tmp_path / "none")))
    assert not (tmp_path / "big" / PLAN).exists()
