"""Loading a model draws no first weights, which its file replaces: torch would import its compiler for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.generation import read_generator_folder
from embedkit.checkpoint.generation_weights import load_generator
from embedkit.checkpoint.unfilled import unfilled
from embedkit.checkpoint.weights import load_sentence_encoder
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.tiny_generator import write_tiny_generator


class SeenOperations(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Notes all operations of torch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,  # Any: an operation, with what it takes and gives
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.seen.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["encoder", "cross-encoder", "generator"])
def test_nothing_is_drawn_where_a_model_is_loaded(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    with SeenOperations() as noted:
        nn.Linear(2, 2)
    assert "aten.uniform_" in noted.seen  # as it would be seen
    if kind == "cross-encoder":
        write_tiny_cross_encoder(tmp_path / "model")
    elif kind == "generator":
        write_tiny_generator(tmp_path / "model")
    module: nn.Module
    with SeenOperations() as noted:
        if kind == "encoder":
            module = load_sentence_encoder(read_model_folder(tiny_model))
        elif kind == "cross-encoder":
            module = load_classifier(read_classifier_folder(tmp_path / "model"))
        else:
            module = load_generator(read_generator_folder(tmp_path / "model"))
    assert not noted.seen & {"aten.uniform_", "aten.normal_"}
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())


def test_modules_without_weights_have_their_shapes_and_torch_draws_again_behind() -> None:
    with unfilled():
        layer, table = nn.Linear(3, 2), nn.Embedding(5, 4)
    assert (layer.weight.shape, table.weight.shape) == ((2, 3), (5, 4))
    assert {each.device.type for each in (layer.weight, layer.bias, table.weight)} == {"meta"}
    assert bool(nn.init.normal_(torch.zeros(3)).any())
