"""Writes collections and questions to a folder: `python -m benchmarks.questions FOLDER`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks import questions as described
from benchmarks.questions.asked import write
from benchmarks.questions.derive import derive


def main() -> None:
    parser = argparse.ArgumentParser(
        description=described.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where collections and questions are written")
    folder = parser.parse_args().folder
    questions = derive(folder)
    rows = [{**asdict(each), "half": each.half} for each in questions]
    write(folder / "questions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for kind in dict.fromkeys((each.collection, each.kind) for each in questions):
        halves = [each.half for each in questions if (each.collection, each.kind) == kind]
        print(f"{' '.join(kind)}: {halves.count('choose')} for choosing, {halves.count('test')} as a test")


if __name__ == "__main__":
    main()
