"""Optional packages: a missing one is named with the command that installs it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from embedkit.data.reading import read_documents
from embedkit.errors import MissingExtraError
from embedkit.extras import EXTRAS, has_extra, load_extra


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "zstd", "no_such_package")
    assert not has_extra("zstd")
    with pytest.raises(
        MissingExtraError,
        match=r"reading x needs the package 'no_such_package'.* pip install 'embedkit\[zstd\]'",
    ):
        load_extra("zstd", purpose="reading x")


def test_reading_names_the_file_that_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "parquet", "no_such_package")
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"reading .*a\.parquet needs the package 'no_such_package'"):
        list(read_documents([str(tmp_path / "a.parquet")]))


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_every_extra_has_a_module_here_and_an_entry_in_the_project_file(
    extra: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    root = request.config.rootpath
    assert (root / "embedkit" / "extras" / f"{extra}.py").is_file()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    monkeypatch.setitem(EXTRAS, extra, "no_such_package")
    with pytest.raises(MissingExtraError) as caught:
        load_extra(extra, purpose="the test")
    assert any(f"embedkit[{name}]" in str(caught.value) for name in project["optional-dependencies"])


def test_asking_whether_an_extra_is_there_does_not_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "zstd", "wave")  # of the standard library, imported by nobody here
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    assert has_extra("zstd")
    assert "wave" not in sys.modules
