"""Links as objects: `daskglm.links.Log()`."""

from daskglm.model.links import CLogLog, Identity, Inverse, Link, Log, Logit, Probit, Sqrt

__all__ = ["CLogLog", "Identity", "Inverse", "Link", "Log", "Logit", "Probit", "Sqrt"]
