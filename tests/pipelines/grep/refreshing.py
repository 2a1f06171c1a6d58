"""A process that brings a folder's index up to date until it is killed: `python -m tests.pipelines.grep.refreshing HOME ROOT MODEL`.

It prints a line for each report, so that the test can choose a moment. Its commits are small, so that there are many moments.
"""

from __future__ import annotations

import sys
from pathlib import Path

from embedkit.pipelines.grep.folder import Folder
from embedkit.pipelines.grep.home import Home
from embedkit.types import Computing


def main(path: Path, root: Path, model: str) -> None:
    home = Home(path, root)
    home.make()
    for report in Folder(home, Computing(device="cpu"), model=model).refresh(commit_every=3):
        sys.stdout.write(f"{report.done}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
