"""Fits of several responses to the same columns, made in the same passes: `responses(y1, y2) ~ ...`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from daskglm import persist
from daskglm.errors import DataError, DesignError, closest
from daskglm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
INDEX = "responses.json"


@final
class Fits:
    """One model per response, of one family and link, on the same rows and columns.

    Coefficients and errors are DataFrames, a row per parameter and a column per response; what a Fit gives as a number is
    a Series over the responses. `fits["y1"]` is the Fit of one response, with all it can do; it equals the fit of that
    response alone on the same rows. Models of different responses share no parameter, and errors none between them.
    """

    def __init__(self, fits: dict[str, Fit]) -> None:
        self._fits = fits

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the responses, in the order of the formula."""
        return tuple(self._fits)

    def __getitem__(self, response: str) -> Fit:
        if response not in self._fits:
            raise DesignError(
                f"there is no response {response!r}{closest(response, self._fits)}; responses: {', '.join(self._fits)}"
            )
        return self._fits[response]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fits)

    def __len__(self) -> int:
        return len(self._fits)

    # -- per parameter ---------------------------------------------------------------------------------------------

    @property
    def params(self) -> pd.DataFrame:
        """Estimates (p, m)."""
        return self._table("params")

    @property
    def bse(self) -> pd.DataFrame:
        """Standard errors (p, m)."""
        return self._table("bse")

    @property
    def tvalues(self) -> pd.DataFrame:
        """params / bse (p, m)."""
        return self._table("tvalues")

    @property
    def pvalues(self) -> pd.DataFrame:
        """Two-sided p-values (p, m)."""
        return self._table("pvalues")

    # -- per response ----------------------------------------------------------------------------------------------

    @property
    def deviance(self) -> pd.Series:
        """Residual deviances (m,)."""
        return self._series("deviance")

    @property
    def null_deviance(self) -> pd.Series:
        """Deviances of the intercept-only models (m,)."""
        return self._series("null_deviance")

    @property
    def llf(self) -> pd.Series:
        """Log-likelihoods (m,)."""
        return self._series("llf")

    @property
    def aic(self) -> pd.Series:
        """-2 llf + 2 k (m,)."""
        return self._series("aic")

    @property
    def bic(self) -> pd.Series:
        """-2 llf + log(nobs) k (m,)."""
        return self._series("bic")

    @property
    def scale(self) -> pd.Series:
        """Dispersions (m,)."""
        return self._series("scale")

    @property
    def df_resid(self) -> pd.Series:
        """Residual degrees of freedom (m,)."""
        return self._series("df_resid")

    @property
    def nobs(self) -> pd.Series:
        """Observations (m,)."""
        return self._series("nobs")

    @property
    def shape_params(self) -> dict[str, dict[str, float]]:
        """Estimates beside the coefficients, by response: "theta", "power", "dispersion", "shape"."""
        return {response: fit.shape_params for response, fit in self._fits.items()}

    @property
    def shape_bse(self) -> dict[str, dict[str, float]]:
        """Their standard errors."""
        return {response: fit.shape_bse for response, fit in self._fits.items()}

    @property
    def separated(self) -> dict[str, tuple[str, ...]]:
        """Parameters whose estimate is infinite, by response."""
        return {response: fit.separated for response, fit in self._fits.items()}

    @property
    def aliased(self) -> dict[str, tuple[str, ...]]:
        """Parameters that are not estimated, by response: of the same columns the same, unless separated rows are gone."""
        return {response: fit.aliased for response, fit in self._fits.items()}

    def conf_int(self, **options: Any) -> pd.DataFrame:
        """Intervals (p, 2 m), a column for each pair (response, limit); options are those of `Fit.conf_int`."""
        import pandas as pd

        return pd.concat({response: fit.conf_int(**options) for response, fit in self._fits.items()}, axis=1)

    @property
    def converged(self) -> bool:
        """Whether every optimum was reached."""
        return all(fit.converged for fit in self._fits.values())

    # -- faces -----------------------------------------------------------------------------------------------------

    def predict(self, data: Any, type: str = "mean", **options: Any) -> pd.DataFrame:
        """Predictions (n, m), a column per response; with errors or limits a column for each pair (response, what).

        Options are those of `Fit.predict`. One decode of the data for each response.
        """
        import pandas as pd

        found = {name: fit.predict(data, type=type, **options) for name, fit in self._fits.items()}
        if not all(isinstance(part, (pd.Series, pd.DataFrame)) for part in found.values()):
            raise DesignError("lazy predictions are made response by response: fits[name].predict(data)")
        return pd.concat(found, axis=1)

    def summary(self) -> Summaries:
        """The summaries of all responses."""
        return Summaries(self._fits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """A folder with a model for each response, which `daskglm.load` reads as a whole or one by one."""
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / INDEX).exists())):
            raise DesignError(f"{folder} holds other files: give a new or an empty folder for the models")
        names = [f"{i}" for i in range(len(self._fits))]
        for name, fit in zip(names, self._fits.values(), strict=True):
            persist.save(fit.record, folder / name)
        document = {"format": FORMAT, "responses": dict(zip(names, self._fits, strict=True))}
        draft = folder / f".{INDEX}.{os.getpid()}"
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, folder / INDEX)

    def __repr__(self) -> str:
        return f"<Fits of {', '.join(self._fits)}{'' if self.converged else ', not converged'}>"

    def _repr_html_(self) -> str:
        return self.summary().as_html()

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({response: getattr(fit, name) for response, fit in self._fits.items()})

    def _series(self, name: str) -> pd.Series:
        import pandas as pd

        return pd.Series({response: float(getattr(fit, name)) for response, fit in self._fits.items()})


@final
class Summaries:
    """Prints as text; a notebook shows `as_html()`."""

    def __init__(self, fits: dict[str, Fit]) -> None:
        self._fits = fits

    def as_text(self) -> str:
        """Plain text, response after response."""
        parts = [f"Response {name}\n\n{fit.summary().as_text()}" for name, fit in self._fits.items()]
        return "\n\n".join(parts)

    def as_html(self) -> str:
        """An HTML fragment."""
        return "".join(fit.summary().as_html() for fit in self._fits.values())

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()


def fitted(records: list[Any]) -> Fit | Fits:
    """A Fit of one record; Fits of several."""
    if len(records) == 1:
        return Fit(records[0])
    return Fits({record.specification.response: Fit(record) for record in records})


def load(path: str | os.PathLike[str]) -> Any:
    """A model saved by `save` or by the command line: a Fit, or Fits of several responses. Nothing in it is executed;
    a family or link of one's own is found in modules that are imported already.
    """
    folder = Path(path)
    if not (folder / INDEX).exists():
        return Fit(persist.load(folder))
    try:
        document = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = dict(document["responses"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / INDEX} is damaged: {' '.join(str(error).split())}") from None
    if document.get("format") != FORMAT:
        raise DataError(f"{folder / INDEX} has format {document.get('format')}, this version reads format {FORMAT}")
    if any(os.path.basename(name) != name or name in ("", ".", "..") for name in names):
        raise DataError(f"{folder / INDEX} names a folder outside")
    return Fits({response: Fit(persist.load(folder / name)) for name, response in names.items()})
