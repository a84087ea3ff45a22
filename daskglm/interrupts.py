"""Signals that end a command while it imports what it needs: one line and an exit code, as later on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

# The exit code of a command that a signal ended is this and the signal's number: 130, 143, 129.
SIGNALLED = 128
# Signals that ask a command to end, beside SIGINT; Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def is_command() -> bool:
    """Whether this process is the command line, as a script or by `python -m daskglm`."""
    stem = os.path.basename(sys.argv[0] if sys.argv else "").partition(".")[0]
    pairs = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return stem == "daskglm" or ("-m", "daskglm") in pairs


def end_at_once() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end a command without a traceback until their handlers are
    replaced. A signal that is ignored stays ignored; processes that are no command keep theirs.
    """
    if not is_command() or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    for number in ENDING:
        if is_default(number):
            signal.signal(number, _end)


def is_default(number: int) -> bool:
    """Whether nobody but `end_at_once` has chosen what a signal of ENDING does."""
    return signal.getsignal(number) in (signal.SIG_DFL, _end)


def handle_as_usual() -> None:
    """From here on SIGINT raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def description(number: int) -> str:
    """Return what a signal did to a command, in words."""
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def _end(number: int, _: Any) -> None:
    # imports hold nothing that has to be given back, and can swallow exceptions
    words, code = description(number), SIGNALLED + number
    os.write(2, f"{words}\n".encode())
    if "--json" in sys.argv:
        line = f'{{"error": "{words}", "kind": "Interrupted", "exit_code": {code}}}\n'
        os.write(1, line.encode())
    os._exit(code)
