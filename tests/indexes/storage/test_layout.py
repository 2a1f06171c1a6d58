from pathlib import Path

from indexes import is_index
from tests.indexes.fakes import create


def test_an_index_is_told_from_any_other_folder(tmp_path: Path) -> None:
    create(tmp_path / "i").close()
    assert is_index(tmp_path / "i")
    assert is_index(str(tmp_path / "i"))
    assert not is_index(tmp_path)
    assert not is_index(tmp_path / "none")
    assert not is_index(tmp_path / "i" / "index.sqlite")
