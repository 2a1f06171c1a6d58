"""What a command says of its models: which they are, what computes them and in which precision, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import console

if TYPE_CHECKING:
    from embedkit.inference.choice import Choice


def say_names(encoder: str | None, reranker: str | None = None) -> None:
    """Say on standard error which models give the results."""
    parts = [f"model {encoder}"] if encoder else []
    if reranker:
        parts.append(f"reranked by {reranker}")
    if parts:
        console.note(", ".join(parts))


def say_choice(choice: Choice | None, *, what: str = "") -> None:
    """Say on standard error which precision was taken and why, when it has just been measured, and with --verbose.

    `what` names the model's part.
    """
    if choice is None or not (choice.fresh or console.is_verbose()):
        return
    message = f"{what}{' ' if what else ''}precision {choice.precision}"
    if reason := precision_reason(choice):
        message += f": {reason}"
    if console.is_verbose():
        message += f"; {choice.runtime} computes on {choice.device}"
        message += f" ({choice.reason})" if choice.reason else ""
    console.note(message)


def precision_reason(choice: Choice) -> str:
    """Say why a precision was taken; "" where nothing was measured."""
    if not choice.findings:
        return ""
    missing = ""
    if choice.unmeasured:
        missing = f"; there was no time to measure {' and '.join(choice.unmeasured)}"
    if choice.finding is None:
        return f"asked for{missing}"
    exact, chosen = choice.findings[0], choice.finding
    if chosen.precision != "fp32":
        found = (
            f"{chosen.texts_per_second / exact.texts_per_second:.1f} × as fast as fp32, "
            f"cosine to it {chosen.mean_cosine:.5f}, at worst {chosen.worst_cosine:.5f}"
        )
    else:
        fastest = max(choice.findings, key=lambda each: each.texts_per_second)
        found = "the fastest here"
        if fastest.precision != "fp32":
            ratio = fastest.texts_per_second / exact.texts_per_second
            found = f"{fastest.precision} would be {ratio:.1f} × as fast at a mean cosine of {fastest.mean_cosine:.5f}"
    return f"{found} (measured on sample texts){missing}"


def say_unknown(count: int, what: str, first: str = "") -> None:
    """Warn of texts that are made of nothing the model knows, of which `first` is the first."""
    if count:
        place = f"; the first is {first}" if first else ""
        console.warn(
            f"{console.counted(count, what)} made of nothing that this model knows, as of another script{place}. "
            "Their vectors tell them apart by their number of words at most: take a model of their language"
        )


def choice_as_json(choice: Choice | None) -> dict[str, object]:
    """Return what a summary in JSON says of it."""
    if choice is None:
        return {}
    content: dict[str, object] = {
        "backend": choice.runtime,
        "device": choice.device,
        "precision": choice.precision,
    }
    if choice.reason:
        content["backend_reason"] = choice.reason
    if choice.finding is not None:
        content["cosine_to_fp32"] = choice.finding.mean_cosine
        content["worst_cosine_to_fp32"] = choice.finding.worst_cosine
    if reason := precision_reason(choice):
        content["precision_reason"] = reason
    return content
