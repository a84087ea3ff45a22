"""Fits of several responses to the same columns, made in the same passes: `responses(y1, y2) ~ ...`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from daskglm import persist
from daskglm.cluster.folders import Folder, folder_of
from daskglm.cluster.tables import like
from daskglm.errors import ChangedInputError, DataError, DesignError, closest, public, public_methods
from daskglm.result import Fit
from daskglm.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
INDEX = "responses.json"


@public_methods
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
        """Observations that the finite estimates come from (m,), as `Fit.nobs`."""
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

    def predict(self, data: Any, type: str = "mean", **options: Any) -> Any:
        """Predictions (n, m), a column per response; with errors or limits a column for each pair (response, what).

        The table is of the library of the data; in polars and pyarrow a pair is called
        "se[response]". Options are those of `Fit.predict`. One decode of the data for each
        response.
        """
        import pandas as pd

        found = {name: fit.predict(data, type=type, **options) for name, fit in self._fits.items()}
        if all(isinstance(part, (pd.Series, pd.DataFrame)) for part in found.values()):
            return pd.concat(found, axis=1)
        if not all(hasattr(part, "to_pandas") for part in found.values()):
            raise DesignError("lazy predictions are made response by response: fits[name].predict(data)")
        table = pd.concat({name: part.to_pandas() for name, part in found.items()}, axis=1)
        names = [f"{key[1]}[{key[0]}]" if isinstance(key, tuple) else key for key in table.columns]
        return like(data, names, list(table.to_numpy().T), False)

    def summary(self, conf_int: bool = False, level: float = 0.95) -> Summaries:
        """The summaries of all responses, as `Fit.summary` gives them."""
        return Summaries({name: fit.summary(conf_int, level) for name, fit in self._fits.items()})

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """The tables of `Fit.to_frame`, a row for each pair (response, parameter)."""
        import pandas as pd

        frames = {response: fit.to_frame(level) for response, fit in self._fits.items()}
        return pd.concat(frames, names=["response", "parameter"])

    def save(self, path: str | os.PathLike[str], *, publish: str | None = None) -> None:
        """Write a folder with a model for each response, for `daskglm.load` to read together or singly.

        path, publish: as in `Fit.save`; the models are published together.
        """
        saved = save(self, path, publish)
        if publish is None:
            saved.warn()

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

    def __init__(self, summaries: dict[str, Summary]) -> None:
        self._summaries = summaries

    def as_text(self) -> str:
        """Plain text, response after response."""
        parts = [f"Response {name}\n\n{found.as_text()}" for name, found in self._summaries.items()]
        return "\n\n".join(parts)

    def as_html(self) -> str:
        """An HTML fragment."""
        return "".join(found.as_html() for found in self._summaries.values())

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


def save(
    result: Fit | Fits, path: str | os.PathLike[str] | Folder, publish: str | None, passed: bool = True
) -> persist.Saved:
    """Write a model, or one for each response, and publish it; see `persist.publishes`."""
    if isinstance(result, Fit):
        return persist.save(result.record, path, publish, passed)
    folder = folder_of(path, persist.COMPLAINT, lasting=True)
    persist.refuse_foreign(folder)
    index = persist.identified(folder, INDEX)
    published = persist.publishes(publish, passed and result.converged, index is not None)
    fits = {f"{number}": result[response] for number, response in enumerate(result)}
    with persist.Runs(folder) as runs:
        before = {name: persist.identified(folder.child(name), persist.CURRENT) for name in fits}
        names = {name: runs.write(fit.record, folder.child(name)) for name, fit in fits.items()}
        if published:
            for name, run in names.items():
                runs.publish(folder.child(name), run, before[name])
            document = {"format": FORMAT, "responses": dict(zip(fits, result, strict=True)), "runs": names}
            tag = None if index is None else index.tag
            if not folder.swap(INDEX, (json.dumps(document, indent=1) + "\n").encode(), tag):
                raise ChangedInputError(
                    f"other models were published in {folder.place} while these were written: "
                    f"these are kept in {', '.join(runs.places)}"
                )
    return persist.Saved(folder.place, runs.places, published)


@public
def load(path: str | os.PathLike[str]) -> Fit | Fits:
    """Read a model saved by `save` or by the command line: a Fit, or Fits of several responses.

    path: the folder or s3:// URL of a model, of which the published run is read, or of one run in it.
    Nothing in it is executed; a family or link of one's own is found in modules that are imported.
    """
    folder = folder_of(path, "{place} cannot be read")
    names = set(folder.names())
    if INDEX not in names:
        if names and not names & {persist.CURRENT, "model.json", "runs"}:
            _refuse_unpublished(folder)
        return Fit(persist.load(folder))
    place = f"{folder.place}/{INDEX}"
    try:
        document = json.loads(folder.read(INDEX).decode("utf-8"))
        responses, runs = dict(document["responses"]), dict(document.get("runs", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} is damaged: {' '.join(str(error).split())}") from None
    if document.get("format") != FORMAT:
        raise DataError(f"{place} has format {document.get('format')}, this version reads format {FORMAT}")
    if any(os.path.basename(name) != name or name in ("", ".", "..") for name in (*responses, *runs.values())):
        raise DataError(f"{place} names a folder outside")
    fits = {}
    for name, response in responses.items():
        inner = folder.child(name)
        fits[response] = Fit(persist.load(inner.child("runs").child(runs[name]) if name in runs else inner))
    return Fits(fits)


def _refuse_unpublished(folder: Folder) -> None:
    """Raise DesignError where there are models of several responses none of which was published."""
    persist.refuse_unpublished(
        folder.child("0"), f"{folder.place} holds models of several responses that were not published: "
    )  # fmt: skip
