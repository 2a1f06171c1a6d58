"""`embedkit train contrastive` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from cli.train import view
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, OutputError, RecipeError, RecordError
from embedkit.training.engine.run_folder import RunFolder
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
    # The sets decide what is best, and their mean, turned round, is no loss.
    assert summary["loss"] == summary["held_out_loss"] > 0
    assert "held out  loss " in result.stderr
    assert "loss -" not in result.stderr
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| {tmp_path.name}/dev spearman |" in card
    assert f"| loss | {summary['loss']:.4f} |" in card
    assert "held_out_loss" not in card
    assert '"batch_size": 8' in card
    assert Encoder.load(tmp_path / "out", device="cpu").folder.modules.prompts["query"] == "query: "


def test_texts_in_a_script_that_the_vocabulary_lacks_are_warned_of(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Nothing can be learned of what is all unknown."""
    foreign = [{"query": f"東京 {i}", "positive": f"日本 の 首都 {i}"} for i in range(40)]
    other = write_rows(tmp_path / "jp.jsonl", foreign)
    command = ["train", "contrastive", str(pairs), str(other), "-m", str(tiny_model), "-o"]
    result = runner.invoke(app, [*command, str(tmp_path / "out"), *SMALL])
    assert result.exit_code == 0, result.exception
    [warned] = [line for line in result.stderr.splitlines() if "unknown to the vocabulary" in line]
    assert "of the tokens of the texts of " in warned
    assert "jp.jsonl" in warned


def test_resume_goes_on_and_a_used_folder_is_refused(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = ["train", "contrastive", str(pairs), "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    first = runner.invoke(app, [*command, "--json"])
    assert first.exit_code == 0, first.exception
    again = runner.invoke(app, command)
    assert isinstance(again.exception, OutputError)
    assert "Go on with it by --resume" in str(again.exception)
    resumed = runner.invoke(app, [*command, "--resume", "--json"])
    assert resumed.exit_code == 0, resumed.exception
    # The summary is that of the whole run, whichever call made its steps.
    assert json.loads(resumed.stdout) == json.loads(first.stdout)
    assert json.loads(resumed.stdout)["tokens"] > 0
    assert "the run ended after step 4; its model is written again" in resumed.stderr


def test_options_reach_the_recipe_as_they_were_typed(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A prompt that is TOML, quotes and all, stays text; dimensions become numbers."""
    command = ["train", "contrastive", str(pairs), "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    prompts = ["--query-prompt", "true", "--document-prompt", '"a" = [1]: ']
    result = runner.invoke(app, [*command, *prompts, "--matryoshka", "8, 16,", "--json"])
    assert result.exit_code == 0, result.exception
    recipe = json.loads((tmp_path / "out" / "training" / "run.json").read_text(encoding="utf-8"))["recipe"]
    assert recipe["prompts"] == {"first": "true", "second": '"a" = [1]: '}
    assert recipe["loss"]["matryoshka"] == [8, 16]


def test_interrupted_before_the_first_step_it_says_how_to_start_again(
    pairs: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["embedkit", "train", "contrastive", "my pairs.jsonl"])
    with pytest.raises(typer.Exit) as stopped, view.Running(output=output, device="cpu").ranks():
        raise KeyboardInterrupt
    assert stopped.value.exit_code == 130
    said = "interrupted before the first step; start again with:\n  embedkit train contrastive 'my pairs.jsonl'\n"
    assert capsys.readouterr().err == said
    RunFolder(output).begin({})
    with pytest.raises(typer.Exit), view.Running(output=output, device="cpu", resume=True).ranks():
        raise KeyboardInterrupt
    said = "interrupted; resume with:\n  embedkit train contrastive 'my pairs.jsonl' --resume\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(typer.Exit), view.Running(output=output, device="cpu", resume=True).ranks():
        raise KeyboardInterrupt
    assert "  torchrun --nproc-per-node 2 $(which embedkit) train contrastive " in capsys.readouterr().err


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


@pytest.mark.parametrize("steps", [2, 8])  # the estimate makes more steps than the shorter run
def test_dry_run_writes_nothing(steps: int, pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    command = ["train", "contrastive", str(pairs), "-m", str(tiny_model), "-o", str(tmp_path / "out"), *SMALL]
    result = runner.invoke(app, [*command, "--set", f"run.steps={steps}", "--dry-run", "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["steps"] == steps
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
        (("--matryoshka", "8,x"), RecipeError, "loss.matryoshka[1] is 'x'; it must be a whole number"),
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


def test_fields_of_documents_get_experts(tiny_model: Path, tmp_path: Path) -> None:
    rows = [
        {"query": f"the dog {n}", "title": f"a dog {n}" if n % 3 else "", "abstract": f"he runs {n}"}
        for n in range(40)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    output = tmp_path / "run"
    command = ["train", "contrastive", str(path), "-m", str(tiny_model), "-o", str(output), *SMALL]
    result = runner.invoke(app, [*command, "--fields", "title, abstract"])
    assert result.exit_code == 0, result.exception
    assert "'title + abstract', with 40 documents: title in 26, abstract in 40) -> info_nce" in result.stderr
    shown = runner.invoke(app, ["model", "info", str(output), "--json"])
    assert json.loads(shown.stdout)["fields"] == ["title", "abstract"]
    command[command.index(str(output))] = str(tmp_path / "no")
    wrong = runner.invoke(app, [*command, "--fields", "title,title"])
    assert isinstance(wrong.exception, RecipeError)
    assert "'title' stands there twice" in str(wrong.exception)
    assert not (tmp_path / "no").exists()
