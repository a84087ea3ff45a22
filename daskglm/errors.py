"""What can go wrong, by whose mistake: the request, the data, the solver or the cluster."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class", bound=type)

# Set to anything but 0, tracebacks of errors show where in the package they were raised.
DEBUG = "DASKGLM_DEBUG"
# What alpha= of other libraries is where a call has a level.
LEVEL = "level= (0.95 for alpha=0.05)"
# Arguments that a call cannot do without, as messages explain them.
_NEEDED = {"data": "the rows it reads: what the model was fitted to, or data like it", "other": "another fit"}


class DaskglmError(Exception):
    """Any error daskglm raises on purpose: one sentence with the place, the value and the remedy.

    `exit_code` is what the command line returns for it; `on_command_line` is the sentence that it
    prints in place of the message, where the remedy there is another.
    """

    exit_code = 1
    on_command_line: str | None = None


class DesignError(DaskglmError):
    """The request is wrong: a formula, a column name, a pair of family and link, an option, a path."""

    exit_code = 2


class DataError(DaskglmError):
    """The data are wrong: a corrupt file, a response out of range, a value that is not finite."""

    exit_code = 3


class ChangedInputError(DataError):
    """An input changed while it was being read, or has not landed yet; trying again later may succeed."""

    exit_code = 7


class UnavailableError(DataError):
    """An input is in a store that does not answer, or is too busy to; trying again later may succeed."""

    exit_code = 7


class SolverError(DaskglmError):
    """No optimum could be reached, and no model can be reported."""

    exit_code = 4


class ClusterError(DaskglmError):
    """The cluster was lost, cannot be reached, or cannot do the work."""

    exit_code = 5


class AliasWarning(UserWarning):
    """A column is a linear combination of earlier ones; its coefficient is not estimated."""


class ConvergenceWarning(UserWarning):
    """The optimum was not reached to the tolerance asked for."""


class SeparationWarning(UserWarning):
    """A coefficient has no finite estimate."""


class ClusterWarning(UserWarning):
    """The cluster will do the work, but not as well as it could: mixed versions or processors, threads, memory."""


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[Warning]) -> None:
    """A warning that points at whoever called the package: the nearest line that is not of it."""
    frame, level = sys._getframe(0), 1
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def closest(word: object, options: Iterable[str]) -> str:
    """' (did you mean "x"?)', or nothing where no option is near."""
    match = difflib.get_close_matches(str(word), list(options), n=1)
    return f' (did you mean "{match[0]}"?)' if match else ""


def public(
    function: Callable[_Parameters, _Result], name: str | None = None, method: bool = False
) -> Callable[_Parameters, _Result]:
    """Let errors of the package leave a function that users call without the frames inside the
    package, and turn arguments that do not fit its signature into a DesignError. Nothing is hidden
    under DASKGLM_DEBUG=1. name: as users know it; method: whether its first parameter is the object
    it belongs to.
    """
    called = name or function.__name__

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except DaskglmError as error:
            if os.environ.get(DEBUG, "0") not in ("", "0"):
                raise
            found: DaskglmError = _trimmed(error)
        except TypeError:
            misuse = _misuse(called, inspect.signature(function), args, kwargs, int(method))
            if misuse is None:
                raise
            found = DesignError(misuse)
        raise found  # DASKGLM_DEBUG=1 shows where

    return call


def public_methods(kind: _Class) -> _Class:
    """Make every public method and property of a class `public`."""
    for name, value in list(vars(kind).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, property) and value.fget is not None:
            setattr(kind, name, property(public(value.fget, name, True), doc=value.__doc__))
        elif inspect.isfunction(value):
            setattr(kind, name, public(value, name, True))
    return kind


def _trimmed(error: DaskglmError) -> DaskglmError:
    """The error without tracebacks of its own, or of what caused it."""
    cause = error.__cause__
    while cause is not None:
        cause.__traceback__ = None
        cause.__suppress_context__ = True
        cause = cause.__cause__
    error.__suppress_context__ = True
    return error.with_traceback(None)


def _misuse(
    called: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any], skipped: int
) -> str | None:
    """Why these arguments are not those of a function; None where they are. skipped: the number of
    leading ones that users do not give.
    """
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        fields = list(signature.parameters.values())[skipped:]
    else:
        return None
    name = f"{called}()"
    by_name = [field.name for field in fields if field.kind in (field.POSITIONAL_OR_KEYWORD, field.KEYWORD_ONLY)]
    for given in kwargs:
        if given == "alpha" and "level" in by_name:
            return f"{name} has no option 'alpha'; here it is {LEVEL}"
        if given not in by_name:
            return f"{name} has no option {given!r}{closest(given, by_name)}; options: {', '.join(by_name)}"
    own = args[skipped:]
    positional = [field for field in fields if field.kind in (field.POSITIONAL_ONLY, field.POSITIONAL_OR_KEYWORD)]
    if len(own) > len(positional):
        takes = f"{len(positional)} argument(s) without a name" if positional else "no argument without a name"
        call = _named(called, fields, own) if len(own) == len(positional) + 1 else ""
        return f"{name} takes {takes}, and was given {len(own)}{call}; options: {', '.join(by_name)}"
    twice = [field.name for field in positional[: len(own)] if field.name in kwargs]
    if twice:
        return f"{name} was given {twice[0]} twice, with its name and without"
    filled = {field.name for field in positional[: len(own)]} | set(kwargs)
    missing = [f.name for f in fields if f.default is f.empty and f.kind.name[:3] != "VAR" and f.name not in filled]
    needs = [f"{field} ({_NEEDED[field]})" if field in _NEEDED else field for field in missing]
    return f"{name} needs {' and '.join(needs)}"


def _named(called: str, fields: list[inspect.Parameter], own: tuple[Any, ...]) -> str:
    """': write conf_int(level=0.9)' for a last argument that lacks its name, which is taken to be the
    first option that has a name alone and a default of the argument's type; '' where there is none.
    """
    value = own[-1]
    options = [field for field in fields if field.kind is field.KEYWORD_ONLY]
    meant = next((field.name for field in options if type(field.default) is type(value)), None)
    if meant is None or value is None:
        return ""
    before = "..., " if len(own) > 1 else ""
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    return f": write {called}({before}{meant}={shown})"
