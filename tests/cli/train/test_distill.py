"""`embedkit train distill` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.errors import OutputError, RecipeError, RecordError, TrainingError
from embedkit.models import shipped
from embedkit.training.distillation.comparison import weight_bytes
from tests.tiny import write_tiny_model
from tests.training.contrastive_runs import rows_of, write_rows

runner = CliRunner()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "texts.jsonl", rows_of("texts", 80))


def arguments(texts: Path, teacher: Path, output: Path) -> list[str]:
    base = [
        "train",
        "distill",
        str(texts),
        "--teacher",
        str(teacher),
        "--output",
        str(output),
        "--device",
        "cpu",
    ]
    small = [
        "--steps",
        "4",
        "--set",
        "data.batch_size=8",
        "--set",
        "data.max_length=32",
        "--cache",
        str(output.parent / "cache"),
    ]
    return [*base, *small]


def test_a_student_is_made_and_held_against_its_teacher(
    texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    dev = write_rows(tmp_path / "dev.jsonl", rows_of("scored", 20))
    command = [*arguments(texts, tiny_model, tmp_path / "out"), "--layers", "1", "--evaluate", str(dev)]
    result = runner.invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.exception
    assert "80 texts from 1 input" in result.stderr
    assert "student: layers 1 of 2" in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0]["steps"] == 4
    measures = {line["measure"]: line for line in lines[1:]}
    assert measures["weights, MB"]["student"] < measures["weights, MB"]["teacher"]
    assert f"{tmp_path.name}/dev spearman" in measures
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| cosine to the teacher, held-out texts | 1.0000 |" in card
    again = runner.invoke(app, [*command, "--resume", "--json"])
    assert again.exit_code == 0, again.exception
    assert isinstance(runner.invoke(app, command).exception, OutputError)


def test_a_shipped_teacher_is_weighed_and_cut_texts_are_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name is no folder here. All texts are longer than what teacher and student are told to read."""
    long = [{"text": f"the dog {'sleeps in the water ' * 20}{number}"} for number in range(40)]
    path = write_rows(tmp_path / "long.jsonl", long)
    command = [*arguments(path, Path("embedkit-small"), tmp_path / "out"), "--layers", "0", "--steps", "1"]
    result = runner.invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.exception
    measures = {line["measure"]: line for line in map(json.loads, result.stdout.splitlines()[1:])}
    assert measures["weights, MB"]["teacher"] == weight_bytes(shipped("embedkit-small")) / 1e6 > 20
    assert "texts were cut" not in caplog.text
    assert "nan" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_static_student_is_encoded_and_indexed_like_any_other_model(
    texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    student = tmp_path / "static"
    made = runner.invoke(
        app, [*arguments(texts, tiny_model, student), "--static", "--dimension", "8", "--quiet"]
    )
    assert made.exit_code == 0, made.exception
    assert Encoder.load(student, device="cpu").encode(["the dog"]).shape == (1, 8)
    index = tmp_path / "texts.index"
    built = runner.invoke(
        app, ["index", "build", str(texts), "--model", str(student), "--index", str(index), "--device", "cpu"]
    )
    assert built.exit_code == 0, built.exception
    text = json.loads(texts.read_text(encoding="utf-8").splitlines()[3])["text"]
    found = runner.invoke(app, ["search", str(index), text, "--device", "cpu", "--json"])
    assert found.exit_code == 0, found.exception
    assert text in found.stdout.splitlines()[0]
    info = runner.invoke(app, ["model", "info", str(student)])
    assert info.exit_code == 0, info.exception
    shown = json.loads(info.stdout)
    assert (shown["family"], shown["dimension"]) == ("static", 8)
    assert "layers" not in shown
    np.testing.assert_allclose(np.linalg.norm(Encoder.load(student).encode(["the dog"])), 1, atol=1e-6)


def test_a_text_without_tokens_is_learned_beside_the_others(
    texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A static student has no vector for it but zeros: nothing of the others becomes NaN by it."""
    with texts.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"text": "\u200b"}) + "\n")
    made = runner.invoke(app, [*arguments(texts, tiny_model, tmp_path / "static"), "--static", "--quiet"])
    assert made.exit_code == 0, made.exception
    vectors = Encoder.load(tmp_path / "static", device="cpu").encode(["the dog", "\u200b"], on_truncate="ok")
    assert np.isfinite(vectors).all()
    assert vectors.any(axis=1).tolist() == [True, False]


def test_a_student_of_a_teacher_with_fewer_dimensions_is_cut_as_its_teacher_is(
    texts: Path, tmp_path: Path
) -> None:
    teacher = write_tiny_model(tmp_path / "teacher", truncate_dim=8)
    for name, options, dimension in (
        ("a", ["--layers", "1"], 8),
        ("b", ["--layers", "1", "--dimension", "12"], 12),
    ):
        made = runner.invoke(app, [*arguments(texts, teacher, tmp_path / name), *options, "--quiet"])
        assert made.exit_code == 0, made.exception
        assert Encoder.load(tmp_path / name, device="cpu").dimension == dimension


def test_tables_without_a_header_are_read_with_any_separator(tiny_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("".join(f"the dog {n}^the cat {n}\n" for n in range(12)), encoding="utf-8")
    command = [*arguments(table, tiny_model, tmp_path / "out"), "--layers", "1", "--dry-run"]
    result = runner.invoke(app, [*command, "--no-header", "--delimiter", "^"])
    assert result.exit_code == 0, result.exception
    assert "24 texts from 1 input" in result.stderr


def test_a_pipe_is_refused_for_a_run_that_can_be_resumed(tiny_model: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, arguments(Path("-"), tiny_model, tmp_path / "out"), input="a text")
    assert isinstance(result.exception, RecordError)
    assert "the rows come from a pipe" in str(result.exception)


def test_wrong_settings_are_told(texts: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = arguments(texts, tiny_model, tmp_path / "out")
    both = runner.invoke(app, [*command, "--static", "--layers", "1"])
    assert isinstance(both.exception, RecipeError)
    assert "layers are (1,); a static student has none" in str(both.exception)
    layer = runner.invoke(app, [*command, "--layers", "7"])
    assert isinstance(layer.exception, TrainingError)
    assert "names layer 7; the teacher has 2 layers" in str(layer.exception)
    assert not (tmp_path / "out").exists()
