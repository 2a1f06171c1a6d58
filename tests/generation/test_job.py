"""Generating files: the same bytes after a stop, what is written, and what is refused."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from embedkit.data.reading import read_documents
from embedkit.errors import OutputError
from embedkit.generation.generator import Generator
from embedkit.generation.job import (
    WINDOW_TEXTS,
    Form,
    GeneratedFor,
    GenerateOptions,
    generate_to_file,
    lines_of,
)
from embedkit.generation.options import GenerationOptions
from embedkit.generation.outputs import Output
from tests.tiny_generator import write_tiny_generator

COUNT = 2 * WINDOW_TEXTS + 20
SAMPLE = GenerateOptions(
    generation=GenerationOptions(method="sample", num_outputs=2, max_new_tokens=4, seed=3)
)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator.load(write_tiny_generator(tmp_path_factory.mktemp("g") / "model"), device="cpu")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [{"id": f"d{i}", "title": "The dog", "text": f"runs {'a ' * (i % 7)}{i}"} for i in range(COUNT)]
    rows[5] |= {"title": "", "text": " "}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_stopped_job_goes_on_to_the_same_bytes(generator: Generator, texts: Path, tmp_path: Path) -> None:
    def run(output: Path, *, stop: int | None = None) -> None:
        documents = read_documents([str(texts)])
        reports = list(islice(generate_to_file(generator, documents, output, SAMPLE, form="outputs"), stop))
        if stop is None:
            assert reports[-1].done
            assert (reports[-1].texts, reports[-1].empty) == (COUNT, 1)
            assert reports[-1].outputs == 2 * (COUNT - 1)

    run(tmp_path / "whole.jsonl")
    run(tmp_path / "broken.jsonl", stop=2)  # after the first window
    assert not (tmp_path / "broken.jsonl").exists()
    run(tmp_path / "broken.jsonl")
    whole, broken = ((tmp_path / f"{name}.jsonl").read_bytes() for name in ("whole", "broken"))
    assert whole == broken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "whole.jsonl"]
    rows = [json.loads(line) for line in whole.decode().splitlines()]
    assert [row["id"] for row in rows] == [f"d{i}" for i in range(COUNT)]
    assert rows[5]["outputs"] == []
    assert all(set(output) == {"text", "score"} for row in rows for output in row["outputs"])


def test_other_settings_and_texts_do_not_go_on(generator: Generator, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    list(islice(generate_to_file(generator, read_documents([str(texts)]), output, SAMPLE, form="outputs"), 2))
    other = GenerateOptions(generation=GenerationOptions(method="greedy", max_new_tokens=4))
    with pytest.raises(
        OutputError, match=r"begun with options\.generation\.method = 'sample'; now it is 'greedy'"
    ):
        generate_to_file(generator, read_documents([str(texts)]), output, other, form="outputs")
    with pytest.raises(OutputError, match="begun with form = 'outputs'; now it is 'pairs'"):
        generate_to_file(generator, read_documents([str(texts)]), output, SAMPLE, form="pairs")
    changed = tmp_path / "changed.jsonl"
    changed.write_text(texts.read_text(encoding="utf-8").replace("d7", "e7"), encoding="utf-8")
    with pytest.raises(OutputError, match=f"the first {WINDOW_TEXTS} texts are not those it was begun with"):
        list(generate_to_file(generator, read_documents([str(changed)]), output, SAMPLE, form="outputs"))


def test_outputs_are_written_as_asked_for(generator: Generator, texts: Path) -> None:
    document = next(read_documents([str(texts)]))
    outputs = [Output("what\n  is it?", -0.51234, True, False), Output("why?", -1, True, False)]

    def written(form: Form, outputs: list[Output]) -> list[str]:
        return [line.rstrip("\n") for line in lines_of(GeneratedFor(document, outputs), form)]

    assert [json.loads(line) for line in written("outputs", outputs)] == [
        {"id": "d0", "outputs": [{"text": "what\n  is it?", "score": -0.5123}, {"text": "why?", "score": -1}]}
    ]
    pairs = [json.loads(line) for line in written("pairs", outputs)]
    assert pairs[1] == {"query": "why?", "positive": "The dog runs 0", "id": "d0"}
    assert written("lines", outputs) == ["what is it?", "why?"]
    assert (written("pairs", []), written("lines", [])) == ([], [""])


def test_copies_and_repetitions_are_counted_and_left_out_where_asked(
    texts: Path, tmp_path: Path, generator: Generator
) -> None:
    """One output in ten of this model is made to repeat: it draws among two tokens only."""
    few = GenerationOptions(method="sample", num_outputs=8, max_new_tokens=1, top_k=2)
    counts = {}
    for drop in (False, True):
        options = GenerateOptions(generation=few, drop_copies=drop)
        output = tmp_path / f"{drop}.jsonl"
        counts[drop] = list(
            generate_to_file(generator, read_documents([str(texts)]), output, options, form="pairs")
        )[-1]
    assert counts[True].repeated == counts[False].repeated >= 6 * (COUNT - 1)
    assert counts[False].outputs == 8 * (COUNT - 1)
    assert counts[True].outputs == 8 * (COUNT - 1) - counts[True].repeated
    lines = (tmp_path / "True.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == counts[True].outputs


def test_an_ending_that_nothing_is_written_as_is_refused(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the ending is '\.npy'; outputs are written as \.jsonl or \.txt"):
        generate_to_file(generator, iter([]), tmp_path / "o.npy", SAMPLE, form="outputs")
