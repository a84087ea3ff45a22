"""Where compiled kernels are cached, and how they are compiled: eagerly, once, from a closed list of signatures."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _cache_directory() -> str | None:
    """A writable folder for compiled kernels, or None; its name changes with the sources of this room.

    numba refuses to import a cached function where it finds no writable place (a read-only image without HOME), and
    does not notice a change in an imported intrinsic; both are settled here.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    root = os.environ.get("DASKGLM_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    if not root:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(root, "daskglm", f"kernels-{digest}")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


_DIRECTORY = _cache_directory()


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile now, for this one signature, without the GIL and without licence to reorder sums."""

    def compile_now(function: Callable[..., Any]) -> Callable[..., Any]:
        previous = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = _DIRECTORY or previous
        try:
            dispatcher = numba.njit(signature, nogil=True, cache=_DIRECTORY is not None, error_model="numpy")(function)
        finally:
            numba.config.CACHE_DIR = previous
        dispatcher.disable_compile()
        return dispatcher  # type: ignore[no-any-return]

    return compile_now


# A part of kernels: compiled into each of them, and never on its own, which spares every process its loading.
part: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(nogil=True, error_model="numpy")
