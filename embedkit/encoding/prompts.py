"""What is put before a text: a model's prompts, by name and by role."""

from __future__ import annotations

from pathlib import Path

from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.errors import CheckpointError
from embedkit.types import TextRole


def named_prompt(modules: SentenceModules, path: Path, name: str | None) -> str:
    """Return the model's prompt of that name; None is the model's default prompt.

    Raises:
        CheckpointError: the model, whose folder is `path`, has no such prompt.
    """
    name = name if name is not None else modules.default_prompt_name
    if name is None:
        return ""
    if name not in modules.prompts:
        known = ", ".join(sorted(modules.prompts)) or "none"
        raise CheckpointError(f"{path}: no prompt named {name!r}; it has: {known}. Give the text itself")
    return modules.prompts[name]


def role_prompt(modules: SentenceModules, role: TextRole) -> str:
    """Return the prompt for queries or for documents, "" where the model has none: never the default one.

    Names are tried as sentence-transformers says it does. (In its release 6.2 an empty "document" of its own hides
    "passage" and "corpus"; we take them, as their models mean it.)
    """
    names = ("query",) if role == "query" else ("document", "passage", "corpus")
    return next((modules.prompts[name] for name in names if name in modules.prompts), "")
