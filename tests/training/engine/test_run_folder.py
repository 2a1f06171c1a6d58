from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embedkit.errors import TrainingError
from embedkit.storage.files import write_atomically
from embedkit.training.engine.run_folder import Position, RunFolder

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


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", "long old text")
    write_atomically(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "new"
