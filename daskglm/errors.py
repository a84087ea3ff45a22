"""What can go wrong, by whose mistake: the request, the data, the solver or the cluster."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable


class DaskglmError(Exception):
    """Any error daskglm raises on purpose: one sentence with the place, the value and the remedy.

    `exit_code` is what the command line returns for it.
    """

    exit_code = 1


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
