"""Generalized linear models on dataframes of any size."""

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
