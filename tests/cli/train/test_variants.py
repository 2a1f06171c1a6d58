"""From texts to a search with a variant of everything, by the commands of the manual."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from cli.main import app
from embedkit.errors import RecipeError, TrainingError
from tests.training.contrastive_runs import rows_of, write_rows
from tests.training.corpora import TINY, make_tokenizer, write_texts

SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def failed(*arguments: object) -> BaseException:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is not None
    return result.exception


def test_a_variant_is_pretrained_fine_tuned_indexed_and_searched(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.jsonl")
    (tmp_path / "tokenizer").mkdir()
    make_tokenizer(texts).save(tmp_path / "tokenizer")
    encoder, sentences, index = (tmp_path / name for name in ("encoder", "sentences", "index"))
    common = ("--device", "cpu", "--quiet", "--json")
    mlm = ("train", "mlm", texts, "--tokenizer", tmp_path / "tokenizer", "--cache", tmp_path / "cache")
    # A small --set lies over the preset, whose own pieces stay.
    made = json.loads(run(*mlm, "--preset", "mini-relative", "--steps", 4, *SETTINGS, "-o", encoder, *common))
    assert made["steps"] == 4
    info = json.loads(run("model", "info", encoder, "--json"))
    assert (info["family"], info["position"], info["layers"]) == ("embedkit", "relative", 2)
    assert len(run("fill-mask", "the cat sees the [MASK]", "--model", encoder, "--json").splitlines()) > 0
    pairs = write_rows(tmp_path / "pairs.jsonl", rows_of("pairs"))
    contrastive = ("train", "contrastive", pairs, "--model", encoder, "--recipe", "structured")
    small = ("--batch-size", 8, "--steps", 3, "--set", "data.held_out=0.1", "--set", "data.max_length=24")
    heads = ("--set", "head.size=8", "--set", "loss.head_diversity=0.1", "--set", "loss.similarity=bilinear")
    run(*contrastive, *small, *heads, "-o", sentences, *common)
    info = json.loads(run("model", "info", sentences, "--json"))
    assert info["pooling"] == "attention (4 aspects of 8, concat)"
    assert (info["similarity"], info["dimension"]) == ("bilinear", 32)
    run("index", "build", texts, "--index", index, "--model", sentences, "--quiet")
    hits = run("search", index, "the dog in the garden", "--top-k", 3, "--json").splitlines()
    assert len(hits) == 3
    vectors = run("encode", texts, "--output", tmp_path / "vectors.npy", "--model", sentences, "--json")
    assert json.loads(vectors)["dimension"] == 32


def test_what_does_not_fit_is_said_before_anything_is_made(tiny_model: Path, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", rows_of("alike"))
    command = ("train", "contrastive", pairs, "--model", tiny_model, "-o", tmp_path / "out", "--steps", 1)
    error = failed(*command, "--set", "loss.similarity=additive")
    assert isinstance(error, TrainingError)
    assert (
        "compares by cosine, and the model's similarity is additive. Take a loss that compares by any"
        in str(error)
    )
    error = failed(
        "train", "mlm", pairs, "--tokenizer", tmp_path, "-o", tmp_path / "out", "--preset", "mini-moon"
    )
    assert isinstance(error, RecipeError)
    assert "there is no preset 'mini-moon'; did you mean mini" in str(error)
    assert not (tmp_path / "out").exists()
