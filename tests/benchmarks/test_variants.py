"""`benchmarks/variants.py`: a whole comparison at a tiny size, gone on with, extended and printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.training.contrastive_runs import rows_of
from tests.training.corpora import write_texts

zstandard = pytest.importorskip("zstandard")
Rows = list[dict[str, Any]]  # Any: JSON values


def compress(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(text.encode("utf-8")))


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tiny_data(folder: Path) -> Path:
    """Lay the files that the comparison reads, of a few made-up texts, in the layout of the real ones."""
    folder.mkdir()
    texts = write_texts(folder / "texts.jsonl", 60).read_text(encoding="utf-8")
    compress(folder / "text" / "simplewiki.jsonl.zst", texts)
    pairs = [(row["query"], row["positive"]) for row in rows_of("pairs", 60)]
    leads = "title\tlead\n" + "".join(f"{query}\t{positive}\n" for query, positive in pairs)
    compress(folder / "pairs" / "simplewiki_title_lead" / "all.tsv.zst", leads)
    captions = [{"image_id": n, "captions": list(pair)} for n, pair in enumerate(pairs)]
    compress(folder / "pairs" / "coco_captions" / "train.jsonl.zst", lines(captions))
    for name, split in (("squad_v11_train", "train"), ("squad_v11_dev", "test")):
        place = folder / "retrieval" / name
        compress(
            place / "corpus.jsonl.zst",
            lines([{"_id": f"d{n}", "title": "", "text": text} for n, (_, text) in enumerate(pairs)]),
        )
        compress(
            place / "queries.jsonl.zst",
            lines([{"_id": f"q{n}", "text": f"{text} {n}"} for n, (text, _) in enumerate(pairs)]),
        )
        (place / "qrels").mkdir()
        judged = "".join(f"q{n}\td{n}\t1\n" for n in range(len(pairs)))
        (place / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8"
        )
    scored = "".join(f"{first}\t{second}\t{n % 5}\n" for n, (first, second) in enumerate(pairs))
    (folder / "sts" / "stsb").mkdir(parents=True)
    (folder / "sts" / "stsb" / "dev.tsv").write_text(
        "sentence1\tsentence2\tscore\n" + scored, encoding="utf-8"
    )
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "variants.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_comparison_is_made_once_extended_and_printed(tmp_path: Path) -> None:
    data, runs = tiny_data(tmp_path / "data"), tmp_path / "runs"
    tiny = ":model.hidden_size=32:model.num_hidden_layers=1:model.intermediate_size=64:text.batch_tokens=256:text.held_out=0.1"
    plain, low = "mini" + tiny, "mini-low-rank" + tiny
    common = (runs, "--data", data, "--seeds", 0)
    settings = ("--minutes", 0.001, "--contrastive-steps", 4, "--batch-size", 8, "--vocab-size", 80)
    first = run(*common, *settings, "--precision", "fp32", "--variants", plain)
    assert first.returncode == 0, first.stderr
    plan = json.loads((runs / "plan.json").read_text(encoding="utf-8"))
    results = {path: path.stat().st_mtime_ns for path in (runs / "results").rglob("*.json")}
    assert len(results) == 2  # a pretraining, and what was made of it
    # Others join under the same plan: one more pretraining, two heads over it and one over the first.
    layers = ":model.num_hidden_layers=5:model.recursion.num_recursions=3"
    recurring = "mini-mor" + tiny.replace(":model.num_hidden_layers=1", layers)
    named = (plain, low, recurring, low + "+structured", plain + "+loss.similarity=bilinear")
    second = run(*common, "--variants", *named)
    assert second.returncode == 0, second.stderr
    assert "3 pretrainings" in second.stderr
    for path in (runs / "results").rglob("*.json"):
        assert results.get(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    made = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (runs / "results" / "pretraining").iterdir()
    }
    assert len(made) == 3
    for content in made.values():  # as near to the plan as whole steps come
        assert content["flops"] == pytest.approx(plan["flops"], rel=0.15)
        assert 0 <= content["accuracy"] < 1
    shown = run(*common, "--table", "--variants", *named).stdout.splitlines()
    assert shown[0].startswith("| variant | seeds | MLM accuracy | STS-B dev | SQuAD dev")
    assert [line.split(" | ")[0].removeprefix("| ") for line in shown[2:7]] == list(named)
    (routed,) = shown[8:]
    assert routed.startswith(f"- {recurring}: depth ")
    assert all(f"at {count} recursions stsb_dev " in routed for count in (1, 2))
    refused = run(*common, "--minutes", 5)
    assert "minutes is 0.001, and 5.0 was asked for. Use another folder" in refused.stderr
    assert refused.returncode == 1


def test_the_names_of_the_table_are_presets_and_recipes_that_there_are() -> None:
    from embedkit.recipe import load_recipe, preset_names
    from embedkit.training.contrastive.recipe import ContrastiveRecipe
    from embedkit.training.engine.recipes import PretrainRecipe

    listed = run("--list").stdout.splitlines()
    assert len(listed) > 10
    for line in listed:
        before, _, after = line.partition(": ")[2].partition("+")
        preset, *changes = before.split(":")
        assert preset in preset_names()
        load_recipe(PretrainRecipe, preset=preset, overrides=["run.steps=1", *changes])
        parts = after.split(":") if after else []
        recipe = parts.pop(0) if parts and "=" not in parts[0] else None
        load_recipe(ContrastiveRecipe, preset="contrastive", path=recipe, overrides=["run.steps=1", *parts])
