"""Bringing a folder's index up to date in front of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from embedkit.errors import IndexFileError, OutputError

from ..shared import console

if TYPE_CHECKING:
    from embedkit.pipelines.grep.folder import Folder
    from embedkit.pipelines.grep.refresh import RefreshReport

SHOWN_PROBLEMS = 5


def bring_up_to_date(folder: Folder, scopes: list[str], seconds: float) -> bool:
    """Build the index or bring it up to date; say what has not been seen, and return whether anything was read."""
    first = not folder.is_complete
    scope = scopes[0] if len(scopes) == 1 else ""
    if not first and not seconds:
        _say_unseen(folder.look(scope))
        return False
    try:
        report = _watch(folder, scope, seconds, first=first)
    except (OutputError, IndexFileError) as exc:
        if first:
            raise
        console.warn(f"{exc}. The index stays as it was")
        _say_unseen(folder.look(scope))
        return False
    for problem in report.problems[:SHOWN_PROBLEMS]:
        console.tell(f"not read: {problem}")
    if len(report.problems) > SHOWN_PROBLEMS:
        console.tell(f"not read: {len(report.problems) - SHOWN_PROBLEMS:,} more (embedkit grep --status)")
    if first:
        _say_built(folder, report)
    if report.busy:
        console.note("another process is bringing the index up to date")
    _say_unseen(report)
    return report.done > 0


def _watch(folder: Folder, scope: str, seconds: float, *, first: bool) -> RefreshReport:
    report = None
    with console.progress_bar("index") as bar:
        try:
            for report in folder.refresh(scope=scope, seconds=seconds):
                if first and report.busy:
                    console.note("another process is building the index of this folder; waiting for it")
                elif first and not report.passages and report.changed and not report.done:
                    console.note(
                        f"reading {console.counted(report.changed, 'file')} of {folder.home.root} for the first time"
                    )
                rate = report.passages / report.seconds if report.seconds else 0.0
                bar.update(
                    report.fraction if report.passages else None,
                    f"{report.done:,} of {report.changed:,} files  {report.passages:,} passages  {rate:,.0f} passages/s",
                )
        except KeyboardInterrupt:
            console.tell("interrupted; the next call goes on from here")
            raise typer.Exit(console.INTERRUPTED) from None
    assert report is not None
    return report


def _say_built(folder: Folder, report: RefreshReport) -> None:
    status = folder.status()
    place = "in the cache" if folder.home.lasting else "for this call alone"
    console.note(
        f"{console.counted(status.files, 'file')}, {console.counted(status.passages, 'passage')} in {report.seconds:,.1f} s; "
        f"the index takes {status.num_bytes / 1e6:,.1f} MB {place}"
    )
    if status.left_out:
        console.tell(f"left out: {status.left_out}")
    if status.encodings:
        console.note(f"not UTF-8: {status.encodings}")


def _say_unseen(report: RefreshReport) -> None:
    parts = []
    if report.unseen:
        parts.append(
            f"{console.counted(report.unseen, 'file')} {'has' if report.unseen == 1 else 'have'} changed"
        )
    if report.gone and not report.finished:
        parts.append(f"{report.gone:,} {'has' if report.gone == 1 else 'have'} gone")
    if parts:
        console.tell(f"not seen yet: {' and '.join(parts)} (--refresh always)")
