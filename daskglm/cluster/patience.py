"""How long nothing may happen: in a cluster, and in a store of objects."""

from __future__ import annotations

import os

# Seconds without any progress after which a fit gives up.
PATIENCE = 60.0
VARIABLE = "DASKGLM_PATIENCE"


def patience() -> float:
    """Seconds without any progress that the environment (DASKGLM_PATIENCE) or the package allows."""
    try:
        return max(float(os.environ.get(VARIABLE, PATIENCE)), 1.0)
    except ValueError:
        return PATIENCE
