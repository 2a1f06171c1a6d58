"""`embedkit model export` and `--backend onnx`: what is written, said and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.bench import Encodings, _measure_encoding
from cli.main import app
from embedkit.errors import DeviceError, MissingExtraError
from embedkit.extras import EXTRAS, has_extra

if not (
    has_extra("onnx") and has_extra("onnxruntime")
):  # not imported here: only our own modules keep them from calling home
    pytest.skip("the extra 'onnx' is not installed", allow_module_level=True)


def run(*arguments: object) -> Any:  # Any: click's result, whose module is not to be imported
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_export_tells_the_file_and_how_near_its_vectors_are(tiny_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    result = run("model", "export", tiny_model, "--format", "onnx", "-o", target, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    content = json.loads(result.stdout)
    assert content["file"] == str(target / "model.onnx")
    assert content["bytes"] == (target / "model.onnx").stat().st_size
    assert content["texts"] == 9
    assert content["largest_difference"] < 1e-5
    assert content["lowest_cosine"] == pytest.approx(1, abs=1e-6)


def test_export_wants_to_know_for_what(tiny_model: Path, tmp_path: Path) -> None:
    result = run("model", "export", tiny_model, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--format" in result.output


def test_encode_and_index_build_compute_with_the_backend_that_is_named(
    tiny_model: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("the dog runs\na boy\nthe red horse sings and eats\n", encoding="utf-8")
    for name in ("onnx", "torch"):
        done = run(
            "encode", texts, "-m", tiny_model, "-o", tmp_path / f"{name}.npy", "--backend", name, "--json"
        )
        assert done.exit_code == 0, (done.output, done.exception)
        assert json.loads(done.stdout)["backend"] == name
    onnx, torch = (np.load(tmp_path / f"{name}.npy") for name in ("onnx", "torch"))
    np.testing.assert_allclose(onnx, torch, atol=1e-5)
    built = run("index", "build", texts, "-m", tiny_model, "-i", tmp_path / "i.index", "--backend", "onnx")
    assert built.exit_code == 0, (built.output, built.exception)


def test_an_index_is_not_built_with_a_backend_that_is_missing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, "onnxruntime", "no_such_package")
    texts = tmp_path / "t.txt"
    texts.write_text("a boy\n", encoding="utf-8")
    built = run("index", "build", texts, "-m", tiny_model, "-i", tmp_path / "i.index", "--backend", "onnx")
    assert isinstance(built.exception, MissingExtraError)
    assert not (tmp_path / "i.index").exists()


def test_bench_shows_backends_side_by_side_and_names_what_it_leaves_out(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Encodings(
        precision=["fp32", "int8"],
        backend=["torch", "onnx"],
        device="cpu",
        length=[8],
        batch=[1],
        seconds=0.0,
    )
    measured, _ = _measure_encoding(tiny_model, wanted)
    assert [(each.backend, each.precision) for each in measured] == [("torch", "fp32"), ("onnx", "fp32")]
    assert all(each.cosine == pytest.approx(1, abs=1e-6) for each in measured)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" here: ")[0] for line in said] == [
        "left out: the torch backend does not compute this model in int8",
        "left out: the onnx backend does not compute this model in int8",
    ]
    with pytest.raises(DeviceError, match="the onnx backend does not compute this model in int8"):
        _measure_encoding(tiny_model, replace(wanted, precision=["int8"], backend=["onnx"]))
