"""The models that come with the package: their names, where they lie, and what to call a model's folder.

Each is an ordinary checkpoint folder beside this file. Wherever a model folder is taken, one of these names will do.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from embedkit.errors import CheckpointError

ENCODER = "embedkit-small"
TINY = "embedkit-tiny"
STATIC = "embedkit-static"
RERANKER = "embedkit-rerank-small"
SHIPPED = (ENCODER, TINY, STATIC, RERANKER)


def shipped(name: str) -> Path:
    """Return the folder of a shipped model.

    Raises:
        CheckpointError: there is none of this name, or this installation came without its weights.
    """
    if name not in SHIPPED:
        raise CheckpointError(
            f"{name}: no model of this name comes with embedkit; {', '.join(SHIPPED[:-1])} and {SHIPPED[-1]} do"
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


def missing_model(name: str) -> str:
    """Say that a model's folder is not there, and where it may come from."""
    if close := get_close_matches(name, SHIPPED, n=1, cutoff=0.8):
        return f"{name}: there is no such model folder; did you mean {close[0]!r}?"
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return f"{name}: there is no such model folder; check the path"
    if "/" in name.strip("/"):
        return (
            f"{name}: there is no such folder. If it is a name on the Hugging Face hub, fetch it once with: "
            f"embedkit model download {name}"
        )
    return (
        f"{name}: there is no such model folder; check the path. The model of a name on the Hugging Face hub is "
        "fetched once, with: embedkit model download OWNER/NAME"
    )


def model_name(folder: Path) -> str:
    """Return what to call a model: the name of a shipped one, else its path as it was given."""
    return folder.name if _is_shipped(folder) else str(folder)


def lasting_name(folder: Path) -> str:
    """Return what finds the model later, from another place or after a new installation: name or absolute path."""
    return folder.name if _is_shipped(folder) else str(folder.absolute())


def _is_shipped(folder: Path) -> bool:
    return folder.name in SHIPPED and folder.parent == Path(__file__).parent
