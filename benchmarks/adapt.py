"""Adapt a model to judged collections, and measure their judged queries before and after: nDCG@10, dense and hybrid.

    python benchmarks/adapt.py --output FOLDER [--sets cacm cisi scifact time code forum] [--model embedkit-small]
                               [--evaluate FILE ...] [-- OPTIONS OF ADAPT ...]

Any folder of the data's retrieval/ is a set. Others are made of rows of varied/ that the models in the box were not trained on
(`docs/reproduce/varied.py`): code (functions, asked by their queries), forum (questions, asked by their titles), manuals, textbooks
(sections, asked by their headings), faq (answers), physics (abstracts), packages (descriptions). They are written to FOLDER/sets.

Adapting reads the documents alone; the judged queries only measure. Each collection's model goes to FOLDER/NAME; what is there already is
gone on with, so an interrupted benchmark can be repeated. FOLDER/NAME.json holds the reports, FOLDER/results.json the table. With
other options after `--`, such as --ranking-steps 0 or --steps 100, another FOLDER gives a row of an ablation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timing import data_folder, report

sys.path.append(str(Path(__file__).resolve().parent.parent / "docs" / "reproduce"))
from sources import rows
from varied import held_out

MODES = ("dense", "hybrid")
# Of the sets that are made of rows held back: the file, which column asks, and which one is found.
HELD_BACK = {
    "code": ("code_python/train.jsonl.zst", "query", "code"),
    "forum": ("forum_title_body/train.tsv.zst", "title", "body"),
    "manuals": ("docs_sections/train.tsv.zst", "heading", "text"),
    "textbooks": ("textbook_sections/train.tsv.zst", "heading", "text"),
    "faq": ("faq_qa/train.tsv.zst", "question", "answer"),
    "physics": ("physics_abstracts_lower/train.tsv.zst", "title", "abstract"),
    "packages": ("debian_descriptions/train.tsv.zst", "synopsis", "description"),
}


def judged_set(name: str, output: Path) -> Path:
    """Return the folder of a judged set; what is made of rows held back is written first."""
    if name not in HELD_BACK:
        return data_folder() / "retrieval" / name
    file, asks, found = HELD_BACK[name]
    kept = [row for row in rows(data_folder() / "varied" / file) if held_out(row)]
    numbers: dict[str, int] = {}  # of each text that is found: several may ask for one
    asked = [(row[asks], numbers.setdefault(row[found], len(numbers))) for row in kept]
    folder = output / "sets" / name
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = [json.dumps({"_id": str(number), "text": text}) for text, number in numbers.items()]
    queries = [json.dumps({"_id": f"q{i}", "text": text}) for i, (text, _) in enumerate(asked)]
    qrels = ["query-id\tcorpus-id\tscore", *(f"q{i}\t{number}\t1" for i, (_, number) in enumerate(asked))]
    for path, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
        (folder / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def embedkit(*words: str) -> list[dict[str, Any]]:  # Any: whatever JSON holds
    """Run a command and return the JSON lines that it printed; its progress is shown."""
    command = [sys.executable, "-m", "cli", *words, "--json"]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return [json.loads(line) for line in done.stdout.splitlines()]


def adapt(source: Path, output: Path, model: str, evaluate: Sequence[str], options: Sequence[str]) -> Any:
    """Adapt to the documents of a set, or go on with it, and return the report."""
    corpus = next(source.glob("corpus.jsonl*"))
    words = ["adapt", str(corpus), "--output", str(output), "--model", model, *options]
    words += [word for each in evaluate for word in ("--evaluate", each)]
    if (output / "training" / "adapt.json").is_file():
        words.append("--resume")
    return embedkit(*words)[0]


def judged(source: Path, model: str) -> dict[str, float]:
    """Return nDCG@10 of the judged queries by mode."""
    modes = [word for mode in MODES for word in ("--mode", mode)]
    systems = embedkit("evaluate", "retrieval", str(source), "--model", model, *modes, "--metric", "ndcg@10")
    found = {
        "hybrid" if each["system"].endswith(" hybrid") else "dense": each["values"]
        for each in systems
        if each["system"] != "BM25"
    }
    return {mode: float(values["ndcg@10"]) for mode, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["cacm", "cisi", "scifact", "time", "code", "forum"])
    parser.add_argument("--model", default="embedkit-small")
    parser.add_argument("--evaluate", nargs="*", default=[], help="general sets, measured before and after")
    parser.add_argument("options", nargs="*", help="options of `embedkit adapt`, after --")
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    table = []
    for name in arguments.sets:
        source = judged_set(name, output)
        found = adapt(source, output / name, arguments.model, arguments.evaluate, arguments.options)
        (output / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        before, after = judged(source, arguments.model), judged(source, str(output / name))
        row: dict[str, Any] = {"set": name}
        for mode in MODES:
            row[f"{mode} before"], row[f"{mode} after"] = f"{before[mode]:.4f}", f"{after[mode]:.4f}"
        held_out = found["held_out"][0]
        row["held-out queries"] = f"{held_out['before']:.4f} -> {held_out['after']:.4f}"
        row["agreement"] = f"{found['agreement']:.4f}"
        row |= {each["name"]: f"{each['before']:.4f} -> {each['after']:.4f}" for each in found["sets"]}
        row["keep"] = found["keep"]
        table.append(row)
        print(row, flush=True)
    report("nDCG@10 of judged queries before and after adapting", table, output=output / "results.json")


if __name__ == "__main__":
    main()
