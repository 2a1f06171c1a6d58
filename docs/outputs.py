"""Run the commands on a page and insert their output below them.

    python docs/outputs.py README.md

In each fenced `console` block, the lines that start with `$ ` are run in order, in a single folder that holds `docs` and
`examples`. All other lines of the block are replaced by what a terminal of 100 columns shows, without colours.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
COLUMNS = 100


def shown(command: str, folder: Path) -> str:
    """Run a command as on a terminal, except for progress bars, and return what it showed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDKIT_")}
    environment |= {"COLUMNS": str(COLUMNS), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    terminal, its_end = pty.openpty()
    notes, notes_end = os.pipe()
    with subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdin=its_end, stdout=its_end, stderr=notes_end
    ) as process:
        os.close(its_end)
        os.close(notes_end)
        parts, still_open = [], [notes, terminal]
        while still_open:
            ready, _, _ = select.select(still_open, [], [])
            source = notes if notes in ready else terminal  # a note comes before the result it describes
            try:
                part = os.read(source, 65536)
            except OSError:  # the other end of the terminal is closed
                part = b""
            if not part:
                still_open.remove(source)
                os.close(source)
            parts.append(part)
    if process.returncode:
        sys.exit(f"{command}: exit code {process.returncode}\n{b''.join(parts).decode()}")
    text = CONTROL.sub("", b"".join(parts).decode("utf-8")).replace(str(folder), "/home/you")
    text = text.replace(f"{ROOT}/", "")  # where the links lead: readers are in the repository
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    page = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        for name in ("docs", "examples"):
            (folder / name).symlink_to(ROOT / name)

        def filled(block: re.Match[str]) -> str:
            lines = []
            for line in block.group().splitlines():
                if line.startswith("$ "):
                    lines += [line, *filter(None, [shown(line[2:], folder)])]
            return "\n".join(lines) + "\n"

        text = BLOCK.sub(filled, page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
