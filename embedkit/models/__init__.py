"""The models that come with the package: their names, where they lie, and what to call a model's folder.

Each is an ordinary checkpoint folder beside this file. Wherever a model folder is taken, one of these names will do.
"""

from __future__ import annotations

from pathlib import Path

from embedkit.errors import CheckpointError

ENCODER = "embedkit-small"
RERANKER = "embedkit-rerank-small"
SHIPPED = (ENCODER, RERANKER)


def shipped(name: str) -> Path:
    """Return the folder of a shipped model.

    Raises:
        CheckpointError: there is none of this name, or this installation came without its weights.
    """
    if name not in SHIPPED:
        raise CheckpointError(
            f"{name}: no model of this name comes with embedkit; {' and '.join(SHIPPED)} do"
        )
    folder = Path(__file__).parent / name
    if not folder.is_dir():
        raise CheckpointError(
            f"{name}: this model comes with embedkit, but not with this installation ({folder} is not there). "
            "Install embedkit from its wheel, or name a model folder"
        )
    return folder


def find_model(model: str | Path) -> Path:
    """Return the folder of a model that is named by its folder or, if it is a shipped one, by its name.

    Raises:
        CheckpointError: a shipped model's name is also a folder here, or its weights are not installed.
    """
    name = str(model)
    if name not in SHIPPED:
        return Path(model)
    here = Path(name)
    if here.exists():
        raise CheckpointError(
            f"{name}: both a model that comes with embedkit and a folder here. "
            f"For the folder write {here.absolute()}, for the other run the command from elsewhere"
        )
    return shipped(name)


def model_name(folder: Path) -> str:
    """Return what to call a model: the name of a shipped one, else its path as it was given."""
    return folder.name if _is_shipped(folder) else str(folder)


def lasting_name(folder: Path) -> str:
    """Return what finds the model later, from another place or after a new installation: name or absolute path."""
    return folder.name if _is_shipped(folder) else str(folder.absolute())


def _is_shipped(folder: Path) -> bool:
    return folder.name in SHIPPED and folder.parent == Path(__file__).parent
