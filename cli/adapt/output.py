"""What `embedkit adapt` shows: the estimate, what was left out, the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..shared import console

if TYPE_CHECKING:
    from embedkit.pipelines.adapting.adapting import Adaptation
    from embedkit.pipelines.adapting.estimate import AdaptEstimate


def warn(adaptation: Adaptation) -> None:
    """Say what of the documents was left out, and what the models may not understand."""
    counts, counted = adaptation.counts, console.counted
    if counts["repeated_documents"]:
        console.note(
            f"note: {counted(counts['repeated_documents'], 'document')} with the text of one before: left out"
        )
    if counts["ambiguous"]:
        console.note(
            f"note: {counted(counts['ambiguous'], 'query')} that name several documents, or came twice: left out"
        )
    if counts["copies"]:
        console.note(
            f"note: {counted(counts['copies'], 'generated query')} that copy their passage: left out"
        )
    for number, who in ((counts["unknown"], "model"), (counts["unknown_to_generator"], "generator")):
        if number:
            first = f"; the first is {counts['first_unknown']}" if who == "model" else ""
            what = "document" if who == "model" else "passage"
            console.warn(
                f"{counted(number, what)} of which more than a fifth of the tokens are unknown to the {who}{first}. "
                f"It may be in another language than the {who} knows"
            )


def show_estimate(found: AdaptEstimate, *, as_json: bool) -> None:
    """Print what an adaptation would take."""
    if console.wants_json(as_json):
        console.print_json({**asdict(found), "total_seconds": found.total_seconds})
        return
    rows = [
        ("documents", f"{found.documents:,}"),
        ("passages", f"{found.passages:,}"),
        ("queries to learn from", f"{found.train_queries:,}"),
        ("queries held out", f"{found.held_out_queries:,}"),
        *(
            (f"time to {stage}" if stage != "queries" else "time for queries", _minutes(value))
            for stage, value in found.seconds.items()
        ),
        ("time at most", _minutes(found.total_seconds)),
    ]
    if found.memory_bytes:
        rows.append(("memory for training", f"{found.memory_bytes / 1e9:.2f} GB"))
    console.print_table(("measure", "value"), rows)


def _minutes(seconds: float) -> str:
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def show(adaptation: Adaptation, *, as_json: bool) -> None:
    """Print the report: measures before and after, examples, the verdict."""
    from embedkit.pipelines.adapting.folder import read_json

    found, counts = read_json(adaptation.folder.report), adaptation.counts
    labelled = read_json(adaptation.folder.labelled) if adaptation.recipe.steps else None
    if console.wants_json(as_json):
        output = str(adaptation.folder.output)
        console.print_json({"output": output, "documents": counts, "negatives": labelled, **found})
        return
    rows = [(f"derived queries, {each['name']}: nDCG@10", *_values(each)) for each in found["held_out"]]
    rows += [(each["name"], *_values(each)) for each in found["sets"]]
    rows.append(("general texts: agreement of cosines", "", f"{found['agreement']:.4f}", ""))
    if found["mean_cosine"] is not None:
        rows.append(("mean cosine of two passages", f"{found['mean_cosine']:.4f}", "", ""))
    console.print_table(("measure", "before", "after", "change"), rows)
    console.say(
        f"{found['queries']:,} held-out queries among {found['passages']:,} passages: {found['better']:,} better, {found['worse']:,} worse "
        f"(p = {found['p_value']:.3f}, randomisation test)"
    )
    for title, examples in (("better", found["rose"]), ("worse", found["fell"])):
        for each in examples:
            console.say(
                f"  {title}: rank {_rank(each['before'])} -> {_rank(each['after'])}  {each['query'][:80]}"
            )
    verdict = "worth keeping" if found["keep"] else "not shown to be worth keeping"
    console.say(f"{verdict}: {'; '.join(found['why'])}")
    console.note(f"the model is {adaptation.folder.output}, the report {adaptation.folder.report}")


def _values(change: dict[str, Any]) -> tuple[str, str, str]:  # Any: as in the report
    before, after = change["before"], change["after"]
    return f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"


def _rank(rank: int | None) -> str:
    return "beyond 100" if rank is None else str(rank)
