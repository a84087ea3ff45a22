"""A function whose journeys are counted."""

from __future__ import annotations

from typing import Any

import numpy as np

pickled: list[int] = []


class Heavy:
    """One number per row; it notes how often it is pickled in this process."""

    def __init__(self, size: int = 1_000_000) -> None:
        self.blob = b"x" * size

    def __call__(self, part: Any, *others: Any) -> Any:
        return np.zeros((len(part), 1))

    def __dask_tokenize__(self) -> Any:
        return "heavy", len(self.blob)

    def __reduce__(self) -> Any:
        pickled.append(1)
        return Heavy, (len(self.blob),)
