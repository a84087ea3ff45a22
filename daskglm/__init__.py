"""Generalized linear models on dataframes of any size."""

import importlib as _importlib
import types as _types
import typing as _typing

from daskglm import interrupts as _interrupts
from daskglm.version import __version__

if _typing.TYPE_CHECKING:
    from daskglm import errors, families, links
    from daskglm.api import glm, plan
    from daskglm.comparing import compare
    from daskglm.model.describe import describe
    from daskglm.model.weights import Cluster, Frequency, Probability, Trials, Variance
    from daskglm.result import Fit
    from daskglm.several import Fits, load

_interrupts.end_at_once()

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
        errors = _importlib.import_module("daskglm.errors")
        name = self.__name__.rpartition(".")[2]
        raise errors.DesignError(f"daskglm.{name} is a module and cannot be called: {_CALLS[name]}")


def __dir__() -> list[str]:
    return list(__all__)


# Where the public names are. They are loaded together when the first is used, for that takes a second.
_HOMES = {
    "api": ("glm", "plan"),
    "comparing": ("compare",),
    "model.describe": ("describe",),
    "model.weights": ("Cluster", "Frequency", "Probability", "Trials", "Variance"),
    "result": ("Fit",),
    "several": ("Fits", "load"),
}
_MODULES = ("errors", "families", "links")
_state = {"loading": False}


def _load() -> None:
    """Bind every public name."""
    _state["loading"] = True
    try:
        found = {name: _importlib.import_module(f"daskglm.{name}") for name in _MODULES}
        homes = {home: _importlib.import_module(f"daskglm.{home}") for home in _HOMES}
    finally:
        _state["loading"] = False
    # after all imports: modules of the same names were bound by these
    globals().update(found, **{name: getattr(homes[home], name) for home, names in _HOMES.items() for name in names})
    for name in _CALLS:
        module = globals().get(name)
        if isinstance(module, _types.ModuleType):
            module.__class__ = _Module


if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("_") or _state["loading"]:
            raise AttributeError(name)
        if name in _CALLS:
            # alone, for these modules import each other by this name, too
            module = _importlib.import_module(f"daskglm.{name}")
            module.__class__ = _Module
            return module
        if name in __all__:
            _load()
            return globals()[name]
        errors = _importlib.import_module("daskglm.errors")
        family = _importlib.import_module("daskglm.model.pairs").family_called(name)
        if family is not None:
            raise AttributeError(
                f'daskglm has no {name!r}: families are in dg.families; dg.glm(..., family="{family}")'
            )
        if name in _importlib.import_module("daskglm.links").__all__:
            raise AttributeError(f"daskglm has no {name!r}: links are in dg.links; dg.glm(..., link=dg.links.{name}())")
        public = [word for word in __all__ if not word.startswith("_")]
        hint = errors.closest(name, public) or errors.closest(name.lower(), public)
        raise AttributeError(f"daskglm has no {name!r}{hint}; there are: {', '.join(public)}")
