"""Generalized linear models on dataframes of any size."""

# ruff: noqa: E402
import types as _types
import typing as _typing

from daskglm import interrupts as _interrupts

_interrupts.end_at_once()

from daskglm import errors, families, links
from daskglm.api import glm, plan
from daskglm.comparing import compare
from daskglm.model.describe import describe
from daskglm.model.weights import Cluster, Frequency, Probability, Trials, Variance
from daskglm.result import Fit
from daskglm.several import Fits, load
from daskglm.version import __version__

__all__ = [
    "Cluster",
    "Fit",
    "Fits",
    "Frequency",
    "Probability",
    "Trials",
    "Variance",
    "__version__",
    "compare",
    "describe",
    "errors",
    "families",
    "glm",
    "links",
    "load",
    "plan",
]

# Modules that users call by mistake, and the call that they mean.
_CALLS = {
    "fit": "did you mean dg.glm? dg.glm(formula, data) fits a model",
    "predict": "dg.glm(formula, data).predict(new) predicts",
    "summary": "dg.glm(formula, data).summary() is a summary",
    "result": "dg.Fit is what dg.glm(formula, data) returns",
}


class _Module(_types.ModuleType):
    """A module that says what is meant where it is called."""

    def __call__(self, *_: object, **__: object) -> None:
        name = self.__name__.rpartition(".")[2]
        raise errors.DesignError(f"daskglm.{name} is a module and cannot be called: {_CALLS[name]}")


def __dir__() -> list[str]:
    return list(__all__)


if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)
        public = [word for word in __all__ if not word.startswith("_")]
        hint = errors.closest(name, public) or errors.closest(name.lower(), public)
        raise AttributeError(f"daskglm has no {name!r}{hint}; there are: {', '.join(public)}")


for _name in _CALLS:
    _found = globals().get(_name)
    if isinstance(_found, _types.ModuleType):
        _found.__class__ = _Module
