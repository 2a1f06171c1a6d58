from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["grep", "mcp", "search"])
def test_numpy_gets_one_thread_before_it_is_loaded(command: str) -> None:
    program = (
        f"import os, sys, cli.{command}\n"
        "assert not [name for name in sys.modules if name.startswith('numpy')]\n"
        f"cli.{command}.compute_single_queries()\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    unset = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=unset, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_a_search_leaves_what_the_user_set() -> None:
    program = "import os\nfrom cli.shared.threads import compute_single_queries as f\nf()\nprint(os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n"
