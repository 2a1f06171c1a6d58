"""`embedkit explain`: why does this document match this query?"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .shared import console, models, options
from .shared.completing import complete_index
from .shared.plain import plain

if TYPE_CHECKING:
    from embedkit.explaining.explain import ExplainedText, Explanation

EXAMPLES = """\b
Examples:
  embedkit explain "how do I resume a build" "The same command again resumes after a stop."
  embedkit explain "how do I resume a build" docs/searching.md
  embedkit explain "how do I resume a build" docs/searching.md --model SPLADE   # terms and their weights
  embedkit explain "how do I resume a build" docs/searching.md --model COLBERT  # nearest tokens
  embedkit explain "how do I resume a build" docs/searching.md --index docs.index --html why.html
"""
# From these shares of the strongest effect on, a word has its letters or its ground coloured.
FAINT, STRONG = 0.15, 0.5
SUMS = {
    "sparse": "a learned sparse model: its score is a sum over terms",
    "multi-vector": "a multi-vector model: its score is a sum over the query's tokens",
}


def explain(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was looked for.")],
    document: Annotated[
        str,
        typer.Argument(
            metavar="DOC", help="The text, or a file that holds it; with --index, the id of a document there."
        ),
    ],
    model: options.IndexModel = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            metavar="FOLDER",
            help="Index that holds DOC.",
            show_default=False,
            autocompletion=complete_index,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with heat maps of all of it.", show_default=False
        ),
    ] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="With --json: every attention map as numbers.")
    ] = False,
    device: options.DeviceOption = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Show which words make the score of a document for a query.

    Green words raise the score (without them it falls), red ones lower it. Below, the token of the document nearest to
    each token of the query, and the tokens that each layer attends to most. The page holds all cosines and attention maps.
    Of a learned sparse model: the terms that query and document share and what each adds to the score, then those that each
    text was expanded by. Of a multi-vector model: the token of the document nearest to each of the query, and what that adds.
    """
    from embedkit.encoding.encoder import Encoder
    from embedkit.explaining.explain import explain as compute
    from embedkit.explaining.page import render_html
    from embedkit.explaining.views import as_dict
    from embedkit.pipelines.models import kind_of_model, or_default
    from embedkit.storage.files import write_text

    if index is None:
        text, folder = _text_of(document), or_default(model)
    else:
        text, folder = _look_up(index, document, model)
    kind = kind_of_model(folder)
    if kind in SUMS:
        from .explain_terms import explain_by_terms
        from .explain_tokens import explain_by_tokens

        refuse = [("--html", html is not None), ("--attention", attention)]
        if asked := [option for option, given in refuse if given]:
            raise typer.BadParameter(f"{asked[0]} does not go with {SUMS[kind]}")
        by_kind = explain_by_terms if kind == "sparse" else explain_by_tokens
        by_kind(folder, query, text, device=device, as_json=as_json)
        return
    encoder = Encoder.load(folder, device=device, backend="torch")
    models.say_names(encoder.folder.name)
    explanation = compute(encoder, query, text)
    if console.wants_json(as_json):
        console.print_json(as_dict(explanation, attention=attention))
    else:
        _print(explanation)
    if html is not None:
        write_text(html, render_html(explanation))
        console.note(f"wrote {html}")


def _text_of(document: str) -> str:
    """Return the text that was given, or that of the file of this name, title first.

    Raises:
        RecordError: the file holds several documents.
    """
    from embedkit.data.reading import read_documents
    from embedkit.data.records import ReadOptions, titled_text
    from embedkit.errors import RecordError

    try:
        is_file = Path(document).is_file()
    except OSError:  # a text is longer than a name may be
        is_file = False
    if not is_file:
        return document
    found = list(islice(read_documents([document], ReadOptions(text_unit="file")), 2))
    if len(found) != 1:
        held = "several documents" if found else "no document"
        raise RecordError(
            f"{document}: this file holds {held}; explain takes one. Build an index of it, and name the document's id with --index"
        )
    return titled_text(found[0].title, found[0].text)


def _look_up(path: Path, doc_id: str, model: str | None) -> tuple[str, str | Path]:
    """Return the text of a document, title first, and the index's model."""
    from embedkit.data.records import titled_text
    from embedkit.errors import RecordError
    from embedkit.pipelines.models import of_index
    from indexes import Index

    with Index.open(path) as index:
        stored = index.document(doc_id)
        if stored is None:
            raise RecordError(
                f"{path}: no document {doc_id!r}. Look for it with: embedkit search {path} --mode text"
            )
        return titled_text(stored.title, stored.text), of_index(index, model)


def _print(explanation: Explanation) -> None:
    out = console.styled()
    out.print(f"score {explanation.score:.4f}\n", style="bold")
    for name, text in (("query", explanation.query), ("document", explanation.document)):
        out.print(name, style="dim")
        out.print(_coloured(text))
        if text.truncated:
            out.print("(the model reads the beginning of this only)", style="dim")
        out.print()
    query, document = explanation.query.tokens, explanation.document.tokens
    console.print_table(
        ("query token", "nearest in the document", "cosine"),
        [(query[row], document[column], f"{value:.3f}") for row, column, value in explanation.best_matches()],
    )
    received = explanation.document.received()  # (L, T)
    console.print_table(
        ("layer", "attended to most within the document"),
        [
            (
                str(layer),
                "  ".join(f"{document[place]} {shares[place]:.0%}" for place in (-shares).argsort()[:4]),
            )
            for layer, shares in enumerate(received, 1)
        ],
    )


def _coloured(text: ExplainedText):  # type: ignore[no-untyped-def] # rich is loaded late
    """Return a text with each word on green or red, by its effect."""
    from rich.text import Text

    from embedkit.explaining.views import stretches

    out = Text()
    for stretch in stretches(text):
        # Eight colours, which every terminal has, in two strengths.
        colour = "green" if stretch.weight > 0 else "red"
        strength = abs(stretch.weight)
        style = f"black on {colour}" if strength >= STRONG else colour if strength >= FAINT else ""
        out.append(plain(stretch.text), style=style)
    return out
