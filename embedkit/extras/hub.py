"""Fetching model folders from the Hugging Face hub, only where the user asks for it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub

from embedkit.errors import CheckpointError

# Data only: no code, no pickled weights, no weights of other frameworks.
PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "README.md", "LICENSE*")


def download(name: str, target: Path, *, revision: str | None = None) -> None:
    """Copy the data files of a hub model into a folder.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such model.
    """
    try:
        huggingface_hub.snapshot_download(
            name,
            revision=revision,
            local_dir=target,
            allow_patterns=list(PATTERNS),
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    except (OSError, huggingface_hub.errors.HfHubHTTPError, ValueError) as exc:
        raise CheckpointError(
            f"{name}: could not be fetched from the hub ({str(exc).splitlines()[0]}). Check the name and the connection"
        ) from exc
