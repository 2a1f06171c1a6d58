"""Taking the text out of HTML pages."""

from __future__ import annotations

import bs4

# Parts of a page that a reader does not read.
SILENT = ("script", "style", "noscript", "template", "nav", "svg")


def extract_text(page: str) -> tuple[str, str]:
    """Return (title, visible text); blocks stand on lines of their own."""
    soup = bs4.BeautifulSoup(page, "html.parser")
    for element in soup(list(SILENT)):
        element.decompose()
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    body = soup.body or soup
    for line_break in body.find_all(
        ["br", "p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre"]
    ):
        line_break.append("\n")
    lines = (" ".join(line.split()) for line in body.get_text().splitlines())
    return title, "\n".join(line for line in lines if line)
