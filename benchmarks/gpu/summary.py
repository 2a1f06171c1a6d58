"""The summary of a run: one line per stage, everything that went wrong, and tables of the measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .stages import Result, Stage, plain


def succeeded(stages: Sequence[Stage], results: Iterable[Result]) -> bool:
    """Return whether nothing was wrong or failed, and all stages of checks were completed."""
    checks = {stage.name for stage in stages if stage.checks}
    return not any(
        result.state in ("wrong", "failed") or (result.state == "timed out" and result.stage in checks)
        for result in results
    )


def summary(about: Mapping[str, object], stages: Sequence[Stage], results: Sequence[Result]) -> str:
    parts = ["\n".join(f"{key}: {value}" for key, value in about.items())]
    by_stage = {stage.name: [result for result in results if result.stage == stage.name] for stage in stages}
    rows: list[tuple[str, ...]] = [
        ("stage", "cases", "ok", "wrong", "failed", "skipped", "timed out", "seconds")
    ]
    for name, found in by_stage.items():
        states = [sum(result.state == state for result in found) for state in rows[0][2:7]]
        seconds = sum(result.seconds for result in found)
        rows.append((name, str(len(found)), *map(str, states), f"{seconds:.1f}"))
    parts.append(table(rows))
    troubles = [_trouble(result) for result in results if result.state in ("wrong", "failed", "timed out")]
    # Many cases are skipped for the same reason.
    reasons = Counter((result.stage, result.message) for result in results if result.state == "skipped")
    troubles += [f"skipped  {stage}: {count} × {reason}" for (stage, reason), count in reasons.items()]
    if troubles:
        parts.append("\n".join(troubles))
    for stage in stages:
        if not stage.checks:
            parts += _measurements(stage.name, by_stage[stage.name])
        elif any(result.limits for result in by_stage[stage.name]):
            parts.append(_nearest(stage.name, by_stage[stage.name]))
    checked = sum(bool(result.limits) and result.state == "ok" for result in results)
    word = "passed" if succeeded(stages, results) else "FAILED"
    parts.append(f"{word}: {checked} cases within their limits")
    return "\n\n".join(parts) + "\n"


def _trouble(result: Result) -> str:
    beyond = ", ".join(
        f"{name} {plain(result.values[name])}, limit {plain(limit)}"
        for name, limit in result.limits.items()
        if not float(result.values[name]) <= limit
    )
    last = (result.message.strip().splitlines() or [""])[-1]
    return f"{result.state}  {result.stage}: {result.case}  {beyond or last}"


def _nearest(name: str, results: Sequence[Result]) -> str:
    """Name the case that came closest to its limit."""
    shares = [
        (float(result.values[key]) / limit if limit else float(result.values[key]), result.case, key)
        for result in results
        for key, limit in result.limits.items()
    ]
    share, case, key = max(shares)
    return f"{name}: closest to its limit: {case}, {key} at {share:.0%} of it"


def _measurements(name: str, results: Sequence[Result]) -> list[str]:
    """Format measurements as tables, one per set of columns."""
    by_columns: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for result in results:
        if result.values:
            cells = (result.case, *(plain(value) for value in result.values.values()))
            by_columns.setdefault((name, *result.values), []).append(cells)
    return [table([columns, *rows]) for columns, rows in by_columns.items()]


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
