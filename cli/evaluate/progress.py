"""What is shown while pipelines are measured."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from ..shared import console, models

if TYPE_CHECKING:
    from embedkit.pipelines.measuring import Job, Measured


def watch(job: Job) -> list[Measured]:
    """Measure, with a bar for each step and a note of each model; ends the command with 130 where it was stopped."""
    from embedkit.pipelines.measuring import Loaded, Measured, Stale, Underway, in_order, measure

    found: list[Measured] = []
    step, bar = "", None
    with ExitStack() as shown:
        try:
            for event in measure(job):
                match event:
                    case Underway():
                        if bar is None or step != event.what:
                            shown.close()
                            step = event.what
                            bar = shown.enter_context(console.progress_bar(step))
                        bar.update(event.fraction, event.text)
                    case Loaded():
                        is_reranker = event.role == "reranker"
                        models.say_names(*((None, event.name) if is_reranker else (event.name, None)))
                        models.say_choice(event.choice, what="reranker" if is_reranker else "")
                    case Stale():
                        console.note(
                            f"{event.corpus}: differs from what was cached as {event.name!r} before; it is read again"
                        )
                    case Measured():
                        found.append(event)
        except KeyboardInterrupt:
            shown.close()
            console.tell(f"interrupted; resume with the same command:\n  {console.command_line()}")
            raise typer.Exit(console.INTERRUPTED) from None
    return in_order(job, found)
