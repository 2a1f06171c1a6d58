"""The process that reads documents: what happens in it stays in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedkit.data.documents import child
from embedkit.data.documents.child import _CHILD, _reason, read_document
from embedkit.errors import RecordError
from tests.conftest import REPOSITORY

MADE = Path(__file__).resolve().parent / "fixtures"
SUBTITLES = b"00:01.000 --> 00:02.000\nHello\n"


def running() -> subprocess.Popen[bytes]:
    process = _CHILD._process
    assert process is not None
    return process


def test_one_process_reads_many_files_and_another_takes_over_when_it_died() -> None:
    assert read_document(SUBTITLES, "a.srt", ".srt").text == "Hello\n"
    first = running()
    with pytest.raises(RecordError):
        read_document(b"", "a.pdf", ".pdf")
    read_document((MADE / "guide.odt").read_bytes(), "a.odt", ".odt")
    assert running() is first
    first.kill()
    with pytest.raises(RecordError, match=r"a\.srt: its reader died \(signal 9\)"):
        read_document(SUBTITLES, "a.srt", ".srt")
    assert read_document(SUBTITLES, "a.srt", ".srt").text == "Hello\n"
    assert running() is not first


def test_a_document_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _CHILD.close()
    slow = "from embedkit.data.documents import worker, readers; import time; worker.MAX_SECONDS = 1; "
    slow += "readers.READERS['.srt'] = lambda raw: time.sleep(60); worker.main()"
    monkeypatch.setattr(child, "_PROGRAM", slow)
    started = time.monotonic()
    with pytest.raises(RecordError, match=r"a\.srt: reading it takes more than 60 seconds\. Split it"):
        read_document(SUBTITLES, "a.srt", ".srt")
    assert time.monotonic() - started < 30
    monkeypatch.undo()
    assert read_document(SUBTITLES, "a.srt", ".srt").text == "Hello\n"


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("bytearray(2**40)", r"it takes more than 1\.1 GB of memory"),
        ("__import__('os').abort()", r"its reader died \(signal 6\)"),
        ("print('noise') or 1 / 0", r"it cannot be read \(ZeroDivisionError: division by zero\)"),
        ("sys.exit(3)", r"its reader died \(exit code 3\)"),
    ],
)
def test_a_reader_that_fails_takes_nothing_with_it(
    reader: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _CHILD.close()
    code = "from embedkit.data.documents import worker, readers; "
    code += f"readers.READERS['.srt'] = lambda raw: {reader}; worker.main()"
    monkeypatch.setattr(child, "_PROGRAM", code)
    with pytest.raises(RecordError, match=rf"a\.srt: {message}"):
        read_document(SUBTITLES, "a.srt", ".srt")
    _CHILD.close()


def test_reasons() -> None:
    assert _reason(-signal.SIGALRM) == "reading it takes more than 60 seconds. Split it"
    assert _reason(-signal.SIGSEGV) == "its reader died (signal 11). It is damaged; make or fetch it again"


def test_the_process_takes_no_module_from_the_folder_and_ends_with_its_parent(tmp_path: Path) -> None:
    for name in ("json", "zipfile", "embedkit", "pypdfium2"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken')\n", encoding="utf-8")
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from embedkit.data.documents.child import _CHILD, read_document\n"
        f"raw = open({str(MADE / 'guide.docx')!r}, 'rb').read()\n"
        "print(len(read_document(raw, 'a.docx', '.docx').text), _CHILD._process.pid, flush=True)\n"
        "import os, signal\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    count, pid = map(int, done.stdout.split())
    assert count > 100
    for _ in range(100):
        if not _is_running(pid):
            break
        time.sleep(0.05)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
