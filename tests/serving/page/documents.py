"""Documents for the page to find, as awkward as real ones: long, right to left, with markup, with signs in their ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

XSS = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@dataclass(frozen=True, kw_only=True)
class Document:
    id: str
    text: str
    title: str = ""
    index: str = "papers"
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    source: str = ""


ROEMER = """In 1676 Ole Rømer, then at the observatory in Paris, noticed that the eclipses of Io, the innermost large moon of \
Jupiter, came too early when the Earth was approaching Jupiter and too late when it was receding.

He concluded that light takes time to travel, and put the time it needs to cross the orbit of the Earth at about 22 minutes. \
With that the speed of light was measured for the first time, although Rømer himself never gave a figure in miles: the size of the orbit \
was not known well enough. Huygens, who knew it a little better, made of it some 220,000 kilometres per second, a quarter too little.

Cassini, whose tables Rømer had used, doubted it for the rest of his life. Only Bradley's aberration of starlight, half a century \
later, settled the matter."""

FIZEAU = """Fizeau sent a beam of light between the teeth of a turning cogwheel to a mirror eight kilometres away, on Montmartre, \
and watched it come back. At a certain speed of the wheel the returning light met the next tooth and disappeared.

From the number of teeth and of turns he measured 313,000 kilometres per second: the first value for the speed of light that owed \
nothing to astronomy."""

DOCUMENTS = (
    Document(
        id="history/roemer.md",
        title="Rømer and the moons of Jupiter",
        text=ROEMER,
        metadata={
            "year": 2019,
            "lang": "en",
            "topic": "history",
            "peer reviewed": True,
            "tags": ["light", "jupiter"],
        },
        source="/data/history/roemer.md",
    ),
    Document(
        id="optics/fizeau.md",
        title="The cogwheel on Montmartre",
        text=FIZEAU,
        metadata={"year": 2021, "lang": "en", "topic": "optics", "peer reviewed": True, "tags": ["light"]},
        source="/data/optics/fizeau.md",
    ),
    Document(
        id="optics/michelson.md",
        title="Michelson’s rotating mirrors",
        text="Between 1924 and 1926 Michelson measured the speed of light between Mount Wilson and Mount San Antonio, 35 kilometres "
        "apart, with an eight-sided rotating mirror. He found 299,796 kilometres per second, within four of today's value.",
        metadata={
            "year": 2020,
            "lang": "en",
            "topic": "optics",
            "peer reviewed": False,
            "tags": ["light", "mirrors"],
        },
    ),
    Document(
        id="astronomy/bradley.md",
        title="Bradley and the aberration of starlight",
        text="Bradley found in 1728 that the stars seem to move in small ellipses once a year. The cause is the speed of the Earth "
        "against the speed of light, as rain seems to slant for somebody who runs.",
        metadata={
            "year": 2018,
            "lang": "en",
            "topic": "astronomy",
            "peer reviewed": True,
            "tags": ["light", "stars"],
        },
    ),
    Document(
        id="foucault?draft#2.md",
        title="Foucault: light is slower in water",
        text="With a rotating mirror Foucault showed in 1850 that light is slower in water than in air, which decided between waves "
        "and particles for a time. The measured speed of light in air came twelve years later.",
        metadata={
            "year": 2022,
            "lang": "fr",
            "topic": "optics",
            "peer reviewed": False,
            "tags": ["light", "mirrors"],
        },
    ),
    Document(
        id="ar/light",
        title="سرعة الضوء",
        text="سرعة الضوء في الفراغ هي 299,792,458 مترًا في الثانية. قاسها رومر أول مرة عام 1676. speed of light",
        metadata={"year": 2017, "lang": "ar", "topic": "physics", "peer reviewed": True, "tags": ["light"]},
    ),
    Document(
        id="ja/light",
        title="光の速さ",
        text="😀 光速は真空中で秒速299,792,458メートルである。1676年にレーマーが初めて測定した。speed of light 😀 light",
        metadata={"year": 2016, "lang": "ja", "topic": "physics", "peer reviewed": True, "tags": ["light"]},
    ),
    Document(
        id="meetings/2024-03-08.md",
        index="notes",
        title="Meeting of 8 March: a table for the light",
        text="Anna brings the lamp. We measure how much light falls on the table, and how the speed of the shutter changes it.",
        metadata={"year": 2024, "lang": "en", "who": "Anna"},
    ),
    Document(
        id="xss",
        index="notes",
        title=XSS,
        text=f"dangerous {XSS} text",
        metadata={XSS: XSS, "year": 2024, "lang": "en"},
    ),
    Document(
        id="long.log",
        index="notes",
        title="A protocol of a thousand lines",
        text="\n".join(
            f"{n:04d}  the protocol says that thing {n} was done, and that nothing else happened"
            for n in range(1, 1001)
        ),
        metadata={"year": 2024, "lang": "en"},
    ),
    *(
        Document(
            id=f"catalogue/{n}",
            index="notes",
            title=f"Catalogue entry {n}",
            text=f"Entry {n} of the catalogue lists a star, its place and its brightness.",
            metadata={"year": 2000 + n % 20, "lang": "en"},
        )
        for n in range(1, 261)
    ),
)
