"""What commands say of the precision that they chose, and that a search by one query starts without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.shared import models
from embedkit.inference.choice import Choice, PrecisionFinding
from tests.conftest import needs_half_precision
from tests.tiny import tiny_config, write_tiny_model

RUNNER = CliRunner()
FINDINGS = (
    PrecisionFinding("fp32", 1.0, 1.0, 100.0),
    PrecisionFinding("bf16", 0.99998, 0.9999, 250.0),
    PrecisionFinding("int8", 0.99712, 0.99234, 500.0),
)


@pytest.mark.parametrize(
    ("precision", "findings", "note"),
    [
        ("bf16", FINDINGS, "precision bf16: 2.5 × as fast as fp32, cosine to it 0.99998, at worst 0.99990 "),
        ("int8", FINDINGS, "precision int8: 5.0 × as fast as fp32, cosine to it 0.99712, at worst 0.99234 "),
        ("fp32", FINDINGS, "precision fp32: int8 would be 5.0 × as fast at a mean cosine of 0.99712 "),
        ("fp32", FINDINGS[:1], "precision fp32: the fastest here "),
        ("fp32", (), ""),
    ],
)
def test_note_says_what_was_measured(
    precision: str,
    findings: tuple[PrecisionFinding, ...],
    note: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice = Choice("native", "cpu", precision, "", findings, fresh=bool(findings))  # type: ignore[arg-type] # of the names
    models.say_choice(choice)
    assert capsys.readouterr().err == (note + "(measured on sample texts)\n" if note else "")
    monkeypatch.setattr("cli.shared.console._Talk.quiet", True)
    models.say_choice(choice)
    models.say_choice(None)
    assert capsys.readouterr().err == ""


def test_what_was_measured_before_is_said_with_verbose_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Choice("native", "cpu", "bf16", "", FINDINGS[:2], unmeasured=("fp16", "int8"))
    models.say_choice(known)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("cli.shared.console._Talk.verbose", True)
    models.say_choice(known)
    models.say_choice(Choice("torch", "cpu", "fp32", "not native: why"), what="reranker")
    assert capsys.readouterr().err == (
        "precision bf16: 2.5 × as fast as fp32, cosine to it 0.99998, at worst 0.99990 (measured on sample texts); "
        "there was no time to measure fp16 and int8; native computes on cpu\n"
        "reranker precision fp32; torch computes on cpu (not native: why)\n"
    )


def test_summary_in_json_says_what_was_measured() -> None:
    assert models.choice_as_json(Choice("native", "cpu", "int8", "", FINDINGS)) == {
        "backend": "native",
        "device": "cpu",
        "precision": "int8",
        "cosine_to_fp32": 0.99712,
        "worst_cosine_to_fp32": 0.99234,
        "precision_reason": "5.0 × as fast as fp32, cosine to it 0.99712, at worst 0.99234 (measured on sample texts)",
    }
    assert (
        models.choice_as_json(Choice("torch", "cpu", "fp32", "not native: …"))["backend_reason"]
        == "not native: …"
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("the dog runs\na red horse\na boy sings a song\n", encoding="utf-8")
    return path


@needs_half_precision
def test_auto_is_the_default_and_is_measured_once(
    texts: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDKIT_PRECISION")
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    summaries = []
    for name, said in (("a.npy", 1), ("b.npy", 0)):
        result = RUNNER.invoke(
            app, ["encode", str(texts), "-m", str(tiny_model), "-o", str(tmp_path / name), "--json"]
        )
        assert result.exit_code == 0, result.output
        assert result.stderr.count("(measured on sample texts)") == said
        summary = json.loads(result.stdout)
        assert 0.9999 <= summary["cosine_to_fp32"] <= 1.0001
        assert "(measured on sample texts)" in summary["precision_reason"]
        summaries.append((summary["backend"], summary["precision"], summary["cosine_to_fp32"]))
    assert summaries[0] == summaries[1]
    assert len(list((tmp_path / "cache" / "precision").iterdir())) == 1


def test_int8_without_kernels_for_the_model_is_refused_with_the_reason(
    texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from cli.main import run; run()",
            "encode",
            texts,
            "-m",
            tiny_model,
            "--precision",
            "int8",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: precision 'int8' is computed by the native backend alone, and not here: "
    )
    assert done.stderr.endswith(". Use --precision auto, fp32 or bf16\n")


def test_a_search_by_one_query_loads_no_torch_nor_anything_else_that_is_slow(
    texts: Path, tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "m", config=tiny_config(num_attention_heads=2))
    index = tmp_path / "i"
    result = RUNNER.invoke(
        app, ["index", "build", str(texts), "-i", str(index), "-m", str(model), "--text-unit", "line"]
    )
    assert result.exit_code == 0, result.output
    program = (
        "import sys\n"
        "from cli.main import run\n"
        f"sys.argv = ['embedkit', 'search', {str(index)!r}, 'the dog runs', '-k', '1', '--json']\n"
        "try: run()\n"
        "except SystemExit as exc: assert not exc.code, exc.code\n"
        "heavy = {'torch', 'faiss', 'transformers', 'rich', 'cli.index'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "the dog runs"
