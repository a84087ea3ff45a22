"""Small data for every pair of family and link, and the same sums with X written out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from daskglm.kernels import reference
from daskglm.kernels.blocks import Block, Levels, Scaling, Sparse
from daskglm.model.likelihoods import GLM
from daskglm.totals.moments import Model
from tests.laws.exact import DISTRIBUTIONS, FAMILIES, LINKS

Vector = npt.NDArray[np.float64]

# Intercept first; slopes so small that every link has a possible mean for every row.
INTERCEPTS = {
    "identity": 0.5,
    "log": -0.9,
    "logit": -0.4,
    "probit": 0.2,
    "cloglog": -0.5,
    "loglog": -0.2,
    "cauchit": 0.3,
    "log_complement": -0.9,
    "inverse": 1.5,
    "inverse_square": 1.5,
    "sqrt": 1.2,
    "power(0.3)": 1.2,
}
# A linear predictor of the null model with a mean that every family has, beside offsets of up to 0.1 either way.
NULLS = {
    **dict.fromkeys(INTERCEPTS, -0.4),
    "identity": 0.3,
    "probit": 0.3,
    "inverse": 0.7,
    "inverse_square": 0.7,
    "sqrt": 0.7,
    "power(0.3)": 0.7,
}


@dataclass(frozen=True)
class Problem:
    """A block, a model of it, coefficients at which every mean is possible, and X (n, p)."""

    block: Block
    model: Model
    coef: Vector
    x: Vector

    @property
    def family(self) -> str:
        """Its text."""
        text: str = self.model.likelihood.family.text
        return text

    @property
    def eta(self) -> Vector:
        """Linear predictors."""
        eta = self.x @ self.coef
        return eta if self.block.offset is None else eta + self.block.offset

    @property
    def weight(self) -> Vector:
        """Weights, 1 where there are none."""
        return np.ones(self.block.n) if self.block.weight is None else self.block.weight.astype(np.float64)


def likelihood(family: str, link: str) -> GLM:
    """By names."""
    return GLM(FAMILIES[family](), LINKS[link]())


def problem(
    family: str,
    link: str,
    n: int = 300,
    *,
    weight: str | None = None,
    offset: bool = False,
    trials: bool = False,
    frequency: bool = False,
    valued: bool = False,
    seed: int = 0,
    sparse: int = 0,
) -> Problem:
    """Two dense columns and a factor of three levels, the first of which is the baseline.

    weight: None, "counts" or "real"; trials: the response is a proportion of up to nine; sparse: columns of a sparse
    piece beside them.
    """
    rng = np.random.default_rng(seed)
    levels = Levels(rng.integers(0, 3, n).astype("i1"), 3, rng.normal(size=n) if valued else None)
    block = Block(n, (rng.normal(5.0, 2.0, n), rng.integers(0, 4, n).astype("i2")), (levels,), np.zeros(n))
    scaling = Scaling(np.array([4.9, 1.6]), np.array([0.5, 0.8]), np.array([0.9 if valued else 1.0]))
    select = np.array([0, 1, 2, 4, 5])
    model = Model(likelihood(family, link), select, block.width, scaling, frequency)
    coef = np.array([INTERCEPTS[link], 0.04, -0.05, 0.06, -0.03])
    if sparse:
        written = rng.uniform(-1.0, 1.0, (n, sparse)) * (rng.random((n, sparse)) < 0.3)
        block = replace(block, sparse=Sparse.of(csr_array(written)))
        scaling = replace(scaling, sparse_scale=rng.uniform(0.5, 2.0, sparse))
        # the first of the sparse columns stays out
        select = np.concatenate([select, np.arange(7, 6 + sparse)])
        model = Model(likelihood(family, link), select, block.width, scaling, frequency)
        coef = np.concatenate([coef, rng.uniform(-0.02, 0.02, sparse - 1)])
    x = reference.matrix(block, scaling)[:, select]
    extras = {}
    if offset:
        extras["offset"] = rng.uniform(-0.1, 0.1, n)
    if weight is not None:
        extras["weight"] = rng.integers(1, 5, n).astype(float) if weight == "counts" else rng.uniform(0.2, 3.0, n)
    size = np.ones(n)
    if trials:
        size = rng.integers(1, 10, n).astype(float)
        extras["trials"] = size.astype("i4")
        extras["weight"] = extras.get("weight", np.ones(n)) * size
    mu = model.likelihood.mean_of(x @ coef + extras.get("offset", 0.0))
    one = FAMILIES[family]()
    phi = one.dispersion if one.dispersion_known else 0.3
    distribution, multiple = DISTRIBUTIONS[family](mu, phi, size.astype(int))
    y = distribution.rvs(random_state=rng) / multiple
    return Problem(replace(block, y=np.asarray(y, np.float64), **extras), model, coef, x)
