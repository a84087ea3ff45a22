"""The log-likelihood where its constant needs the dispersion, which is known only after the closing pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from daskglm.kernels.blocks import Block
from daskglm.model.family import Family
from daskglm.totals.moments import Model, sizes


@final
@dataclass(frozen=True)
class Number:
    """A sum of one number."""

    value: float

    def __add__(self, other: Number) -> Number:
        return Number(self.value + other.value)


def saturated(block: Block, family: Family, phi: float, counts: bool) -> Number:
    """sum f log p(y; mean y, phi / w) over the rows of a block; counts: whether weights count rows."""
    frequency, size = sizes(block, counts, 0, block.n)
    with np.errstate(all="ignore"):
        return Number(float(np.sum(frequency * family.saturated(block.y.astype(np.float64), size, phi))))


def null_deviance(block: Block, model: Model, value: float) -> Number:
    """sum w d(y, mu) at the linear predictor value + offset."""
    family, link = model.likelihood.family, model.likelihood.link
    y = block.y.astype(np.float64)
    eta = np.full(block.n, value) if block.offset is None else block.offset + value
    with np.errstate(all="ignore"):
        mu, _, rest = link.inverse(eta, family.bounded)
        deviance = family.unit_deviance(y, mu, rest)
    return Number(float(np.sum(deviance if block.weight is None else deviance * block.weight)))
