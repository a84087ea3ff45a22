"""Where compiled kernels are cached, and how they are compiled: once, each for one signature."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator


def _cache_directory() -> str | None:
    """A folder for compiled kernels, or None; its name changes with the sources of the kernels.

    One that is there already serves even where it cannot be written to, as in an image whose root is mounted
    read-only: a hit only reads.
    """
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    root = os.environ.get("DASKGLM_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    if not root:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(root, "daskglm", f"kernels-{digest}")
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    return folder if os.path.isdir(folder) else None


_DIRECTORY = _cache_directory()


class _Place(_CacheLocator):  # type: ignore[misc]
    """Where the entries of one function lie.

    numba's own locators pass over a folder that they cannot write to, and refuse the function when none is left; older
    ones also take a source for another when only its time has changed, which happens to the layers of an image.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._source = inspect.getfile(function)
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return os.path.join(_DIRECTORY or "", self.get_suitable_cache_subpath(self._source))

    def get_source_stamp(self) -> str:
        return hashlib.sha256(Path(self._source).read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Place:
        return cls(function)


class _Entries(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Place]  # noqa: RUF012 -- numba's attribute


class _Cache(FunctionCache):  # type: ignore[misc]
    """Spares time and decides nothing: what cannot be read is compiled, and what cannot be written is not kept."""

    _impl_class = _Entries

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with contextlib.suppress(OSError):
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


@final
class Kernel:
    """A function that is compiled for one signature when it is first called: a process that does not need it does not wait."""

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        self.__doc__ = function.__doc__
        self._function, self._signature = function, signature
        self._compiled: Any = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        return (self._compiled or self.compiled)(*args)

    @property
    def compiled(self) -> Any:
        """The compiled function, which releases the GIL and has no licence to reorder sums."""
        with self._lock:
            if self._compiled is None:
                dispatcher = numba.njit(nogil=True, error_model="numpy")(self._function)
                if _DIRECTORY is not None:
                    dispatcher._cache = _Cache(self._function)
                dispatcher.compile(self._signature)
                dispatcher.disable_compile()
                self._compiled = dispatcher
        return self._compiled


def kernel(signature: str) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile for this one signature, without the GIL and without licence to reorder sums."""

    def of(function: Callable[..., Any]) -> Kernel:
        return Kernel(function, signature)

    return of


# A part of kernels: compiled into each of them, and never on its own, which spares every process its loading.
part: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(nogil=True, error_model="numpy")
