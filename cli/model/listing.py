"""`embedkit model list`: the models that come with embedkit, and those in the Hugging Face hub's cache."""

from __future__ import annotations

from ..shared import console, options
from ..shared.commands import examples

EXAMPLES = examples("embedkit model list", "embedkit model list --json")


def list_models(as_json: options.AsJson = False) -> None:
    """List the models that come with embedkit and those that other programs left in the hub's cache, with kind and family.

    One of the first is named by its name, one of the others by its folder. A folder that embedkit cannot compute is listed with the
    reason.
    """
    from embedkit.pipelines.listing import known_models

    found = list(known_models())
    if console.wants_json(as_json):
        for model in found:
            console.print_json(model.as_json())
        return
    rows = [(model.name, model.kind, model.family or "-", model.parameters_text) for model in found]
    console.print_table(("model", "kind", "family", "parameters"), rows)
    for model in found:
        if model.place != "embedkit" or model.reason is not None:
            console.say(f"\n{model.name}:\n  {model.note}")
