"""Sparse matrices made by NumPy alone: scipy's own generator takes its seed under another name in each of its versions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array


def scattered(shape: tuple[int, int], density: float, rng: np.random.Generator) -> Any:
    """A CSR array with about that part of its entries standard normal, and the others not there."""
    return csr_array(np.where(rng.random(shape) < density, rng.standard_normal(shape), 0.0))
