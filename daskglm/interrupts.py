"""Ctrl-C while a command imports what it needs: one word and exit code 130, as later on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

# The exit code of a command that SIGINT ended.
INTERRUPTED = 128 + int(signal.SIGINT)


def is_command() -> bool:
    """Whether this process is the command line, as a script or by `python -m daskglm`."""
    stem = os.path.basename(sys.argv[0] if sys.argv else "").partition(".")[0]
    pairs = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return stem == "daskglm" or ("-m", "daskglm") in pairs


def end_at_once() -> None:
    """Until `handle_as_usual`, let SIGINT end a command without a traceback; other processes are
    left alone.
    """
    if (
        is_command()
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _end)


def handle_as_usual() -> None:
    """From here on SIGINT raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    # imports hold nothing that has to be given back, and can swallow exceptions
    os.write(2, b"interrupted\n")
    if "--json" in sys.argv:
        line = f'{{"error": "interrupted", "kind": "Interrupted", "exit_code": {INTERRUPTED}}}\n'
        os.write(1, line.encode())
    os._exit(INTERRUPTED)
