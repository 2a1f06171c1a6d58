from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embedkit.errors import OutputError, TrainingError
from embedkit.storage.files import put_in_place
from embedkit.training.engine import run_folder
from embedkit.training.engine.run_folder import Position, RunFolder
from tests.full_disk import files_limited_to

GROUPS = {"weights": {"w": torch.arange(3.0)}, "optimizer": {"w|exp_avg": torch.ones(3)}}


def write(folder: RunFolder, *steps: int, keep_last: int = 2) -> None:
    folder.begin({})
    for step in steps:
        folder.write_state(Position(step=step, tokens=10 * step), GROUPS, keep_last)


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin({})
    position = Position(step=4, tokens=40, best_loss=1.5, best_step=2)
    folder.write_state(position, GROUPS, 2)
    again, groups = folder.read_state(4)
    assert again == position
    assert torch.equal(groups["weights"]["w"], GROUPS["weights"]["w"])
    assert torch.equal(groups["optimizer"]["w|exp_avg"], GROUPS["optimizer"]["w|exp_avg"])


def test_only_the_last_states_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, 2, 4, 6, 100, keep_last=2)
    assert folder.saved_steps() == [6, 100]


def test_a_half_written_state_is_no_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, 2)
    (folder.states / ".00000004.draft").mkdir()
    assert folder.saved_steps() == [2]


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "format"])
def test_a_damaged_state_is_named_with_those_that_are_left(tmp_path: Path, damage: str) -> None:
    folder = RunFolder(tmp_path)
    write(folder, 2, 4)
    state = folder.states / "00000004"
    match damage:
        case "cut":
            (state / "weights.safetensors").write_bytes((state / "weights.safetensors").read_bytes()[:-5])
        case "garbage":
            (state / "state.json").write_text("{", encoding="utf-8")
        case "missing":
            (state / "state.json").unlink()
        case "format":
            (state / "state.json").write_text('{"format": 99, "step": 4}', encoding="utf-8")
    with pytest.raises(
        TrainingError, match=r"00000004: the state cannot be read .* an earlier one; there: 2"
    ):
        folder.read_state(4)


def test_the_log_is_cut_back_to_a_step_and_loses_a_torn_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin({})
    for step in (1, 2, 3):
        folder.log({"kind": "step", "step": step})
    with folder.log_path.open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "st')
    folder.trim_log(2)
    assert folder.log_path.read_text(encoding="utf-8").count("\n") == 2


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, 2)
    (folder.states / ".00000004.0123456789ab.tmp").mkdir()
    (folder.path / ".best.safetensors.0123456789ab.tmp").write_bytes(b"half")
    folder.begin({})
    assert [path.name for path in folder.states.iterdir()] == ["00000002"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["run.json", "states"]


def test_weights_that_do_not_fit_on_the_disk_leave_those_of_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, 2)
    folder.write_best({"w": torch.ones(3)})
    large = {"w": torch.zeros(50_000)}
    with files_limited_to(20_000):
        with pytest.raises(OutputError, match=r"best\.safetensors: cannot be written"):
            folder.write_best(large)
        with pytest.raises(OutputError, match=r"00000004: cannot be written"):
            folder.write_state(Position(step=4), {"weights": large}, 2)
    assert torch.equal(folder.read_best()["w"], torch.ones(3))
    assert folder.saved_steps() == [2]
    assert sorted(path.name for path in folder.path.iterdir()) == ["best.safetensors", "run.json", "states"]


def test_weights_can_be_read_by_whom_the_umask_says(tmp_path: Path) -> None:
    """The library that writes them lets their owner alone."""
    folder = RunFolder(tmp_path)
    write(folder, 2)
    folder.write_best({"w": torch.ones(3)})
    modes = {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {(folder.path / "run.json").stat().st_mode}


def test_a_model_is_published_after_a_kill_in_the_middle_of_it(tmp_path: Path) -> None:
    """config.json is the last file to move, so that there is no model before all of it is there."""
    folder = RunFolder(tmp_path)
    write(folder, 2)
    (folder.path / "model.draft").mkdir()
    (folder.path / "model.draft" / "config.json").write_text("old", encoding="utf-8")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "old").write_text("old", encoding="utf-8")
    with folder.publishing() as draft:
        (draft / "1_Pooling").mkdir()
        (draft / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
        (draft / "config.json").write_text("new", encoding="utf-8")
        assert not (tmp_path / "config.json").exists()
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == "new"
    assert [path.name for path in (tmp_path / "1_Pooling").iterdir()] == ["config.json"]
    assert not (folder.path / "model.draft").exists()


@pytest.mark.parametrize("last", ["config.json", "modules.json"])
def test_the_file_that_makes_a_model_of_the_folder_is_moved_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """A static model has no config.json."""
    folder = RunFolder(tmp_path)
    write(folder, 2)
    moved: list[str] = []

    def watched(source: Path, target: Path) -> None:
        moved.append(source.name)
        put_in_place(source, target)

    monkeypatch.setattr(run_folder, "put_in_place", watched)
    assert not folder.is_published(static=last == "modules.json")
    with folder.publishing() as draft:
        for name in {"modules.json", last, "tokenizer.json", "README.md"}:
            (draft / name).write_text("{}", encoding="utf-8")
    assert moved[-1] == last
    assert folder.is_published(static=last == "modules.json")


def test_a_model_that_cannot_be_written_is_not_published(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def write_half() -> None:
        with folder.publishing() as draft:
            (draft / "config.json").write_text("half", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert [path.name for path in tmp_path.rglob("*")] == ["training"]
