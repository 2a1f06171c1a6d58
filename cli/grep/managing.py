"""`embedkit grep --status`, `--forget` and `--init`."""

from __future__ import annotations

from pathlib import Path

from embedkit.data.walking import WalkOptions
from embedkit.errors import RecordError
from embedkit.pipelines.grep.folder import Folder, FolderStatus, find_home
from embedkit.pipelines.grep.home import cached_homes, inner_home, resolved
from embedkit.types import Computing

from ..shared import console, options
from .asked import Managing


def manage(managing: Managing, paths: list[str], wanted: WalkOptions, printing: options.Printing) -> None:
    """Show, remove or make what is kept of some paths."""
    for path in paths:
        if managing.init:
            _init(Path(path), wanted, printing)
        elif managing.forget:
            _forget(Path(path), wanted, printing)
        else:
            _status(Path(path), wanted, printing)
    if managing.status:
        _status_of_cache(printing)


def _init(path: Path, wanted: WalkOptions, printing: options.Printing) -> None:
    real = resolved(path)
    if not real.is_dir():
        raise RecordError(f"{path}: a file; --init keeps an index in a folder. Name its folder")
    home = inner_home(real, wanted)
    home.make()
    if printing.as_json:
        console.print_json({"root": str(home.root), "index": str(home.path)})
    else:
        console.note(f"{home.root}: its index will be in {home.path}, made by the first search")


def _forget(path: Path, wanted: WalkOptions, printing: options.Printing) -> None:
    home, scope = find_home(path, wanted)
    if scope or not home.is_there:
        raise RecordError(
            f"{path}: nothing is kept of it"
            + (f" but as a part of {home.root}. Name that folder" if scope else "")
        )
    num_bytes = home.num_bytes
    if not home.forget():
        raise RecordError(
            f"{home.root}: another process is bringing its index up to date. Wait for it to end"
        )
    if printing.as_json:
        console.print_json({"root": str(home.root), "removed_bytes": num_bytes})
    else:
        console.note(f"{home.root}: its index is removed ({num_bytes / 1e6:,.1f} MB)")


def _status(path: Path, wanted: WalkOptions, printing: options.Printing) -> None:
    home, _ = find_home(path, wanted)
    status = Folder(home, Computing()).status()
    if printing.as_json:
        console.print_json(status_row(status))
        return
    root = str(home.root / home.only)
    if not status.is_there:
        console.say(f"{root}: no index yet; the first search makes it")
        return
    console.say(
        f"{root}: {console.counted(status.files, 'file')}, {console.counted(status.passages, 'passage')}, model {status.model}"
    )
    console.say(f"  index         {home.path} ({status.num_bytes / 1e6:,.1f} MB)")
    if not status.complete:
        console.say("  not complete  the next search goes on with it")
    console.say(f"  to be seen    {status.changed:,} new or changed, {status.gone:,} gone")
    if status.left_out:
        console.say(f"  left out      {status.left_out}")
    if status.encodings:
        console.say(f"  not UTF-8     {status.encodings}")
    for problem in status.problems:
        console.say(f"  not read      {problem}")


def status_row(status: FolderStatus) -> dict[str, object]:
    """Return a status as JSON holds it."""
    return {
        "root": str(status.home.root / status.home.only),
        "index": str(status.home.path),
        "is_there": status.is_there,
        "complete": status.complete,
        "files": status.files,
        "passages": status.passages,
        "bytes": status.num_bytes,
        "changed": status.changed,
        "gone": status.gone,
        "model": status.model,
        "left_out": status.left_out,
        "encodings": status.encodings,
        "problems": list(status.problems),
    }


def _status_of_cache(printing: options.Printing) -> None:
    homes = cached_homes()
    if printing.as_json or not homes:
        return
    total = sum(home.num_bytes for home in homes)
    console.say(
        f"the cache holds the indexes of {console.counted(len(homes), 'folder')}, {total / 1e6:,.1f} MB"
    )
