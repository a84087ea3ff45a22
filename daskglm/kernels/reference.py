"""The kernels' products written out in NumPy with X formed in full: what they must equal, for tests and for reading."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daskglm.kernels.blocks import Block, Scaling, Vector

Matrix = npt.NDArray[np.float64]


def matrix(block: Block, scaling: Scaling) -> Matrix:
    """The raw columns [1 | (dense - shift) scale | indicator of each level times its value | sparse scale] as one
    (n, width) array."""
    columns = [np.ones((block.n, 1))]
    for column, shift, scale in zip(block.dense, scaling.shift, scaling.scale, strict=True):
        columns.append(((column.astype(np.float64) - shift) * scale)[:, None])
    for piece, scale in zip(block.levels, scaling.level_scale, strict=True):
        indicator = (piece.codes[:, None] == np.arange(piece.n_levels)).astype(np.float64)
        columns.append(indicator if piece.value is None else indicator * (piece.value * scale)[:, None])
    if block.sparse is not None:
        written = np.zeros((block.n, block.sparse.n_columns))
        rows = np.repeat(np.arange(block.n), np.diff(block.sparse.indptr))
        written[rows, block.sparse.indices] = block.sparse.data
        columns.append(written * scaling.sparse_scale)
    return np.concatenate(columns, axis=1)


def gather(block: Block, scaling: Scaling, coef: Vector) -> Vector:
    """eta = X b (n,)."""
    return np.asarray(matrix(block, scaling) @ coef)


def scatter(block: Block, scaling: Scaling, weight: Vector, score: Vector) -> tuple[Vector, Matrix]:
    """X's (width,) and X'WX (width, width)."""
    x = matrix(block, scaling)
    return x.T @ score, x.T @ (weight[:, None] * x)


def quadratic_form(block: Block, scaling: Scaling, symmetric: Matrix) -> Vector:
    """x_i' C x_i (n,), C (width, width) symmetric."""
    x = matrix(block, scaling)
    return np.asarray(np.einsum("ij,ij->i", x @ symmetric, x))
