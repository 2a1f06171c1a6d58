"""Source code in parts: definitions with what belongs to them, each under the names that it stands in."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.documents.code import read_code
from embedkit.data.documents.syntax import LANGUAGES
from embedkit.data.places import FIRST_LINE, place_of
from embedkit.data.whole_file import read_whole_file
from embedkit.extras import EXTRAS
from tests.conftest import REPOSITORY

Part = tuple[str, str, str]  # headings, first line, last line

FILLING = "words that make a class of some size, so that it is no longer one part of the file; " * 10

PYTHON = f'''"""A module, with Ünïcode words and a lot to say of what it is for."""

import os

# What walks a folder
# from above.
@dataclass
class Walker:
    """Lists folders: {FILLING}"""

    # Looks again.
    @cached
    def list(self):
        return 1

    SOMETHING_LONG_ENOUGH = "to be a part of its own"

    def _take(self): pass


LIMIT = 1

async def walk():
    def inner(): pass
    return 2


SETTINGS_OF_ALL_WALKS = {{"and": "what they hold"}}
'''
SOURCES: dict[str, tuple[str, list[Part]]] = {
    ".py": (
        PYTHON,
        [
            ("", '"""A module, with Ünïcode words and a lot to say of what it is for."""', "import os"),
            ("class Walker", "# What walks a folder", '"""'),
            ("class Walker › list", "# Looks again.", "return 1"),
            (
                "class Walker",
                'SOMETHING_LONG_ENOUGH = "to be a part of its own"',
                'SOMETHING_LONG_ENOUGH = "to be a part of its own"',
            ),
            ("class Walker › _take", "def _take(self): pass", "LIMIT = 1"),
            ("walk", "async def walk():", "return 2"),
            (
                "",
                'SETTINGS_OF_ALL_WALKS = {"and": "what they hold"}',
                'SETTINGS_OF_ALL_WALKS = {"and": "what they hold"}',
            ),
        ],
    ),
    ".ts": (
        f"""/** Doc of A. */
@Injectable()
export class A<T> extends B {{
  text = "{FILLING}";
  /** does */
  @HostListener("x")
  foo(): number {{ return 1; }}
  bar = () => 2;
}}
export default function () {{}}
export const load = async (x: number) => {{ return x }};
interface I {{ a: string }}
enum E {{ One }}
namespace N {{ export function q() {{}} }}
""",
        [
            ("class A", "/** Doc of A. */", '";'),
            ("class A › foo", "/** does */", "foo(): number { return 1; }"),
            ("class A › bar", "bar = () => 2;", "}"),
            ("default", "export default function () {}", "export default function () {}"),
            (
                "load",
                "export const load = async (x: number) => { return x };",
                "export const load = async (x: number) => { return x };",
            ),
            ("interface I", "interface I { a: string }", "interface I { a: string }"),
            ("enum E", "enum E { One }", "enum E { One }"),
            (
                "namespace N › q",
                "namespace N { export function q() {} }",
                "namespace N { export function q() {} }",
            ),
        ],
    ),
    ".js": (
        "// Adds.\nfunction add(a, b) { return a + b }\nclass Small { go() {} }\nconst f = function () { return 1 }\n",
        [
            ("add", "// Adds.", "function add(a, b) { return a + b }"),
            ("class Small", "class Small { go() {} }", "class Small { go() {} }"),
            ("f", "const f = function () { return 1 }", "const f = function () { return 1 }"),
        ],
    ),
    ".tsx": (
        "export function App() { return <b>hello</b> }\nfunction Other() { return <i/> }\n",
        [
            (
                "App",
                "export function App() { return <b>hello</b> }",
                "export function App() { return <b>hello</b> }",
            ),
            ("Other", "function Other() { return <i/> }", "function Other() { return <i/> }"),
        ],
    ),
    ".go": (
        "package a\n\n// List lists.\nfunc (w *Walker[T]) List() int { return 1 }\n\ntype Walker struct { a int }\n"
        "type (\n  B interface { X() }\n  C int\n)\nfunc Free() {}\n",
        [
            ("Walker.List", "package a", "func (w *Walker[T]) List() int { return 1 }"),
            ("type Walker", "type Walker struct { a int }", "type Walker struct { a int }"),
            ("type B, C", "type (", ")"),
            ("Free", "func Free() {}", "func Free() {}"),
        ],
    ),
    ".rs": (
        f"""//! What this crate is for, said at some length.
use std::io;

/// A thing
#[derive(Debug)]
pub struct W {{ a: i32 }}

impl fmt::Display for W {{
    const TEXT: &str = "{FILLING}";
    /// Lists.
    #[inline]
    fn list(&self) -> i32 {{ 1 }}
}}
mod tests {{
    #[test]
    fn works() {{}}
}}
macro_rules! hello {{ () => {{}} }}
""",
        [
            ("", "//! What this crate is for, said at some length.", "use std::io;"),
            ("struct W", "/// A thing", "pub struct W { a: i32 }"),
            ("impl fmt::Display for W", "impl fmt::Display for W {", '";'),
            ("impl fmt::Display for W › list", "/// Lists.", "}"),
            ("mod tests › works", "mod tests {", "}"),
            ("hello", "macro_rules! hello { () => {} }", "macro_rules! hello { () => {} }"),
        ],
    ),
    ".java": (
        f"""package a;
import java.util.List;
/** Doc. */
@Service
public class A {{
  String text = "{FILLING}";
  public A() {{}}
  /** Lists. */
  @Override public int list() {{ return 1; }}
  enum E {{ P }}
}}
""",
        [
            ("", "package a;", "import java.util.List;"),
            ("class A", "/** Doc. */", '";'),
            ("class A › A", "public A() {}", "public A() {}"),
            ("class A › list", "/** Lists. */", "@Override public int list() { return 1; }"),
            ("class A › enum E", "enum E { P }", "}"),
        ],
    ),
    ".c": (
        "#include <stdio.h>\n\n/* Names it. */\nstatic char *name(void)\n{ return 0; }\n"
        "struct point { int x; };\nint main(int argc, char **argv) { return 0; }\n",
        [
            ("name", "#include <stdio.h>", "{ return 0; }"),
            ("struct point", "struct point { int x; };", "struct point { int x; };"),
            (
                "main",
                "int main(int argc, char **argv) { return 0; }",
                "int main(int argc, char **argv) { return 0; }",
            ),
        ],
    ),
    ".h": (
        "#ifndef A_H\n#define A_H\nnamespace ns {\ntemplate <typename T>\nclass W { int a; };\n"
        'int W::go(int x) { return 2; }\n}\nextern "C" { int f(void) { return 1; } }\n#endif\n',
        [
            ("namespace ns › class W", "#ifndef A_H", "class W { int a; };"),
            ("namespace ns › W::go", "int W::go(int x) { return 2; }", 'extern "C" {'),
            ("f", "int f(void) { return 1; } }", "#endif"),
        ],
    ),
    ".sh": (
        "#!/bin/sh\n# Says hello.\nhello() {\n  echo hello\n}\n\nfunction bye { echo bye; }\nhello; bye\n",
        [("hello", "#!/bin/sh", "}"), ("bye", "function bye { echo bye; }", "hello; bye")],
    ),
}


def parts_of(name: str, text: str) -> list[Part]:
    document = read_whole_file(io.BytesIO(text.encode()), name, 10**6)
    assert document.text == text
    borders = [*document.parts, len(text)]
    assert not borders or not text[: borders[0]].strip()
    found = []
    for start, stop in pairwise(borders):
        place = place_of(document.marks, text, start, stop)
        assert place is not None
        lines = text[start:stop].strip().splitlines()
        all_lines = text.splitlines()
        assert place.lines is not None
        assert lines[0] in all_lines[place.lines[0] - 1]
        assert lines[-1] in all_lines[place.lines[1] - 1]
        shown = '";' if lines[-1].endswith('";') and FILLING in lines[-1] else lines[-1].strip()
        shown = '"""' if FILLING in lines[-1] and shown.endswith('"""') else shown
        found.append((" › ".join(place.headings), lines[0].strip(), shown))
    return found


@pytest.mark.parametrize("suffix", SOURCES)
def test_each_language_in_its_parts(suffix: str) -> None:
    text, expected = SOURCES[suffix]
    assert parts_of(f"a{suffix}", text) == expected


def test_every_language_is_tested() -> None:
    assert set(LANGUAGES.values()) == {LANGUAGES[suffix] for suffix in SOURCES}


def test_a_comment_behind_a_statement_or_an_empty_line_is_not_of_the_function_below() -> None:
    text = "first_value = 'long enough to stand alone'  # of the value\ndef f(): pass\n"
    assert parts_of("a.py", text)[1][:2] == ("f", "def f(): pass")
    text = "# a comment that is of nothing, and long enough\n\ndef f(): pass\n"
    assert parts_of("a.py", text)[1][:2] == ("f", "def f(): pass")


@pytest.mark.parametrize(
    "text", ["", "\n\n", "def (((:\n", "class\n", "\r\n" * 3, "x = 1\n", "def f(): 1\r\n\r\ndef g(): 2\r\n"]
)
def test_odd_files_are_read_too(text: str) -> None:
    document = read_whole_file(io.BytesIO(text.encode()), "a.py", 10**6)
    assert document.text == text
    assert [text[at : at + 3] for at in document.parts] == (
        ["def", "def"] if text.startswith("def f") else []
    )


@given(
    st.text(st.sampled_from("defclas f(:){}\n\t#\"'é💡=@"), max_size=200), st.sampled_from(sorted(LANGUAGES))
)
def test_parts_and_headings_are_in_order_whatever_the_text(text: str, suffix: str) -> None:
    parts, marks = read_code(text, suffix)
    assert list(parts) == sorted(set(parts))
    assert all(0 <= at < max(1, len(text)) for at in parts)
    assert [mark.at for mark in marks] == sorted(mark.at for mark in marks)


def test_without_the_extra_code_is_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "code", "no_such_package")
    document = read_whole_file(io.BytesIO(PYTHON.encode()), "a.py", 10**6)
    assert (document.parts, document.marks) == ((), FIRST_LINE)


def test_functions_of_this_repository_begin_parts() -> None:
    path = Path(REPOSITORY) / "embedkit" / "data" / "walking.py"
    found = {headings for headings, _, _ in parts_of(str(path), path.read_text(encoding="utf-8"))}
    assert {"class Walker › list", "class Walker › walk", "is_text", "walk", ""} <= found
