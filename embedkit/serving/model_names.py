"""What models are called by clients: by the last part of their path, which is nobody's business but the server's."""

from __future__ import annotations

from pathlib import Path


def served_name(name: str) -> str:
    """Return what a model is called that is known by the name of a shipped one, or by its path.

    >>> served_name("embedkit-small"), served_name("/srv/models/notes-v2")
    ('embedkit-small', 'notes-v2')
    """
    return Path(name).name
