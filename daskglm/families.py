"""Families as objects: `daskglm.families.Tweedie(power=1.5)`."""

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
