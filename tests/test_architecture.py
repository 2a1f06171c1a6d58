"""Who may import whom, read from the sources; and what the command line loads before it has work to do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.sources import parts_of, tree_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("embedkit", "indexes", "cli")
# Rooms of embedkit that need models and indexes together.
ABOVE_INDEXES = ("pipelines", "serving", "distributed", "connectors")
# import name -> the only places that may import it; whatever is optional is reached through embedkit/extras
PLACES: dict[str, tuple[str, ...]] = {
    "cli": ("cli/",),
    "indexes": ("cli/", "indexes/", "embedkit/__init__", *(f"embedkit/{room}/" for room in ABOVE_INDEXES)),
    "faiss": ("indexes/",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "sqlite3": ("indexes/", "embedkit/pipelines/grep/state"),
    "zstandard": ("embedkit/extras/",),
    "pyarrow": ("embedkit/extras/",),
    "huggingface_hub": ("embedkit/extras/",),
    "matplotlib": ("embedkit/extras/",),
    "transformers": ("embedkit/extras/",),
    "sentence_transformers": ("embedkit/extras/",),
    "onnx": ("embedkit/extras/",),
    "onnxruntime": ("embedkit/extras/",),
    "openvino": ("embedkit/extras/",),
    "mcp": ("embedkit/extras/",),
    "mcp_types": ("embedkit/extras/",),
    "anyio": ("embedkit/extras/",),
    "jsonschema": ("embedkit/extras/",),
    "fastapi": ("embedkit/extras/",),
    "ray": ("embedkit/extras/",),
    "tensorboard": ("embedkit/extras/",),
    "psycopg": ("embedkit/extras/",),
    "lancedb": ("embedkit/extras/",),
    "psutil": (),
    "scipy": (),
    "click": (),
    "pickle": (),
}


# A class of a file itself, as ruff formats it.
CLASS = re.compile(r"^class ([^\W_]\w*)", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """One imported module: absolute name, whether it was written relatively, whether it runs when the file is loaded."""

    path: str
    line: int
    module: str
    relative: bool
    at_load: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: imports {self.module}"


def imports_of(path: Path) -> Iterator[Import]:
    name = path.relative_to(ROOT).as_posix()
    package = name.removesuffix(".py").removesuffix("/__init__").split("/")
    package = package if path.name == "__init__.py" else package[:-1]
    yield from _walk(tree_of(path), name, package, at_load=True)


def _walk(node: ast.AST, name: str, package: list[str], *, at_load: bool) -> Iterator[Import]:
    for child in parts_of(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(name, child.lineno, alias.name, False, at_load)
        elif isinstance(child, ast.ImportFrom):
            base = [*package[: len(package) - child.level + 1]] if child.level else []
            module = ".".join([*base, *([child.module] if child.module else [])])
            for alias in child.names:  # `from . import x` may name a module
                yield Import(name, child.lineno, f"{module}.{alias.name}", child.level > 0, at_load)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for part in child.orelse:
                yield from _walk(part, name, package, at_load=at_load)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _walk(child, name, package, at_load=at_load and not inside)


@cache
def all_imports() -> tuple[Import, ...]:
    """Return the imports of all sources, read once by a process that tests them and never by one that does not."""
    return tuple(
        found
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for found in imports_of(path)
    )


def within(module: str, *names: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def offending(path: str, *forbidden: str, allowed: tuple[str, ...] = (), at_load: bool = False) -> list[str]:
    return [
        str(found)
        for found in all_imports()
        if found.path.startswith(path)
        and within(found.module, *forbidden)
        and not within(found.module, *allowed)
        and (found.at_load or not at_load)
    ]


def test_a_class_name_means_one_class() -> None:
    """Classes that a file keeps to itself, with an underscore, may share a name."""
    files: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in CLASS.findall(path.read_text(encoding="utf-8")):
                files.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    assert len(files) > 500
    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}


def test_the_sources_were_found() -> None:
    assert len({found.path for found in all_imports()}) > 40
    assert any(
        found.path == "cli/main.py" and found.module == "embedkit.errors.EmbedkitError"
        for found in all_imports()
    )
    assert any(found.relative and found.module == "cli.shared.options" for found in all_imports())


@pytest.mark.parametrize("module", PLACES)
def test_a_module_is_imported_only_where_it_may_be(module: str) -> None:
    places = PLACES[module]
    assert [
        str(found)
        for found in all_imports()
        if within(found.module, module) and not found.path.startswith(places)
    ] == []


def test_indexes_know_of_embedkit_only_the_rooms_below_and_of_torch_nothing() -> None:
    rooms = ("errors", "types", "machine", "storage", "data", "native", "retrieval")
    assert offending("indexes/", "embedkit", allowed=tuple(f"embedkit.{room}" for room in rooms)) == []
    gpu = "indexes/search/gpu.py"
    assert [line for line in offending("indexes/", "torch") if not line.startswith(gpu)] == []
    # gpu.py itself is loaded by nobody before it is needed
    assert [
        found for found in all_imports() if within(found.module, "indexes.search.gpu") and found.at_load
    ] == []


def test_the_model_knows_tensors_only() -> None:
    allowed = ("embedkit.model",)
    assert (
        offending("embedkit/model/", "embedkit", "numpy", "tokenizers", "json", "pathlib", allowed=allowed)
        == []
    )


def test_training_and_encoding_never_import_each_other() -> None:
    assert offending("embedkit/training/", "embedkit.encoding") == []
    assert offending("embedkit/encoding/", "embedkit.training") == []


def test_checkpoints_alone_read_and_write_tensors() -> None:
    for found in all_imports():
        if within(found.module, "safetensors"):
            assert found.path.startswith(
                ("embedkit/checkpoint/", "embedkit/training/engine/run_folder.py")
            ), str(found)


def test_what_all_rooms_share_needs_the_standard_library_only() -> None:
    modules = (
        "errors",
        "data/formats",
        "data/records",
        "data/paths",
        "data/reading",
        "recipe",
        "models/__init__",
    )
    for path in (f"embedkit/{module}.py" for module in modules):
        for found in all_imports():
            if found.path == path:
                top = found.module.split(".")[0]
                assert top == "embedkit" or top in sys.stdlib_module_names, str(found)


def test_nothing_outside_the_extras_imports_an_extra_directly() -> None:
    direct = [
        str(found)
        for found in all_imports()
        if within(found.module, "embedkit.extras")
        and not within(found.module, *ALLOWED_EXTRAS)
        and not found.path.startswith("embedkit/extras/")
    ]
    assert direct == []


ALLOWED_EXTRAS = tuple(
    f"embedkit.extras.{name}" for name in ("load_extra", "need_extra", "has_extra", "EXTRAS")
)


def test_imports_are_relative_within_cli_and_indexes_and_absolute_elsewhere() -> None:
    for found in all_imports():
        room = found.path.split("/")[0]
        own = room in ("cli", "indexes") and within(found.module, room)
        assert found.relative == own, str(found)


@pytest.mark.parametrize("package", ["cli/", "embedkit/__init__", "indexes/__init__"])
def test_heavy_packages_are_not_imported_when_the_command_line_loads(package: str) -> None:
    heavy = ("torch", "faiss", "numpy", "tokenizers", "safetensors", "rich")
    assert offending(package, *heavy, at_load=True) == []


def test_help_and_wrong_usage_load_neither_torch_nor_faiss() -> None:
    """Each command line in a fork of one process, which has loaded what they all need."""
    lines = [
        ["--help"],
        ["--version"],
        ["encode", "--help"],
        ["encode", "x.txt"],
        ["encode", "no.txt", "--model", "no"],
        ["nothing"],
    ]
    program = (
        "import os, sys, cli.main\n"
        f"for words in {lines!r}:\n"
        "    if child := os.fork():\n"
        "        os.waitpid(child, 0)\n"
        "        continue\n"
        "    sys.argv = ['embedkit', *words]\n"
        "    try: cli.main.run()\n"
        "    except SystemExit: pass\n"
        "    heavy = sorted({'torch', 'faiss', 'transformers'} & set(sys.modules))\n"
        "    print('loaded:', words, heavy, file=sys.stderr, flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    loaded = [line for line in done.stderr.splitlines() if line.startswith("loaded: ")]
    assert loaded == [f"loaded: {words} []" for words in lines], done.stderr


def test_the_packages_themselves_load_neither_torch_nor_faiss() -> None:
    program = "import embedkit, indexes, sys; sys.exit(bool({'torch', 'faiss'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
