"""`benchmarks/families.py`: it runs every family that is loaded, and docs/models.md has its table."""

from __future__ import annotations

import io
import runpy
import sys
from contextlib import redirect_stdout

import pytest

from embedkit.checkpoint.names import FAMILIES
from embedkit.native.dispatch import is_generic
from tests.conftest import REPOSITORY

TINY = ["--hidden", "64", "--layers", "1", "--heads", "2", "--rounds", "1"]
# The families of the rows that have several; every other row has one.
SEVERAL = {"RoBERTa, XLM-R, CamemBERT": 3}
Row = dict[str, str]


def table(text: str) -> list[Row]:
    """Return the rows of the table that begins with `family` and has speeds."""
    lines = [line.strip("| \n") for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.split("|")] for line in lines]
    start = next(n for n, cells in enumerate(found) if cells[:2] == ["family", "parameters, M"])
    rows = found[start + 2 :]
    return [dict(zip(found[start], cells, strict=True)) for cells in rows if len(cells) == len(found[start])]


@pytest.fixture(scope="module")
def measured() -> list[Row]:
    script, shown = REPOSITORY / "benchmarks" / "families.py", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
        patch.syspath_prepend(str(script.parent))
        patch.setattr(sys, "argv", [str(script), *TINY, "--markdown"])
        patch.setenv("OMP_NUM_THREADS", "1")
        runpy.run_path(str(script), run_name="__main__")
    return table(shown.getvalue())


def test_every_family_that_is_loaded_has_a_row(measured: list[Row]) -> None:
    layered = [row["family"] for row in measured if row["family"] != "static"]
    assert sum(SEVERAL.get(name, 1) for name in layered) == len(FAMILIES)


def test_a_run_gives_speeds_and_ratios_to_the_first_row(measured: list[Row]) -> None:
    first = measured[0]
    assert first["family"] == "BERT"
    assert first["torch in fp32"].endswith("(1.00)")
    assert all(row["fp32"].split(":")[0] in ("native", "torch", "numpy") for row in measured)


@pytest.mark.skipif(is_generic(), reason="the table is of a processor that has kernels of its own")
def test_the_docs_have_the_table_and_say_what_computes_each_family(measured: list[Row]) -> None:
    """If not, `python benchmarks/families.py --markdown` prints the table anew."""
    written = table((REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8"))

    def runtimes(rows: list[Row]) -> list[tuple[str, ...]]:
        return [(row["family"], *(row[name].split(":")[0] for name in ("fp32", "int8"))) for row in rows]

    assert runtimes(written) == runtimes(measured)
