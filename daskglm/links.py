"""Links as objects: `daskglm.links.Log()`, `daskglm.links.Power(0.5)`, `daskglm.links.Custom(link=f, inverse=f_inverse)`."""

import typing as _typing

from daskglm.errors import closest as _closest
from daskglm.model.custom import custom as Custom  # noqa: N812
from daskglm.model.custom import verify_link
from daskglm.model.links import (
    Cauchit,
    CLogLog,
    Identity,
    Inverse,
    InverseSquare,
    Link,
    Log,
    LogComplement,
    Logit,
    LogLog,
    Probit,
    Sqrt,
)
from daskglm.model.links import power as Power  # noqa: N812

__all__ = [
    "CLogLog",
    "Cauchit",
    "Custom",
    "Identity",
    "Inverse",
    "InverseSquare",
    "Link",
    "Log",
    "LogComplement",
    "LogLog",
    "Logit",
    "Power",
    "Probit",
    "Sqrt",
    "verify_link",
]

if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        meant = [known for known in __all__ if known.lower() == name.lower()]
        raise AttributeError(f"daskglm.links has no {name!r}{_closest(name, meant or __all__)}")
