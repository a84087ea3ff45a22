"""Moments of one block at several coefficient vectors, in one reading of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from daskglm.kernels.blocks import Block
from daskglm.totals.moments import AnyModel, Moments, Request

# Rows whose columns are still in the processor's second-level cache when the next vector comes by. Fixed, for it decides
# the order of the sums.
CACHED_ROWS = 8_192


@final
@dataclass(frozen=True)
class SeveralMoments:
    """Moments at each of the vectors, in their order."""

    moments: tuple[Moments, ...]

    def __add__(self, other: SeveralMoments) -> SeveralMoments:
        return SeveralMoments(tuple(one + two for one, two in zip(self.moments, other.moments, strict=True)))


def several(block: Block, model: AnyModel, requests: tuple[Request, ...]) -> SeveralMoments:
    """Moments of each request, at coefficients, orders and information of its own.

    Gradients take each run of rows through all vectors before the next is read; a Gram reads for itself.
    """
    found: list[Moments | None] = [None] * len(requests)
    for k, request in enumerate(requests):
        if request.order > 1:
            found[k] = model.sums(block, request)
    cheap = [k for k, request in enumerate(requests) if request.order < 2]
    for start in range(0, max(block.n, 1) if cheap else 0, CACHED_ROWS):
        rows = block if block.n <= CACHED_ROWS else block.rows(start, min(start + CACHED_ROWS, block.n))
        for k in cheap:
            here, before = model.sums(rows, requests[k]), found[k]
            found[k] = here if before is None else before + here
    return SeveralMoments(tuple(sums for sums in found if sums is not None))
