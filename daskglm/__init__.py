"""Generalized linear models on dataframes of any size."""

from daskglm import errors, families, links
from daskglm.api import glm, plan
from daskglm.model.weights import Frequency, Probability, Trials, Variance
from daskglm.result import Fit, load
from daskglm.version import __version__

__all__ = [
    "Fit",
    "Frequency",
    "Probability",
    "Trials",
    "Variance",
    "__version__",
    "errors",
    "families",
    "glm",
    "links",
    "load",
    "plan",
]
