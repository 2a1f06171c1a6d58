"""The order of the rooms: every import points down, and nothing goes round in a circle.

All imports count, also those inside functions and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.sources import tree_of, walked

# From the ground up. A room imports from those below it, or beside it as long as no circle comes of it.
FLOORS = (
    ("errors", "recipe", "types", "machine"),
    ("storage", "extras", "model", "native"),
    ("data", "tokenization", "checkpoint", "models"),
    ("inference", "retrieval", "indexes"),
    ("encoding", "evaluation", "generation"),
    ("reranking", "explaining"),
    ("training",),
    ("pipelines", "connectors"),
    ("serving", "distributed"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FACE = "embedkit"  # embedkit/__init__.py: the public names, each imported when it is first used; no room imports it

Graph = Mapping[str, Mapping[str, int]]  # importing module -> imported module -> line


def modules(root: Path) -> dict[str, Path]:
    """Return the files of the three packages by their module's name."""
    found = {}
    for package in ("embedkit", "indexes", "cli"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Graph:
    files = modules(root)
    return {name: dict(_imports_of(name, path, files)) for name, path in files.items()}


def _imports_of(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in walked(tree_of(path)):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            full = [f"{base}.{alias.name}" for alias in node.names]
            targets = [module if module in files else base for module in full]
        for target in targets:
            if target in files and target != name:
                yield target, getattr(node, "lineno", 0)


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return first if first != "embedkit" or not rest else rest.split(".")[0]


def circles(graph: Mapping[str, Mapping[str, object]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node (Tarjan 1972), each sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in graph.get(node, {}):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in order:
            visit(node)
    return found


def arrows_up(graph: Graph) -> list[str]:
    """Name the imports of a higher room by a lower one."""
    return [
        f"{importer}:{line} imports {imported}"
        for importer, targets in graph.items()
        for imported, line in targets.items()
        if FACE not in (importer, imported) and FLOOR_OF[room_of(imported)] > FLOOR_OF[room_of(importer)]
    ]


def rooms(graph: Graph) -> dict[str, dict[str, int]]:
    """Return which room imports which."""
    found: dict[str, dict[str, int]] = {}
    for importer, targets in graph.items():
        for imported, line in targets.items():
            if room_of(importer) != room_of(imported) and FACE not in (importer, imported):
                found.setdefault(room_of(importer), {})[room_of(imported)] = line
    return found


@pytest.fixture(scope="module")
def graph() -> Graph:
    return imports(REPOSITORY)


def test_every_room_has_its_floor(graph: Graph) -> None:
    assert {room_of(module) for module in graph} - {FACE} <= set(FLOOR_OF)


def test_no_circle_of_files(graph: Graph) -> None:
    assert circles(graph) == []


def test_no_circle_of_rooms(graph: Graph) -> None:
    assert circles(rooms(graph)) == []


def test_every_import_points_down(graph: Graph) -> None:
    assert arrows_up(graph) == []


def test_no_room_imports_the_public_face(graph: Graph) -> None:
    assert [f"{name}:{targets[FACE]}" for name, targets in graph.items() if FACE in targets] == []


def test_the_order_notices_what_breaks_it(tmp_path: Path) -> None:
    """An import inside a function, one under TYPE_CHECKING and a relative one close a circle and run up."""
    for name, text in {
        "embedkit/__init__.py": "",
        "embedkit/data/__init__.py": "",
        "embedkit/data/a.py": "def f():\n    from embedkit.training import b\n",
        "embedkit/training/__init__.py": "",
        "embedkit/training/b.py": "if TYPE_CHECKING:\n    from embedkit.data.a import f\n",
        "indexes/__init__.py": "",
        "indexes/one.py": "from .two import x\n",
        "indexes/two.py": "from . import one\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    graph = imports(tmp_path)
    assert sorted(circles(graph)) == [
        ["embedkit.data.a", "embedkit.training.b"],
        ["indexes.one", "indexes.two"],
    ]
    assert circles(rooms(graph)) == [["data", "training"]]
    assert arrows_up(graph) == ["embedkit.data.a:2 imports embedkit.training.b"]
