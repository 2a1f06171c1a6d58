"""What the values of configuration files are to the options: the same as words of a command line would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedkit.models import RERANKER, SHIPPED
from embedkit.pipelines.models import MAXSIM

from .config_files import Origin
from .config_keys import MODELS


def taken_value(
    key: str, value: Any, option: Any, beside: Path, origin: Origin
) -> Any:  # Any: TOML, click's option
    """Return a value as the command line would have it; `beside` is the folder of the file.

    Raises:
        ValueError: an option takes no such value.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"is {value!r}; it must be true or false")
        return value
    several = value if isinstance(value, list) and option.multiple else [value]
    words = [model_value(key, each, beside, origin) if key in MODELS else _word(each) for each in several]
    return words if option.multiple else words[0]


def _word(value: Any) -> str:  # Any: TOML
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is {value!r}; it must be a text or a number")
    return str(value)


def model_value(key: str, value: Any, beside: Path, origin: Origin) -> str | None:  # Any: TOML
    """Return a model's name or folder, which is looked for beside the file; `rerank` may be true or false.

    Raises:
        ValueError: it is none, or in a project's file lies elsewhere.
    """
    if isinstance(value, bool) and key == "rerank":
        return RERANKER if value else None
    word = _word(value)
    if word in SHIPPED or (word == MAXSIM and key == "rerank"):
        return word
    folder = (beside / Path(word).expanduser()).resolve()
    if not folder.is_dir():
        raise ValueError(f"is {word!r}; it must be a model's folder, or one of {', '.join(SHIPPED)}")
    if origin == "project" and not folder.is_relative_to(beside.resolve()):
        raise ValueError(
            f"is {word!r}; a project's file may name a folder of the project, or a shipped model"
        )
    return str(folder)
