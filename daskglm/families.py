"""Families as objects: `daskglm.families.Tweedie(power=1.5)`."""

import typing as _typing

from daskglm.errors import closest as _closest
from daskglm.model.canonical import VectorFamily, vector_form
from daskglm.model.classes import Multinomial, Ordinal
from daskglm.model.counts import Geometric, NegativeBinomial
from daskglm.model.exponential import ExponentialFamily
from daskglm.model.families import Binomial, Exponential, Family, Gamma, Gaussian, InverseGaussian, Poisson
from daskglm.model.pairs import pairs
from daskglm.model.power import Tweedie
from daskglm.model.quasi import Quasi, Quasibinomial, Quasipoisson

__all__ = [
    "Binomial",
    "Exponential",
    "ExponentialFamily",
    "Family",
    "Gamma",
    "Gaussian",
    "Geometric",
    "InverseGaussian",
    "Multinomial",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "Quasi",
    "Quasibinomial",
    "Quasipoisson",
    "Tweedie",
    "VectorFamily",
    "pairs",
    "vector_form",
]

if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        meant = [known for known in __all__ if known.lower() == name.lower()]
        raise AttributeError(f"daskglm.families has no {name!r}{_closest(name, meant or __all__)}")
