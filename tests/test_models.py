"""The models that come with the package, and the names that stand for them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.models import (
    ENCODER,
    RERANKER,
    SHIPPED,
    STATIC,
    TINY,
    find_model,
    lasting_name,
    missing_model,
    model_name,
    shipped,
)

ROOT = Path(__file__).resolve().parent.parent


def test_a_folder_is_itself_and_goes_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert find_model("mine") == Path("mine")
    assert find_model(tmp_path / "mine") == tmp_path / "mine"
    assert model_name(Path("mine")) == "mine"
    assert lasting_name(Path("mine")) == str(tmp_path / "mine")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_models_folder_goes_by_its_name_wherever_it_lies(name: str) -> None:
    folder = ROOT / "embedkit" / "models" / name
    assert model_name(folder) == lasting_name(folder) == name
    elsewhere = Path("/somewhere") / name
    assert model_name(elsewhere) == lasting_name(elsewhere) == str(elsewhere)


def test_a_name_that_is_also_a_folder_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ENCODER).mkdir()
    with pytest.raises(
        CheckpointError, match="both a model that comes with embedkit and a folder here"
    ) as info:
        find_model(ENCODER)
    assert f"For the folder write {tmp_path / ENCODER}," in str(info.value)
    assert find_model(tmp_path / ENCODER) == tmp_path / ENCODER


def test_an_unknown_name_is_told_those_there_are() -> None:
    with pytest.raises(CheckpointError, match="big: no model of this name comes with embedkit") as info:
        shipped("big")
    assert f"{ENCODER}, {TINY}, {STATIC} and {RERANKER} do" in str(info.value)


def test_an_installation_without_the_weights_says_so(tmp_path: Path) -> None:
    package = tmp_path / "embedkit"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "embedkit" / "errors.py", package)
    shutil.copy(ROOT / "embedkit" / "models" / "__init__.py", package / "models")
    program = f"from embedkit.models import find_model; find_model({ENCODER!r})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (
        f"{ENCODER}: this model comes with embedkit, but not with this installation ({package / 'models' / ENCODER} "
        "is not there). Install embedkit from its wheel, or name a model folder"
    ) in done.stderr


@pytest.mark.parametrize("name", [ENCODER, TINY, STATIC])
def test_a_shipped_encoder_loads_by_name_and_knows_what_is_alike(name: str) -> None:
    encoder = Encoder.load(name, device="cpu")
    assert encoder.folder.path == shipped(name)
    assert encoder.folder.name == name
    vectors = encoder.encode(
        ["How do I make bread?", "a recipe for baking a loaf", "the orbit of the planet Mars"]
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2


def test_the_shipped_reranker_loads_by_name_and_knows_the_answer(shipped_reranker: Path) -> None:
    from embedkit.reranking.cross_encoder import CrossEncoder

    model = CrossEncoder.load(RERANKER, device="cpu")
    assert model.folder.path == shipped_reranker
    answer, other = model.score(
        "What is the capital of France?",
        ["Paris is the capital and largest city of France.", "The tiger is the largest living cat species."],
    )
    assert answer > other


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("embedkit-smal", "did you mean 'embedkit-small'?"),
        ("all-MiniLM-L6-v2", "fetched once, with: embedkit model download OWNER/NAME"),
        ("owner/name", "fetch it once with: embedkit model download owner/name"),
        ("./mine", "check the path"),
        ("a/b/c", "check the path"),
    ],
)
def test_a_model_that_is_not_there_is_told_where_it_may_come_from(name: str, advice: str) -> None:
    assert missing_model(name).startswith(f"{name}: there is no such ")
    assert missing_model(name).endswith(advice)
    with pytest.raises(CheckpointError, match=re.escape(missing_model(name))):
        read_model_folder(name)
