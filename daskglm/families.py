"""Families as objects: `daskglm.families.Poisson()`."""

from daskglm.model.families import Binomial, Family, Gamma, Gaussian, Poisson

__all__ = ["Binomial", "Family", "Gamma", "Gaussian", "Poisson"]
