"""Functions of one's own, known by import path: a saved model and a cluster hold "module:name", never code.

What a function does can change while its path stays. So values on a fixed grid go with the path, and the digest of its
code where a fit is resumed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import numpy.typing as npt

from daskglm.errors import DesignError

Vector = npt.NDArray[np.float64]

# Values of the same function by other versions of NumPy and on other processors agree to this.
SAME_VALUE = 1e-9
# Values of objects that a function refers to; of others their type is compared.
PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic)


def path_of(function: Callable[..., Any]) -> str | None:
    """The import path of a function, "module:qualname"; None for a lambda, a local function, one of __main__ and
    whatever else the path would not lead back to."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module in (None, "__main__") or name is None or "<" in name:
        return None
    try:
        found: Any = reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return None
    return f"{module}:{name}" if found is function else None


def imported(path: str) -> Callable[..., Any]:
    """The function at "module:qualname", importing its module: for workers, which do what their scheduler says.

    DesignError where there is none.
    """
    module = path.partition(":")[0]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise DesignError(
            f"{path} cannot be imported here ({error}): put {module} where every worker can import it"
        ) from None
    return known(path)


def known(path: str) -> Callable[..., Any]:
    """The function at "module:qualname" of a module that is imported already: a file that is read imports nothing.

    DesignError where there is none.
    """
    module, _, name = path.partition(":")
    if module not in sys.modules:
        raise DesignError(f"the model uses {path}: import {module} before loading it")
    try:
        function: Any = reduce(getattr, name.split("."), sys.modules[module])
    except AttributeError:
        raise DesignError(
            f"the model uses {path}, and {module} has no {name}: take the version it was made with"
        ) from None
    if path_of(function) != path:
        raise DesignError(f"the model uses {path}, which is not a function defined in {module}")
    return function


# -- what a function does ----------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Probe:
    """A function of one's own and the arguments (n,) at which its values are recorded."""

    function: Callable[..., Any]
    at: Vector

    def values(self) -> list[float]:
        """The values (n,), NaN where there are none."""
        with np.errstate(all="ignore"):
            try:
                found = np.asarray(self.function(self.at), np.float64)
            except Exception:  # a user's function raises anything; its verification reports it
                found = np.full(self.at.shape, np.nan)
        return [float(value) for value in np.broadcast_to(found, self.at.shape)]

    def difference(self, before: list[float]) -> str | None:
        """Where the values are no longer those recorded before, in words; None where they are."""
        for at, old, new in zip(self.at, before, self.values(), strict=False):
            equal = old == new or (np.isnan(old) and np.isnan(new))
            if not (equal or abs(new - old) <= SAME_VALUE * max(abs(old), abs(new))):
                return f"at {at:.6g} it gave {old:.10g} and now gives {new:.10g}"
        return None


@runtime_checkable
class UserDefined(Protocol):
    """A family or link that is made of functions of one's own."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def probes(self) -> dict[str, Probe]:
        """Its functions, by the option that each was given as."""


def grid(low: float, high: float) -> Vector:
    """Arguments inside an interval: evenly between two ends, or from -3 to 3; by the fourth root of 2 from a single end."""
    if np.isfinite(low) and np.isfinite(high):
        return np.asarray(low + (high - low) * np.arange(1.0, 64.0) / 64.0)
    away = np.exp2(np.arange(-24.0, 17.0) / 4.0)
    if np.isfinite(low):
        return np.asarray(low + away)
    if np.isfinite(high):
        return np.asarray(high - away[::-1])
    return np.arange(-48.0, 49.0) / 16.0


def values_of(probes: Mapping[str, Probe]) -> dict[str, list[float]]:
    """Values of each function, to be stored beside its path."""
    return {name: probe.values() for name, probe in probes.items()}


def verify_values(probes: Mapping[str, Probe], before: Mapping[str, list[float]] | None) -> None:
    """Raise a DesignError where a function does not give the values that were stored with its path."""
    for name, probe in probes.items():
        found = None if before is None or name not in before else probe.difference(before[name])
        if found is not None:
            path = path_of(probe.function) or name
            raise DesignError(
                f"{path} ({name}) is not the function that the model was made with: {found}; "
                "take the version of its module that the model was made with"
            )


def code_of(function: Callable[..., Any]) -> str:
    """A digest of a function's code, its defaults, the values it closes over, and the functions and values of its module
    that it uses. Comments, line numbers and its docstring are not part of it.
    """
    state = hashlib.sha256()
    _feed(state, function, set())
    return state.hexdigest()[:24]


def _feed(state: Any, value: Any, seen: set[int]) -> None:
    state.update(type(value).__name__.encode() + b"(")
    if isinstance(value, PLAIN):
        state.update(repr(value).encode())
    elif isinstance(value, np.ndarray):
        state.update(f"{value.dtype.str}{value.shape}".encode())
        state.update(np.ascontiguousarray(value).tobytes() if value.dtype != object else b"")
    elif id(value) in seen:
        state.update(b"again")
    else:
        # Constants of code are left out: whether equal ones are one object depends on how the code was loaded.
        if not isinstance(value, (tuple, frozenset, types.CodeType)):
            seen.add(id(value))
        for part in _parts(value):
            _feed(state, part, seen)
    state.update(b")")


def _parts(value: Any) -> list[Any]:
    """What a value that refers to others is made of."""
    if isinstance(value, types.FunctionType):
        code = value.__code__
        used = [value.__globals__[name] for name in sorted(_names(code)) if name in value.__globals__]
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        constants = [constant for constant in code.co_consts if constant is None or constant != value.__doc__]
        return [code.co_code, constants, code.co_names, value.__defaults__, value.__kwdefaults__, cells, used]
    if isinstance(value, types.CodeType):
        return [value.co_code, list(value.co_consts), value.co_names]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (types.ModuleType, type, types.BuiltinFunctionType, np.ufunc)):
        return [getattr(value, "__module__", None), getattr(value, "__qualname__", value.__name__)]
    if hasattr(value, "__array__"):
        return [np.asarray(value)]
    wrapped = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)
    if wrapped is None and callable(value):
        wrapped = type(value).__call__
    return [type(value).__qualname__, wrapped, getattr(value, "__dict__", None)]


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _names(code: types.CodeType) -> set[str]:
    """Names that code refers to, with those of the functions inside it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
