"""The Fit a user holds: names as in statsmodels' GLMResults, methods that only delegate, and no data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pyarrow as pa

from daskglm import effects, marginal_means, persist, relativities, summary
from daskglm.cluster.collections import beside, is_array, is_collection, mapped
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import from_arrays, is_sparse
from daskglm.design.columns import Ledger
from daskglm.errors import DesignError, closest
from daskglm.inference import distributions, hypotheses
from daskglm.marginal_means import MarginalMeans
from daskglm.model import canonical
from daskglm.plan import refuse_unknown
from daskglm.predict import Prediction, predict, result_columns, scorer
from daskglm.record import Certificate, FitRecord

if TYPE_CHECKING:
    import pandas as pd


# Words of the contract that a later version will speak.
LATER = (
    "residuals", "influence", "lr_test", "score_test", "anova", "drop1", "add1", "plot",
)  # fmt: skip


@final
class Fit:
    """A fitted generalized linear model.

    It holds coefficients, covariance and sums, and no data: a method that needs rows again takes them as an argument.
    """

    def __init__(self, record: FitRecord) -> None:
        self.record = record

    # -- per parameter ---------------------------------------------------------------------------------------------

    @property
    def params(self) -> Any:
        """Estimates by parameter name; NaN where aliased, -inf or inf where separated. A Series; of a multinomial model a DataFrame, a row per term and
        a column per class but the reference. Thresholds of an ordinal model follow its slopes.
        """
        return self._shaped(self.record.coefficients)

    @property
    def bse(self) -> Any:
        """Standard errors, from the covariance that was asked for; laid out as `params`."""
        return self._shaped(self._errors())

    @property
    def tvalues(self) -> Any:
        """params / bse: t where the dispersion was estimated, z where it is known."""
        return self.params / self.bse

    @property
    def pvalues(self) -> Any:
        """Two-sided p-values of `tvalues`."""
        return self._shaped(distributions.p_value(self.record.statistics, self.record.coefficients / self._errors()))

    @property
    def shape_params(self) -> dict[str, float]:
        """Estimates of parameters beside the coefficients: "theta", "power", "dispersion", "shape"."""
        return {name: value for name, (value, _) in self.record.shape.items()}

    @property
    def shape_bse(self) -> dict[str, float]:
        """Their standard errors, from the observed information at the reported coefficients."""
        return {name: error for name, (_, error) in self.record.shape.items()}

    def conf_int(
        self,
        *,
        level: float = 0.95,
        method: str = "wald",
        dist: str | None = None,
        data: Any = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Wald intervals, params -+ q bse, with the quantile of the test's distribution unless `dist` names another.

        level: coverage; dist: "normal" or "t". Columns lower, upper. No pass over data.
        """
        import pandas as pd

        if "alpha" in options:
            raise DesignError("there is no option 'alpha'; here it is level= (0.95 for alpha=0.05)")
        refuse_unknown(options, ["level", "method", "dist", "data"])
        if not 0.0 < level < 1.0:
            raise DesignError(f"level must be between 0 and 1, not {level!r}")
        if method != "wald":
            raise DesignError(f'method={method!r} is not available in this version; there is "wald"')
        if data is not None:
            raise DesignError("Wald intervals need no data: leave data= out")
        if dist not in (None, "normal", "t"):
            raise DesignError(f'dist must be "normal" or "t", not {dist!r}')
        quantile = distributions.quantile(self.record.statistics, level, dist)  # type: ignore[arg-type]
        center, half = self.record.coefficients, quantile * self._errors()
        return pd.DataFrame({"lower": center - half, "upper": center + half}, index=list(self.record.names))

    def cov_params(self, kind: str | None = None, data: Any = None) -> pd.DataFrame:
        """Covariance of the parameters, NaN where aliased. No pass over data."""
        import pandas as pd

        if data is not None or kind not in (None, self.record.specification.covariance):
            raise DesignError(
                f"only the covariance that was fitted ({self.record.specification.covariance}) is available in this "
                "version: ask for another with covariance= in glm()"
            )
        return pd.DataFrame(self.record.covariance, index=list(self.record.names), columns=list(self.record.names))

    # -- of the fit ------------------------------------------------------------------------------------------------

    @property
    def deviance(self) -> float:
        """Twice the log-likelihood ratio to the saturated model, at phi = 1: sum w d(y, mu)."""
        return self.record.statistics.deviance

    @property
    def null_deviance(self) -> float:
        """Deviance of the intercept-only model, which keeps the offset."""
        return self.record.statistics.null_deviance

    @property
    def llf(self) -> float:
        """Log-likelihood with every constant; NaN where there is none."""
        return self._likelihood("llf")

    @property
    def aic(self) -> float:
        """-2 llf + 2 k, an estimated dispersion counted."""
        return self._likelihood("aic")

    @property
    def bic(self) -> float:
        """-2 llf + log(nobs) k, an estimated dispersion counted."""
        return self._likelihood("bic")

    @property
    def scale(self) -> float:
        """Dispersion phi."""
        return self.record.statistics.scale

    @property
    def pearson_chi2(self) -> float:
        """sum w (y - mu)^2 / V(mu)."""
        return self.record.statistics.pearson_chi2

    @property
    def df_resid(self) -> float:
        """nobs less the number of estimated coefficients."""
        return self.record.statistics.df_resid

    @property
    def df_null(self) -> float:
        """nobs less one for the intercept."""
        return self.record.statistics.df_null

    @property
    def df_model(self) -> float:
        """df_null - df_resid."""
        return self.df_null - self.df_resid

    @property
    def nobs(self) -> float:
        """Sum of frequencies, or rows of positive weight."""
        return self.record.statistics.nobs

    @property
    def converged(self) -> bool:
        """Whether the optimum was reached; `status` and `record.reason` say more."""
        return self.record.converged

    @property
    def status(self) -> str:
        """ "converged", "floor" (as close as float64 allows), "boundary" (of the possible means), "max_iter" or "stalled"."""
        return self.record.status

    @property
    def n_iter(self) -> int:
        """Steps taken on all rows."""
        return self.record.n_iter

    @property
    def n_passes(self) -> int:
        """Passes over all rows, the closing one included, the decode not."""
        return self.record.n_passes

    @property
    def aliased(self) -> tuple[str, ...]:
        """Parameters that are not estimated, for their columns are combinations of earlier ones."""
        return tuple(self.record.aliased)

    @property
    def separated(self) -> tuple[str, ...]:
        """Parameters whose estimate is infinite; none under separation="drop" and "firth"."""
        return self.record.separated

    @property
    def certificate(self) -> Certificate:
        """How exact the numbers are."""
        return self.record.certificate

    @property
    def ledger(self) -> Ledger:
        """What became of the rows."""
        return self.record.ledger

    @property
    def trace(self) -> pd.DataFrame:
        """One row per step: loss, decrement, halvings."""
        import pandas as pd

        return pd.DataFrame([dict(step) for step in self.record.trace])

    @property
    def formula(self) -> str:
        """As it was given."""
        return self.record.specification.formula

    # -- faces -----------------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """A table as R's summary.glm; prints as text, shows as HTML in a notebook."""
        return Summary(self.record)

    def predict(
        self,
        data: Any,
        type: str = "mean",
        se: bool = False,
        interval: str | None = None,
        level: float | None = None,
        offset: Any = None,
        exposure: Any = None,
        without: Any = (),
        **options: Any,
    ) -> Any:
        """Predictions for new rows: one per row, in order, NaN where a needed value is missing.

        type: "mean", "link" or "terms" (each term's part of the linear predictor). se: also standard errors, by the
        delta method for the mean; of an infinite linear predictor NaN, and 0 of its mean. interval: "confidence", built on
        the link scale and mapped back, at `level`. Offset and exposure are read from the data; `exposure=1` or `offset=0`
        override them (a rate), and beside an array or a sparse matrix they are arrays themselves. without: terms left out.
        A Series named after the type, or a DataFrame where there is more than one column. One decode of the data.
        Of a Dask collection the answer is lazy and of its kind, partition by partition: of a DataFrame a Dask Series or
        DataFrame with the same index, of an array (n, p) an array (n,) or (n, columns); offset and exposure beside an array
        are Dask arrays chunked as its rows are.
        """
        import pandas as pd

        if "unseen" in options:
            raise DesignError("unseen= is settled when the model is fitted: glm(..., unseen=)")
        refuse_unknown(options, ["type", "se", "interval", "level", "offset", "exposure", "without"])
        if level is not None and interval is None:
            raise DesignError('level= is the coverage of an interval: add interval="confidence"')
        dropped = (without,) if isinstance(without, str) else tuple(without)
        wanted = Prediction(type, se, interval, 0.95 if level is None else level, dropped)  # type: ignore[arg-type]
        if is_collection(data):
            return self._lazily(data, wanted, offset, exposure)
        index = data.index if isinstance(data, pd.DataFrame) else None
        if isinstance(data, np.ndarray) or is_sparse(data):
            others = {"offset": offset, "exposure": exposure}
            arrays = {name: np.asarray(v) for name, v in others.items() if isinstance(v, (np.ndarray, pd.Series))}
            source = self._arrays(data, arrays)
            offset, exposure = (name if name in arrays else value for name, value in others.items())
        else:
            source = open_source(data)
        columns = predict(self.record, source, wanted, offset, exposure)
        frame = pd.DataFrame(columns, index=index)
        if type != "terms" and frame.shape[1] == 1:
            return frame.iloc[:, 0]
        return frame

    def _lazily(self, data: Any, wanted: Prediction, offset: Any, exposure: Any) -> Any:
        """Predictions for a Dask collection, as the same kind of collection; nothing is computed yet."""
        given = {"offset": offset, "exposure": exposure}
        others = {n: v for n, v in given.items() if v is not None and not isinstance(v, (str, int, float))}
        arrays = beside(data, others)
        offset, exposure = (name if name in others else value for name, value in given.items())
        source = self._described(data, tuple(arrays))
        needed = scorer(self.record, wanted, source, offset, exposure).reading.columns
        types = {name: source.types[name] for name in needed if name in source.types}
        score = _PredictPart(self.record, wanted, offset, exposure, {} if is_array(data) else types, tuple(arrays))
        columns = score.columns()
        single = columns[0] if wanted.kind != "terms" and len(columns) == 1 else None
        return mapped(data, score, columns, single, list(arrays.values()))

    def _described(self, data: Any, others: tuple[str, ...]) -> Source:
        """A source of the collection's columns and of arrays beside it, to check a request against; nothing is computed."""
        if not is_array(data):
            source = open_source(data)
            # what Dask calls an object may be anything; where the model wants no text, each partition says what it is
            objects = [str(name) for name, kind in data.dtypes.items() if kind == np.dtype(object)]
            kinds = self.record.specification.kinds
            source.types |= {name: pa.null() for name in objects if kinds.get(name) != "factor"}
            return source
        if data.ndim not in (1, 2):
            raise DesignError(f"X must have two dimensions, not {data.ndim}")
        width = 1 if data.ndim == 1 else data.shape[1]
        if np.isnan(width):
            raise DesignError("the number of X's columns is not known: compute_chunk_sizes() finds it")
        empty = type(data._meta) if is_sparse(data._meta) else np.zeros
        return self._arrays(empty((0, int(width))), {name: np.zeros(0) for name in others})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a folder of plain files, which `daskglm.load` reads."""
        persist.save(self.record, path)

    def wald_test(self, hypothesis: Any) -> hypotheses.TestResult:
        """Test linear hypotheses L b = c: a matrix (m, p), names (each zero), or text such as
        "area[T.B] = area[T.C], bonus = 0". Chi-square where the dispersion is known, F where it was estimated.
        """
        s = self.record.statistics
        matrix, value = hypotheses.parse(hypothesis, self.record.names)
        freedom = s.df_resid if s.scale_estimated else None
        return hypotheses.wald(self.record.coefficients, self.record.covariance, matrix, value, freedom)

    def relativities(
        self,
        *,
        level: float = 0.95,
        data: Any = None,
        exposure: str | None = None,
        bands: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """exp(params) with their limits, for models with a log or logit link (odds ratios under logit). No pass.

        With data a table by level: rows (variable, level), of every factor of the model with its baseline at 1, of columns of
        true and false, and of numbers that `bands` cuts at the given points, {"age": [25, 40]} into < 25, [25, 40), >= 40.
        Columns relativity, lower, upper: exp(b_level - b_baseline), of a factor's own columns (where it is part of
        interactions, at the baseline of the others; NaN where it has none), of a band the mean of the number's own columns
        against that of the first band with rows; exposure: sum of m s, with m the weight or trials of a row (1 without) and
        s its exposure, the model's or that of `exposure` (1 without); observed, fitted: sum of m y and of m mu over that;
        rows. One pass, one evaluation per row.
        """
        refuse_unknown(options, ["level", "data", "exposure", "bands"])
        link = self.record.specification.link
        if link not in ("log", "logit"):
            raise DesignError(f"relativities are exp(params), which mean nothing under the {link} link")
        effects.check_level(level)
        if data is not None:
            return relativities.table(self.record, data, level, exposure, bands)
        for name, value in (("exposure", exposure), ("bands", bands)):
            if value is not None:
                raise DesignError(f"{name}= is of rows: give data=, too")
        frame = self.conf_int(level=level)
        frame.insert(0, "relativity", self.record.coefficients)
        if self.record.parameters.kind == "ordered":
            frame = frame.loc[list(self.record.parameters.columns)]
        return frame.apply(np.exp)

    def margins(
        self,
        data: Any,
        at: str = "overall",
        variables: Any = None,
        kind: str = "dydx",
        level: float = 0.95,
        **options: Any,
    ) -> pd.DataFrame:
        """Marginal effects on the mean, with errors by the delta method: of a number x the derivative d mu / d x, of a factor
        the change mu(level) - mu(baseline), the whole row evaluated again with the column set to the level.

        at: "overall", sum_i w_i d mu_i / d x_i / sum_i w_i over the rows, w the fit's weights (trials: each trial counts); or
        "mean", of one row at the weighted mean of every number and in the share of every level, the offset at its mean.
        variables: names of columns of the data, None for all (those of conditions such as C(age > 30) have none). kind:
        "dydx"; "eydx", of log mu; and of numbers alone "dyex", in log x, and "eyex", an elasticity. Derivatives are exact,
        through every term the column is part of, the offset included. Of a response of classes, the effect on each class's
        probability. Columns effect, se, stat, pvalue, lower, upper; rows (variable, contrast), of classes (variable,
        contrast, class). Rows fitted at an infinite estimate count with their limits.
        One pass; at="overall" takes for each number 2 and for each level of a factor 1 evaluation per row and as many
        gradients, times predictors and classes; at="mean" none.
        """
        refuse_unknown(options, ["at", "variables", "kind", "level"])
        return effects.margins(self.record, data, at, variables, kind, level)

    def emmeans(
        self,
        specs: Any,
        data: Any = None,
        at: Mapping[str, Any] | None = None,
        by: Any = None,
        weights: str = "equal",
        type: str = "link",
        level: float = 0.95,
        offset: float | None = None,
        **options: Any,
    ) -> MarginalMeans:
        """Estimated marginal means of the levels of a factor, or of the combinations of several, as R's emmeans: L b with
        the numbers of the model at their means and the linear predictor averaged over the levels of its other factors.

        specs: a column or several; by: columns within whose levels means are compared; at: values of columns, several of
        which are averaged over where the column is neither in specs nor in by. weights: "equal", each level alike, or
        "proportional", as the rows of the levels averaged over. type: "link", or "response": mapped back to the mean with
        its limits. offset: held at its mean unless given, as a number on the scale of the linear predictor (0: a rate).
        Means of numbers and of the offset and shares of levels are weighted by the fit's weights (R's emmeans takes them
        over rows). Without data, means are those that the fit knows: of columns that enter as they are, without weights;
        with data, one pass and no evaluations. NaN where the data do not tell (an empty cell of an interaction).
        The result prints, has `.table` (estimate, se, lower, upper) and `.contrasts(...)`.
        """
        refuse_unknown(options, ["specs", "data", "at", "by", "weights", "type", "level", "offset"])
        request = marginal_means.asked(specs, at, by, weights, type, level, offset)
        return marginal_means.emmeans(self.record, request, data)

    def natural_parameter(self, mean: Any) -> Any:
        """theta = Psi(mu): canonical parameters of means, an array (n,), or (n, K) probabilities of K classes."""
        return canonical.natural_parameter(self.record.family, mean)

    def mean_parameter(self, theta: Any) -> Any:
        """mu = Psi^-1(theta): means of canonical parameters, an array (n,), or (n, K - 1) for K classes."""
        return canonical.mean_parameter(self.record.family, theta)

    def _likelihood(self, name: str) -> float:
        weights = self.record.specification.weights
        if weights is not None and weights[0] == "probability":
            raise DesignError(f"{name} does not exist with probability weights, for which there is no likelihood")
        return float(getattr(self.record.statistics, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in LATER:
            raise AttributeError(f"{name} is not available in this version")
        known = [attribute for attribute in dir(type(self)) if not attribute.startswith("_")]
        raise AttributeError(f"a Fit has no {name!r}{closest(name, known)}")

    def __repr__(self) -> str:
        spec, s = self.record.specification, self.record.statistics
        state = "" if self.converged else ", not converged"
        return f"<Fit {spec.formula!r}, {spec.family} ({spec.link}), {s.nobs:.15g} observations, rank {s.rank}{state}>"

    def _repr_html_(self) -> str:
        return summary.as_html(self.record)

    def _arrays(self, x: Any, others: dict[str, Any]) -> Source:
        """An array's columns under the names they had when the model was fitted to an array like it, and arrays beside."""
        for name, array in others.items():
            if array.shape != (x.shape[0],):
                raise DesignError(f"{name}= has shape {array.shape}, X has {x.shape[0]} rows")
        matrix = self.record.design.matrix
        if matrix is not None:
            from scipy.sparse import csr_array

            rows = x if is_sparse(x) else csr_array(x)
            if rows.ndim != 2 or rows.shape[1] != len(matrix.columns):
                raise DesignError(f"the model needs {len(matrix.columns)} columns, X has {x.shape[-1]}")
            return from_arrays(rows, others, matrix.columns)[0]
        if is_sparse(x):
            raise DesignError("this model was not fitted to a sparse X: pass X.toarray(), or a table with its columns")
        return open_source({**self._named(x), **others})

    def _named(self, x: Any) -> dict[str, Any]:
        """The columns of an array by name."""
        names = [piece.numeric[0] for piece in self.record.design.dense if len(piece.numeric) == 1]
        columns = x[:, None] if x.ndim == 1 else x
        if self.record.design.factors or names != list(self.record.specification.predictors):
            raise DesignError("this model was fitted with a formula: predict needs a table with its columns")
        if columns.ndim != 2:
            raise DesignError(f"X must have two dimensions, not {columns.ndim}")
        if columns.shape[1] != len(names):
            raise DesignError(f"the model needs {len(names)} columns, X has {columns.shape[1]}")
        return dict(zip(names, columns.T, strict=True))

    def _errors(self) -> np.ndarray[Any, Any]:
        with np.errstate(invalid="ignore"):
            return np.sqrt(np.diag(self.record.covariance))

    def _shaped(self, values: Any) -> Any:
        import pandas as pd

        parameters, array = self.record.parameters, np.array(values)
        if parameters.kind == "classes":
            table = array.reshape(len(parameters.classes) - 1, -1).T
            return pd.DataFrame(table, index=list(parameters.columns), columns=list(parameters.classes[1:]))
        return pd.Series(array, index=list(parameters.names))


@final
@dataclass(frozen=True)
class _PredictPart:
    """Predictions of one partition or chunk as an array (m, number of columns), wherever it is.

    types: of the columns of a whole DataFrame, which are those of each partition; others: names of the arrays beside a
    chunk.
    """

    record: FitRecord
    wanted: Prediction
    offset: Any
    exposure: Any
    types: Mapping[str, pa.DataType]
    others: tuple[str, ...] = ()

    def columns(self) -> tuple[str, ...]:
        """Names of the result's columns."""
        return result_columns(self.record, self.wanted)

    def __call__(self, part: Any, *beside: Any) -> np.ndarray[Any, Any]:
        if isinstance(part, np.ndarray) or is_sparse(part):
            arrays = {name: np.asarray(array).ravel() for name, array in zip(self.others, beside, strict=True)}
            source = Fit(self.record)._arrays(part, arrays)
        else:
            source = open_source(part)
            known = {name: kind for name, kind in self.types.items() if not pa.types.is_null(kind)}
            source.types |= {name: kind for name, kind in known.items() if name in source.types}
        found = predict(self.record, source, self.wanted, self.offset, self.exposure, threads=1)
        # without columns, as the terms of a model of the intercept alone, there are still rows
        return np.column_stack([np.empty((part.shape[0], 0)), *(found[name] for name in self.columns())])


@final
class Summary:
    """Prints as text; a notebook shows `as_html()`."""

    def __init__(self, record: FitRecord) -> None:
        self._record = record

    def as_text(self) -> str:
        """Plain text."""
        return summary.text(self._record)

    def as_html(self) -> str:
        """An HTML fragment."""
        return summary.as_html(self._record)

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()
