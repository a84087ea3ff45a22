"""The fast core on its own: eta, gradient and Gram of 10 float columns and factors of 5, 12, 50 and 300 levels."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import click
import numpy as np

LEVELS = (5, 12, 50, 300)
FLOATS = 10
PARTS = 8


def _median(function: Callable[[], object], repeat: int) -> float:
    function()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _data(rows: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    codes = []
    for count in LEVELS:
        weight = 1.0 / (1.0 + np.arange(count)) ** 0.8
        codes.append(rng.choice(count, size=rows, p=weight / weight.sum()))
    return rng.normal(size=(FLOATS, rows)), codes


def ours(rows: int, repeat: int) -> dict[int, float]:
    """Seconds by number of threads."""
    from daskglm.kernels.blocks import Block, Levels, Scaling, code_dtype
    from daskglm.kernels.products import Gram, Pieces, Workspace, gather
    from daskglm.totals.moments import CHUNK_ROWS

    x, codes = _data(rows)
    bounds = np.linspace(0, rows, PARTS + 1).astype(int)
    weight, score = np.random.default_rng(2).random((2, rows))
    blocks = []
    for start, stop in itertools.pairwise(bounds):
        levels = tuple(Levels(c[start:stop].astype(code_dtype(k)), k) for c, k in zip(codes, LEVELS, strict=True))
        blocks.append(
            (
                start,
                Block(stop - start, tuple(np.ascontiguousarray(c[start:stop]) for c in x), levels, score[start:stop]),
            )
        )

    def work(part: tuple[int, Block]) -> object:
        first, block = part
        pieces = Pieces.of(block, Scaling.none(FLOATS, len(LEVELS)))
        workspace, gram, coef = Workspace(pieces), Gram.zeros(pieces), np.full(block.width, 0.01)
        for start in range(0, block.n, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, block.n)
            gather(pieces, workspace, coef, start, stop, np.zeros(stop - start))
            rows_here = slice(first + start, first + stop)
            gram.take(pieces, workspace, weight[rows_here], score[rows_here], start, stop)
        return gram.matrix() if first == 0 else gram

    result = {}
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            result[threads] = _median(lambda pool=pool: list(pool.map(work, blocks)), repeat)
    return result


def errors(rows: int, repeat: int) -> tuple[float, float]:
    """Seconds of the quadratic forms of all rows, and, by a fiftieth of them, of the same with X written out."""
    from daskglm.kernels import reference
    from daskglm.kernels.blocks import Block, Levels, Scaling, code_dtype
    from daskglm.kernels.products import quadratic_form

    x, codes = _data(rows)
    levels = tuple(Levels(c.astype(code_dtype(k)), k) for c, k in zip(codes, LEVELS, strict=True))
    block = Block(rows, tuple(x), levels, np.zeros(rows))
    scaling, part = Scaling.none(FLOATS, len(LEVELS)), block.rows(0, max(rows // 50, 1))
    matrix = np.eye(block.width)
    form = _median(lambda: quadratic_form(block, scaling, matrix), repeat)
    full = _median(lambda: reference.quadratic_form(part, scaling, matrix), repeat)
    return form, full * rows / part.n


def tabmat_two_threads(rows: int, repeat: int) -> float:
    """tabmat's matvec, transpose_matvec and sandwich on the same data."""
    import pandas as pd
    import tabmat

    x, codes = _data(rows)
    parts = [tabmat.DenseMatrix(np.asfortranarray(x.T))]
    for code, count in zip(codes, LEVELS, strict=True):
        parts.append(
            tabmat.CategoricalMatrix(pd.Categorical.from_codes(code, categories=range(count)), drop_first=True)
        )
    matrix = tabmat.SplitMatrix(parts)
    weight, score = np.random.default_rng(2).random((2, rows))
    coef = np.full(matrix.shape[1], 0.01)

    def work() -> None:
        matrix.matvec(coef)
        matrix.transpose_matvec(score)
        matrix.sandwich(weight)

    return _median(work, repeat)


def report(rows: int, repeat: int) -> None:
    """Print the table."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    seconds = ours(rows, repeat)
    peer = tabmat_two_threads(rows, repeat)
    click.echo(
        f"eta, gradient and Gram, {rows:,} rows, {FLOATS} float columns, factors of {LEVELS} levels; medians of {repeat}"
    )
    click.echo(f"one thread   {seconds[1] * 1e3:7.1f} ms   {peer / seconds[1]:.1f} times as fast as tabmat with two")
    click.echo(f"two threads  {seconds[2] * 1e3:7.1f} ms   {seconds[1] / seconds[2]:.2f} times one thread")
    click.echo(f"tabmat, two  {peer * 1e3:7.1f} ms")
    form, full = errors(rows, repeat)
    click.echo(
        f"x' C x       {form * 1e3:7.1f} ms with one thread, for the error of every row; {full / form:.0f} times as fast as "
        "with rows written out"
    )
