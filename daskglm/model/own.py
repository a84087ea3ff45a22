"""Functions of one's own, known by import path: a saved model and a cluster hold "module:name", never code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

from daskglm.errors import DesignError


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
