"""Compiled kernels. A module is loaded when first used, and a kernel when first called: numba takes its time."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskglm.kernels.native import clusters, moments, products, resampling, sparse

__all__ = ["clusters", "moments", "products", "resampling", "sparse"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(name)
        return importlib.import_module(f"{__name__}.{name}")
