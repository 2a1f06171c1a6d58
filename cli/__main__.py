"""Where the command starts: from here on Ctrl-C ends it without a traceback, also while its modules are being imported."""

from __future__ import annotations

import os
import signal


def run() -> None:
    """Run the command line and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as behind `nohup`
        signal.signal(signal.SIGINT, _end_at_once)
    from .main import run as run_command

    run_command()


def _end_at_once(number: int, frame: object) -> None:
    os._exit(130)  # console.INTERRUPTED, which is not imported yet; nothing is written or open at this point


if __name__ == "__main__":
    run()
