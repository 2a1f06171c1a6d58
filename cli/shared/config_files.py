"""Where configuration files are. This is asked by every command, and mostly there is none: so it takes no time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from embedkit.errors import ConfigError

PROJECT_FILE = "embedkit.toml"
VARIABLE = "EMBEDKIT_CONFIG"  # a file in place of the user's, or "off": none is read, the project's neither
OFF = "off"
Origin = Literal["user", "project"]


def user_file() -> Path:
    """Return where the user's file is, there or not."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 (fails less than Path.home)
    return Path(home) / "embedkit" / "config.toml"


def project_file() -> Path | None:
    """Return the nearest embedkit.toml upwards from here; None where there is none."""
    try:
        here = os.getcwd()  # noqa: PTH109 (paths are made for each command: as fast as can be)
    except OSError:  # the folder has gone
        return None
    while True:
        path = os.path.join(here, PROJECT_FILE)  # noqa: PTH118 (as above)
        if os.path.isfile(path):  # noqa: PTH113 (as above)
            return Path(path)
        above = os.path.dirname(here)  # noqa: PTH120 (as above)
        if above == here:
            return None
        here = above


def found_files() -> list[tuple[Path, Origin]]:
    """Return the files that are there, the one that comes first in doubt first.

    Raises:
        ConfigError: the file that the environment names is not there.
    """
    named = os.environ.get(VARIABLE)
    if named == OFF:
        return []
    found: list[tuple[Path, Origin]] = []
    project = project_file()
    if project is not None:
        found.append((project, "project"))
    user = user_file()
    if user.is_file():
        found.append((user, "user"))
    elif named:
        raise ConfigError(f"{user}: {VARIABLE} names this file, which is not there. Make it, or say {OFF}")
    return found
