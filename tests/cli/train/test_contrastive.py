"""`embedkit train contrastive` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, OutputError, RecipeError, RecordError
from tests.training.contrastive_runs import rows_of, write_rows

runner = CliRunner()
SMALL = ("--steps", "4", "--batch-size", "8", "--set", "data.held_out=0.1", "--device", "cpu")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", rows_of("pairs"))


def test_a_run_says_what_it_does_and_ends_with_a_model_and_its_card(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    scored = write_rows(tmp_path / "scored.jsonl", rows_of("scored"))
    dev = write_rows(tmp_path / "dev.jsonl", rows_of("scored", 20))
    command = [
        "train",
        "contrastive",
        str(pairs),
        str(scored),
        "-m",
        str(tiny_model),
        "-o",
        str(tmp_path / "out"),
    ]
    result = runner.invoke(
        app, [*command, *SMALL, "--evaluate", str(dev), "--json", "--query-prompt", "query: "]
    )
    assert result.exit_code == 0, result.exception
    assert (
        "60 pairs (first = 'query', second = 'positive') -> info_nce; pairs: each positive is to stand out"
        in result.stderr
    )
    assert "60 scored (first = 'sentence1', second = 'sentence2', score = 'score') -> cosent" in result.stderr
    assert "50% of the steps; 6 rows held out" in result.stderr
    assert "warning: " in result.stderr
    assert "are in the training data too" in result.stderr
    summary = json.loads(result.stdout)
    assert summary["steps"] == 4
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| {tmp_path.name}/dev spearman |" in card
    assert '"batch_size": 8' in card
    assert Encoder.load(tmp_path / "out", device="cpu").folder.modules.prompts["query"] == "query: "


def test_resume_goes_on_and_a_used_folder_is_refused(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = ["train", "contrastive", str(pairs), "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    assert runner.invoke(app, [*command, "--json"]).exit_code == 0
    again = runner.invoke(app, command)
    assert isinstance(again.exception, OutputError)
    assert "Go on with it by --resume" in str(again.exception)
    resumed = runner.invoke(app, [*command, "--resume", "--json"])
    assert resumed.exit_code == 0, resumed.exception
    assert json.loads(resumed.stdout)["steps"] == 4


def test_lists_of_positives_and_tables_without_a_header_are_training_data(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    given = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    lists = write_rows(
        tmp_path / "lists.jsonl",
        [
            {"query": row["query"], "pos": [row["positive"]], "neg": [other["positive"]]}
            for row, other in zip(given, [*given[1:], given[0]], strict=True)
        ],
    )
    table = tmp_path / "table.tsv"
    table.write_text("".join(f"{row['query']}\t{row['positive']}\n" for row in given), encoding="utf-8")
    command = ["train", "contrastive", "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    command += ["--steps", "8", "--dry-run"]
    result = runner.invoke(app, [*command, str(lists)])
    assert result.exit_code == 0, result.exception
    assert "60 triplets" in result.stderr
    result = runner.invoke(app, [*command, str(table), "--no-header"])
    assert result.exit_code == 0, result.exception
    assert "60 pairs (first = '1', second = '2')" in result.stderr


def test_dry_run_writes_nothing(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = ["train", "contrastive", str(pairs), "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    result = runner.invoke(app, [*command, "--set", "run.steps=8", "--dry-run", "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["steps"] == 8
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("--loss", "info_ncee"),
            RecipeError,
            "loss.name is 'info_ncee'; it must be one of info_nce, triplet",
        ),
        (
            ("--loss", "cosent"),
            RecordError,
            "they make pairs rows; loss 'cosent' needs first + second + score",
        ),
        (
            ("--set", "run.accumulate=2"),
            RecipeError,
            "run.accumulate is 2; batches are cut into parts by data.micro_tokens",
        ),
        (
            ("--set", "run.strategy=fsdp"),
            RecipeError,
            "run.strategy is 'fsdp'; sentence encoders are trained with 'ddp'",
        ),
        (("--set", "loss.temperature=0"), RecipeError, "temperature is 0.0; it must be above 0"),
        (("--set", "loss.false_negatives=guide"), RecipeError, "go together; set both or neither"),
        (
            ("--set", "loss.score_range=[5,0]"),
            RecipeError,
            "score_range is [5.0, 0.0]; it must be [lowest, highest]",
        ),
        (("--matryoshka", "8,8"), RecipeError, "matryoshka is [8, 8]; it must name distinct dimensions"),
        (
            ("--patience", "2", "--set", "data.mixing=-1"),
            RecipeError,
            "mixing is -1.0; it must be at least 0",
        ),
        (("--evaluate", "nowhere.tsv"), RecordError, "nowhere.tsv: there is no such file or folder"),
        (("--model", "nowhere"), CheckpointError, "there is no such model folder"),
    ],
)
def test_wrong_settings_are_told(
    pairs: Path,
    tiny_model: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    error: type[Exception],
    message: str,
) -> None:
    command = ["train", "contrastive", str(pairs), "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    result = runner.invoke(app, [*command, *arguments])
    assert isinstance(result.exception, error), result.exception
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
