"""The package as it is installed: what the wheel holds, one version, and names that exist."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from embedkit.checkpoint.json_files import read_json
from embedkit.models import ENCODER, RERANKER, SHIPPED, STATIC, TINY, shipped
from embedkit.native import library

ROOMS = ("embedkit", "indexes", "cli")
ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_installed_version_is_the_project_files() -> None:
    assert version("embedkit") == PROJECT["version"]


def test_the_console_script_is_the_command_lines_run() -> None:
    (script,) = entry_points(group="console_scripts", name="embedkit")
    assert script.value == PROJECT["scripts"]["embedkit"]
    assert callable(script.load())


@pytest.mark.parametrize("package", ["embedkit", "indexes"])
def test_every_public_name_is_there_when_it_is_asked_for(package: str) -> None:
    module = importlib.import_module(package)
    names: list[str] = getattr(module, "__all__", [])
    assert names, f"{package} has no __all__"
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name) is not None
    assert set(names) <= set(dir(module))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves files beside the sources
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in (*ROOMS, "tests"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    how = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    build = [sys.executable, "-m", "pip", "wheel", str(source), *how]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_three_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {*ROOMS, f"embedkit-{PROJECT['version']}.dist-info"}
    sources = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert sources <= set(names)
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "embedkit" / "presets").glob("*.toml")}
    data |= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "embedkit" / "models").glob("embedkit-*/**/*.*")
    }
    data |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "embedkit/serving/page/static").iterdir()}
    assert data <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert "embedkit/py.typed" in names
    compiled = [name for name in names if name.startswith("embedkit/native/_kernels.")]
    assert compiled == ["embedkit/native/_kernels.so"] * (library.find_library() is not None)  # as here
    assert wheel.name.startswith(f"embedkit-{PROJECT['version']}-py3-none-")  # for every Python


@pytest.mark.slow
def test_what_the_wheel_installs_encodes_indexes_and_searches_without_a_compiler(
    wheel: Path, tmp_path: Path
) -> None:
    target = tmp_path / "installed"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "notes.txt").write_text("The pump is in the cellar.\n", encoding="utf-8")
    environment = {
        "PYTHONPATH": str(target),
        "PATH": "/nowhere",
        "HOME": str(tmp_path),
        "EMBEDKIT_PIPE": "json",
    }

    def embedkit(*arguments: str) -> str:
        command = [sys.executable, "-m", "cli", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    if library.find_library() is not None:
        assert json.loads(embedkit("doctor"))["backends"]["fp32"] == "native"
    embedkit("encode", "notes.txt", "--output", "notes.npy")
    embedkit("index", "build", "notes.txt", "--index", "notes.index")
    assert json.loads(embedkit("search", "notes.index", "where is the pump"))["id"] == "notes.txt"
    where = [sys.executable, "-c", "import embedkit; print(embedkit.__file__)"]
    done = subprocess.run(where, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stdout.startswith(str(target))


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_model_is_there_whole_with_its_card(name: str) -> None:
    folder = shipped(name)
    is_static = name == STATIC
    for file in (
        "modules.json" if is_static else "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    ):
        assert (folder / file).stat().st_size > 0, file
    config = read_json(folder / "config.json", {})
    kinds = config.get("architectures", ["static"])
    assert kinds[0].endswith("ForSequenceClassification") == (name == RERANKER)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("Data", "Results", "Limits", "Licence"):
        assert f"# {heading}" in card, heading


def test_the_shipped_models_are_small() -> None:
    sizes = {
        name: sum(file.stat().st_size for file in shipped(name).rglob("*") if file.is_file())
        for name in SHIPPED
    }
    assert sizes[ENCODER] <= 25e6
    assert sizes[TINY] <= 13e6
    assert sizes[STATIC] <= 8.5e6
    assert sum(sizes.values()) <= 75e6


def test_workflows_call_targets_of_the_makefile_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = workflow.read_text(encoding="utf-8")
        called = set(re.findall(r"run: make ([a-z-]+)", text))
        for names in re.findall(r"tests: \[(.*)\]", text):
            called |= set(names.split(", "))
        assert called, workflow
        assert called <= targets, workflow
