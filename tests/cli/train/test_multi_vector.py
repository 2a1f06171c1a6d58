"""`embedkit train contrastive --recipe multi-vector`: a dense folder in, a multi-vector folder out."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app
from embedkit.checkpoint.multi_vector import read_multi_vector_folder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from tests.tiny_multi_vector import ON_CPU
from tests.training.contrastive_runs import rows_of, write_rows


def test_the_preset_makes_a_multi_vector_model_of_an_encoder(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    words = ["train", "contrastive", str(rows), "--recipe", "multi-vector", "--model", str(tiny_model)]
    words += ["--lora-rank", "2"]  # is merged in the end
    words += ["--output", str(tmp_path / "run"), "--steps", "2", "--batch-size", "8", "--device", "cpu"]
    words += ["--set", "data.held_out=0.2", "--set", "run.precision=fp32", "--json"]
    words += ["--set", "multi_vector.query_marker=which", "--set", "multi_vector.document_marker=that"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "-> info_nce" in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["steps"] == 2
    read = read_multi_vector_folder(tmp_path / "run")
    assert (read.dimension, read.tokenizer("query").max_length) == (128, 32)
    found = MultiVectorEncoder.load(tmp_path / "run", computing=ON_CPU).encode_queries(["the dog"])
    assert found.vectors.shape == (32, 128)
