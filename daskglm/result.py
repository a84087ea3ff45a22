"""The Fit a user holds: names as in statsmodels' GLMResults, methods that only delegate, and no data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import numpy as np

from daskglm import persist
from daskglm.cluster.engine import on_cluster
from daskglm.design.columns import Ledger
from daskglm.errors import DesignError, closest, public_methods
from daskglm.inference import collinearity as collinear
from daskglm.inference import distributions, hypotheses
from daskglm.model import canonical
from daskglm.model.weights import Cluster, cluster_of
from daskglm.plan import check_covariance, refuse_table, refuse_unknown
from daskglm.postestimation import (
    candidates,
    checking,
    comparisons,
    criteria,
    diagnostics,
    effects,
    intervals,
    marginal_means,
    relativities,
    sandwich,
    stepwise,
)
from daskglm.postestimation import influence as measures
from daskglm.postestimation.bootstrap import Bootstrap, bootstrap
from daskglm.postestimation.marginal_means import MarginalMeans
from daskglm.predict import Prediction
from daskglm.record import Certificate, FitRecord
from daskglm.scoring import scored
from daskglm.summary import Limits, Summary, as_html

if TYPE_CHECKING:
    import pandas as pd


# Names of other libraries, and what a fit has in their place.
ELSEWHERE = {
    **dict.fromkeys(("resid", "resid_response"), 'residuals(data, kind="response")'),
    "resid_pearson": 'residuals(data, kind="pearson")',
    "resid_deviance": 'residuals(data, kind="deviance")',
    "resid_working": 'residuals(data, kind="working")',
    "resid_anscombe": 'residuals(data, kind="anscombe")',
    **dict.fromkeys(("coef", "coef_", "coefs", "coefficients", "beta"), "params"),
    "intercept_": 'params["Intercept"]',
    **dict.fromkeys(("rsquared", "prsquared", "pseudo_rsquared"), "r2()"),
    **dict.fromkeys(("fittedvalues", "fitted_values", "fitted", "mu"), "predict(data)"),
    **dict.fromkeys(("predict_proba", "get_prediction"), "predict(data)"),
    **dict.fromkeys(("stderr", "std_errors", "se"), "bse"),
    "zvalues": "tvalues",
    "vcov": "cov_params()",
    "confint": "conf_int()",
    **dict.fromkeys(("loglik", "loglike", "log_likelihood"), "llf"),
    **dict.fromkeys(("t_test", "f_test"), "wald_test(hypothesis)"),
    "get_margeff": "margins(data)",
    "get_influence": "influence(data)",
}
# Words of the contract that a later version will speak.
LATER = (
    "plot",
)  # fmt: skip


@public_methods
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
        """Estimates by parameter name; NaN where aliased, -inf or inf where separated.

        A Series; of a multinomial model a DataFrame, with a row per term and a column per class but
        the reference. Thresholds of an ordinal model follow its slopes.
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
        # of a perfect fit the errors are 0
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self.record.coefficients / self._errors()
        return self._shaped(distributions.p_value(self.record.statistics, values))

    @property
    def shape_params(self) -> dict[str, float]:
        """Estimates of parameters beside the coefficients: "theta", "power", "dispersion", "shape"."""
        return {name: value for name, (value, _) in self.record.shape.items()}

    @property
    def shape_bse(self) -> dict[str, float]:
        """Their standard errors, from the observed information at the reported coefficients."""
        return {name: error for name, (_, error) in self.record.shape.items()}

    @on_cluster
    def conf_int(
        self,
        *,
        level: float = 0.95,
        method: str = "wald",
        dist: str | None = None,
        data: Any = None,
        params: Any = None,
        client: Any = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Intervals for the parameters, or those named in `params`: columns lower, upper.

        method "wald": params -+ q bse, with the quantile of the test's distribution unless `dist` ("normal" or "t") names
        another. No pass over data.

        method "profile", with the `data` of the fit: where 2 (l_max - l_profile(b)) / phi is q
        squared, at the reported phi and with parameters beside the coefficients held and q as
        above; dist="normal" gives R's limits (MASS's confint). -inf and inf where the likelihood
        stays above that, NaN where there is no limit to give; `attrs["notes"]` says why. One pass
        with a Gram, then about two to eight with a gradient for each limit still open: 2 x
        parameters row x vector evaluations a pass (with a Gram each where rows are few). Venzon and
        Moolgavkar (1988).
        """
        import pandas as pd

        refuse_unknown(options, ["level", "method", "dist", "data", "params", "client"])
        if not 0.0 < level < 1.0:
            raise DesignError(f"level must be between 0 and 1, not {level!r}")
        if dist not in (None, "normal", "t"):
            raise DesignError(f'dist must be "normal" or "t", not {dist!r}')
        if method == "profile":
            return self._profile(level, dist, data, params)
        if method != "wald":
            raise DesignError(f'method must be "wald" or "profile", not {method!r}')
        if data is not None:
            raise DesignError('Wald intervals need no data: leave data= out, or say method="profile"')
        quantile = distributions.quantile(self.record.statistics, level, dist)  # type: ignore[arg-type]
        center, half = self.record.coefficients, quantile * self._errors()
        frame = pd.DataFrame({"lower": center - half, "upper": center + half}, index=list(self.record.names))
        return frame.loc[list(intervals.chosen(self.record, params))]

    def _profile(self, level: float, dist: str | None, data: Any, params: Any) -> pd.DataFrame:
        import pandas as pd

        if data is None:
            raise DesignError("profile intervals need the rows again: data= takes what the model was fitted to")
        found = intervals.profile_intervals(self.record, data, level, params, dist)  # type: ignore[arg-type]
        frame = pd.DataFrame(found.limits, index=list(found.names), columns=["lower", "upper"])
        frame.attrs |= {"notes": found.notes, "passes": found.passes}
        return frame

    @on_cluster
    def bootstrap(
        self,
        data: Any,
        *,
        replicates: int = 1000,
        method: str = "one-step",
        seed: int = 0,
        key: Any = None,
        level: float = 0.95,
        client: Any = None,
    ) -> Bootstrap:
        """Replicates of the estimates, every row drawn Poisson(1) times (Poisson(f) for a frequency f) in each.

        The draws are hashed from seed, replicate and the values of the `key` columns: the same in any order and partition,
        and rows of one key form a cluster that is drawn as one; without a key from the file's place in the lake and the
        row's number in the file.
        method "one-step": b + H^-1 g_r, with the expected information H of all rows (observed, of ordered classes) and g_r the
        gradient under the weights: linear, so its covariance tends to HC0 (with a key, the clustered one without correction).
        One pass: a Gram and `replicates` gradients. "full": refits, all side by side, about four passes of
        `replicates` Grams. Parameters beside the coefficients are held. Chamandy et al. (2012).
        """
        return bootstrap(self.record, data, replicates, method, seed, key, level)

    @on_cluster
    def cov_params(self, kind: str | Cluster | None = None, data: Any = None, *, client: Any = None) -> pd.DataFrame:
        """Covariance of the parameters (r, r), NaN where aliased or infinite: the one that was fitted, or with data, the rows
        that the model was fitted to, another.

        kind: "model", phi H^-1 with H the expected information (ordinal: observed); "observed"; "HC0" to "HC3",
        H^-1 (sum s s') H^-1 with the scores s of rows, HC1 times n / (n - k), HC2 and HC3 with leverages taken out of s by
        (I - H)^(-1/2) and (I - H)^-1; a `Cluster`, with the sums of scores by cluster in place of s. Passes: none for the
        fitted one; one for "model", HC0, HC1, two for "observed"; one for HC2 and HC3 and 2^w - 1 for w ways of clustering,
        and one more for these where the fit does not hold the errors of its model. Each pass is one row x vector evaluation,
        and a Gram or, for clusters, the squares of what a cluster's rows touch; HC2 and HC3 also the square of a row's entries.
        """
        import pandas as pd

        refuse_table("cov_params(kind, data)", "kind comes", kind)
        fitted = self.record.specification.covariance
        asked = fitted if kind is None else kind.text if isinstance(kind, Cluster) else kind
        matrix = self.record.covariance
        notes: tuple[str, ...] = ()
        if data is not None:
            matrix, notes = sandwich.covariance_and_notes(self.record, self._again(kind), data)
        elif asked != fitted:
            check_covariance(kind, None, "kind")
            sandwich.refuse_without_data(self._again(kind), fitted)
        frame = pd.DataFrame(matrix, index=list(self.record.names), columns=list(self.record.names))
        frame.attrs["notes"] = notes
        return frame

    def _again(self, kind: str | Cluster | None) -> str | Cluster:
        """The kind asked for; None: the fitted one."""
        if kind is not None:
            return kind
        fitted = self.record.specification.covariance
        return cluster_of(fitted) if fitted.startswith("cluster(") else fitted

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
    def aicc(self) -> float:
        """aic + 2 k (k + 1) / (nobs - k - 1), k as aic counts."""
        self._likelihood("aic")
        return criteria.aicc(self.record)

    def qaic(self, chat: float | None = None) -> float:
        """-2 llf / chat + 2 k, k as aic counts; chat None: pearson_chi2 / df_resid. For families of known dispersion."""
        self._likelihood("aic")
        return criteria.qaic(self.record, chat)

    @property
    def deviance_explained(self) -> float:
        """1 - deviance / null_deviance."""
        return criteria.deviance_explained(self.record)

    def r2(self, kind: str = "mcfadden") -> float:
        """Pseudo R-squared "mcfadden", "cox_snell" or "nagelkerke"; the null log-likelihood comes from null_deviance."""
        self._likelihood("llf")
        return criteria.r2(self.record, kind)

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
        """Observations that the finite estimates come from: sum of frequencies, or rows of
        positive weight.

        Observations that are fitted at the limit of an infinite estimate are not among them: it is 0
        where the data are completely separated. `record.statistics.n_used` counts them, too, and is
        the number in the summary.
        """
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

    @property
    def family(self) -> Any:
        """The family, with the parameters that were estimated beside the coefficients."""
        return self.record.family

    @property
    def link(self) -> Any:
        """The link."""
        return self.record.link

    # -- faces -----------------------------------------------------------------------------------------------------

    def summary(self, conf_int: bool = False, level: float = 0.95) -> Summary:
        """Summarise the fit as R's summary.glm; prints as text, shows as HTML in a notebook.

        Parameters
        ----------
        conf_int : bool
            Whether with the limits of Wald intervals, as `conf_int()` gives them.
        level : float
            Their level.
        """
        if not isinstance(conf_int, (bool, np.bool_)):
            raise DesignError(f"conf_int must be True or False, not {conf_int!r}; the level is level=")
        limits = self.conf_int(level=level) if conf_int else None
        return Summary(self.record, None if limits is None else Limits(level, limits.to_numpy()))

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Tabulate the coefficients.

        Parameters
        ----------
        level : float
            Of the Wald limits.

        Returns
        -------
        DataFrame
            A row per parameter; columns `estimate`, `std_error`, `statistic` (t where the
            dispersion was estimated, z where it is known), `p_value`, `lower`, `upper`. Of a
            multinomial model parameters are named with their class.

        Examples
        --------
        >>> import daskglm as dg, pandas as pd
        >>> data = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.1, 1.9, 3.2, 3.9]})
        >>> fit = dg.glm("y ~ x", data)
        >>> list(fit.to_frame().columns)
        ['estimate', 'std_error', 'statistic', 'p_value', 'lower', 'upper']
        """
        import pandas as pd

        estimates, errors = self.record.coefficients, self._errors()
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = estimates / errors
        table = {
            "estimate": estimates,
            "std_error": errors,
            "statistic": statistic,
            "p_value": distributions.p_value(self.record.statistics, statistic),
        }
        frame = pd.DataFrame(table, index=list(self.record.names))
        return frame.join(self.conf_int(level=level))

    @on_cluster
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
        unseen: str | None = None,
        *,
        where: str | None = None,
        client: Any = None,
        **options: Any,
    ) -> Any:
        """Predictions for new rows: one per row, in order, NaN where a needed value is missing.

        type: "mean", "link", "terms" (each term's part of the linear predictor) or "canonical"
        (theta = Psi(mu), the natural parameter of the family; of classes log(mu_k / mu_1)). se:
        also standard errors, by the delta method for the mean; of an infinite linear predictor NaN,
        and 0 of its mean. interval, at `level`: "confidence", for the mean, built on the link scale
        and mapped back; or "prediction", for a new y of dispersion phi / weight, or the proportion
        of its trials (columns of the new rows, where the fit had them), with the uncertainty of the
        coefficients: mu -+ t sqrt(phi / w + se^2) under the gaussian identity, as R's predict.lm;
        otherwise quantiles of the family's distribution averaged over a normal linear predictor
        (nine Gauss-Hermite nodes), phi taken as known. Offset and exposure are read from the data;
        `exposure=1` or `offset=0` override them (a rate), and beside an array or a sparse matrix
        they are arrays themselves. without: terms left out. unseen: what is done about levels that
        the model has not seen, "raise", "baseline" or "missing" (NaN); None: as the model was
        fitted. where: a filter; rows that do not pass have NaN, and the filter of the fit is not
        applied. A model that did not converge warns (ConvergenceWarning).

        A Series named after the type, or a DataFrame where there is more than one column, of the
        library of the data (pandas, polars; pyarrow: an Array or a Table), and pandas' for others;
        of pandas, `attrs["notes"]` counts rows without a prediction, by reason. One decode of the
        data.

        Of a Dask collection the answer is lazy and of its kind, partition by partition: of a
        DataFrame a Dask Series or DataFrame with the same index, of an array (n, p) an array (n,)
        or (n, columns); offset and exposure beside an array are Dask arrays chunked as its rows
        are.
        """
        refuse_unknown(
            options, ["type", "se", "interval", "level", "offset", "exposure", "without", "unseen", "where", "client"]
        )
        if level is not None and interval is None:
            raise DesignError('level= is the coverage of an interval: add interval="confidence"')
        dropped = (without,) if isinstance(without, str) else tuple(without)
        wanted = Prediction(type, se, interval, 0.95 if level is None else level, dropped, unseen, where)  # type: ignore[arg-type]
        return scored(self.record, data, wanted, offset, exposure)

    @on_cluster
    def residuals(
        self,
        data: Any,
        kind: str = "deviance",
        *,
        seed: int = 0,
        key: Any = None,
        out: Any = None,
        where: str | None = None,
        client: Any = None,
        **options: Any,
    ) -> Any:
        """One residual per row of the data, in order, NaN where the model does not use the row: a Series, of classes perhaps a
        DataFrame; lazy for Dask; out: a folder to write the column to instead, a Parquet file per leaf.

        kind: "response", "pearson" (y - mu) sqrt(w / V), "deviance" sign(y - mu) sqrt(w d),
        "working" (y - mu) / mu', "anscombe", "standardized_pearson", "standardized_deviance",
        "studentized" or "quantile", as R's and in `daskglm.postestimation.diagnostics`, of one copy
        of a row of frequency f. seed, key: quantile residuals are drawn by a hash of the seed and
        of the columns `key` that identify a row, or of its leaf and place. One pass and one row x
        vector evaluation; those with leverage need the rows of the fit, and a Gram pass more where
        the fit's covariance is not model-based. where: a filter of the rows; that of the fit is not
        applied.
        """
        refuse_unknown(options, ["kind", "seed", "key", "out", "where", "client"])
        return diagnostics.residuals(self.record, data, kind, seed, key, out, where)

    @on_cluster
    def influence(
        self,
        data: Any,
        dfbetas: bool = True,
        *,
        out: Any = None,
        where: str | None = None,
        client: Any = None,
        **options: Any,
    ) -> Any:
        """R's influence.measures of one copy of each row of the fit, aligned as residuals are: a DataFrame of `leverage`
        h = w x'(X'WX)^-1 x, `cooks_distance` (p / (1 - h))^2 h / (phi rank), `dffits` d sqrt(h) /
        (s (1 - h)) and `dfbetas[NAME]`. Of classes leverage is a trace, Cook's distance Lesaffre
        and Albert's (1989), and there are no dffits. Passes as `residuals`, and where= as there.
        """
        refuse_unknown(options, ["dfbetas", "out", "where", "client"])
        return measures.influence(self.record, data, bool(dfbetas), out, where)

    @on_cluster
    def influential(
        self,
        data: Any,
        k: int = 20,
        by: str = "cooks_distance",
        keys: Any = (),
        *,
        where: str | None = None,
        client: Any = None,
        **options: Any,
    ) -> measures.Influential:
        """The k rows of largest `by` ("cooks_distance", "leverage", "dffits") with their `keys` and all measures; quantiles of
        all rows to 1 part in 256, and how many exceed 2 p / n and 4 / n. Passes and where= as `influence`.
        """
        refuse_unknown(options, ["k", "by", "keys", "where", "client"])
        return measures.influential(self.record, data, k, by, keys, where)

    # -- checks of fit ---------------------------------------------------------------------------------------------

    check, calibration, lift, double_lift = checking.every, checking.calibration, checking.lift, checking.double_lift
    lorenz, gini, reliability, hosmer_lemeshow = (
        checking.lorenz, checking.gini, checking.reliability, checking.hosmer_lemeshow,
    )  # fmt: skip
    rootogram, qq, overdispersion = checking.rootogram, checking.qq, checking.overdispersion

    def save(self, path: str | os.PathLike[str], *, publish: str | None = None) -> None:
        """Write the model as a folder of plain files, which `daskglm.load` reads.

        Parameters
        ----------
        path : str or path
            A folder, or an s3:// URL. It keeps every run; `daskglm.load` reads the published one.
        publish : {"always", "converged"}, optional
            Which runs are published. If left out, a run that did not converge is published only in a
            folder without a published model, and otherwise kept with a ConvergenceWarning. A run that
            is not published can be loaded by its own path, path/runs/ID.
        """
        saved = persist.save(self.record, path, publish)
        if publish is None:
            saved.warn()

    def wald_test(self, hypothesis: Any) -> hypotheses.TestResult:
        """Test linear hypotheses L b = c.

        hypothesis: a matrix (m, p), names of parameters or terms (each zero; of a term all its
        coefficients that have an estimate), or text such as "area[T.B] = area[T.C], bonus = 0".
        Chi-square where the dispersion is known, F where it was estimated or errors are clustered.
        """
        s = self.record.statistics
        names = self.record.names
        coefficients = self.record.coefficients
        kept = [
            term if np.isfinite(b) else "" for term, b in zip(self.record.parameters.term_of, coefficients, strict=True)
        ]
        matrix, value = hypotheses.parse(hypothesis, names, kept)
        return hypotheses.wald(
            self.record.coefficients, self.record.covariance, matrix, value, s.df_test, names, self.record.forms
        )

    def lr_test(self, other: Fit) -> hypotheses.TestResult:
        """Likelihood ratio of two nested fits, in either order: 2 (llf_1 - llf_0), chi-square; where the dispersion is
        estimated (D_0 - D_1) / df / phi_1, F(df, df_resid_1). DesignError where the fits are not nested by their terms, not
        of the same response, family, link, weights, offset or rows, or have no likelihood. No pass over data.
        """
        if not isinstance(other, Fit):
            raise DesignError(f"lr_test takes another fit, not {type(other).__name__}")
        return comparisons.lr_test(self.record, other.record)

    @on_cluster
    def score_test(self, terms: Any, data: Any, *, client: Any = None) -> pd.DataFrame:
        """Rao's score test of each of some terms that are not in the model: columns df, stat, pvalue, a row per term.

        terms: "z", ["z", "area:bonus"] or "~ . + a + b". U' (I_cc - I_cb I_bb^-1 I_bc)^-1 U / phi,
        chi-square, with phi as the model has it (R's add1(test = "Rao")). One decode, which learns
        levels and scales (two where the new columns do not fit in memory), and one pass for all: a
        score and, per group of candidates about as wide as the model, a Gram of each row.
        """
        refuse_table("score_test(terms, data)", "terms come", terms)
        return candidates.score_tests(self.record, terms, data)

    @on_cluster
    def add1(self, data: Any, terms: Any, *, client: Any = None) -> pd.DataFrame:
        """What each term would add: `score_test` with its arguments as R's add1 has them. One decode, one pass."""
        refuse_table("add1(data, terms)", "data come", terms)
        return candidates.score_tests(self.record, terms, data)

    @on_cluster
    def anova(self, data: Any, type: int = 1, test: str | None = None, *, client: Any = None) -> pd.DataFrame:
        """Analysis of deviance, a row per term: df, deviance, resid_df, resid_dev, stat, pvalue.

        type 1: each term after those before it, F with the Pearson dispersion (R's anova.glm); 2: after all but those that
        contain it; 3: after all others in sum contrasts, both chi-square of deviance / phi (car's Anova) unless test="F".
        Chi-square where the dispersion is known; theta and power are held. resid_*: of the larger of the two models. One
        decode; reduced models share each of about 3 to 6 passes, with a Gram of every row for each in each.
        """
        return comparisons.anova(self.record, data, type, test)

    @on_cluster
    def drop1(self, data: Any, test: str | None = None, *, client: Any = None) -> pd.DataFrame:
        """Each term left out that no other contains: df, deviance and aic of the reduced model, stat, pvalue.

        F with deviance / df_resid, or chi-square of the likelihood ratio where the dispersion is known or test="chi2" (R's
        drop1); theta and power are held. Passes as `anova`.
        """
        return comparisons.drop1(self.record, data, test)

    @on_cluster
    def step(
        self,
        data: Any,
        direction: str = "both",
        scope: Any = None,
        criterion: str = "aic",
        enter: float | None = None,
        leave: float | None = None,
        *,
        client: Any = None,
    ) -> stepwise.Stepwise:
        """Stepwise choice of terms: `.path`, a row per model, and `.fit`, the last one.

        direction: "both", "forward", "backward"; scope: what may be in the model, "~ a + b" or {"lower": ..., "upper": ...};
        criterion: "aic", "bic", or "test", by p-values (enter= 0.05, leave= 0.10). theta and power are held on the way. One
        decode; the models that are one term away are fitted side by side, about 3 to 5 passes a step; the last one is fitted
        anew, as `glm` would.
        """
        rule = stepwise.rule_of(self.record, direction, criterion, enter, leave)
        path, record = stepwise.step(self.record, data, rule, scope)
        return stepwise.Stepwise(path, self if record is self.record else Fit(record))

    @on_cluster
    def vif(self, data: Any = None, *, client: Any = None) -> pd.DataFrame:
        """Variance inflation factors: how many times larger the variance of an estimate is than with uncorrelated columns.

        A row per parameter but the intercept: `term`, `vif` (the diagonal of R^-1, R the correlations of the estimates), and
        the term's `gvif` = det R_tt det R_oo / det R, `df`, `gvif_root` = gvif^(1 / (2 df)) (Fox and Monette 1992; car::vif).
        No pass over data where the fitted covariance is from the information; of a robust one data= is read once.
        DesignError for a multinomial model, which has a linear predictor for each class.
        """
        parameters = self.record.parameters
        if parameters.kind == "classes":
            raise DesignError(
                "a multinomial model has a linear predictor for each class, and no variance inflation factors"
            )
        covariance = collinear.of_information(
            self.record.specification, self.record.covariance, "vif", data, self.cov_params
        )
        return collinear.inflation(covariance, parameters.names, parameters.term_of, "Intercept")

    @on_cluster
    def collinearity(self, data: Any = None, *, client: Any = None) -> collinear.Collinearity:
        """Condition indices, variance-decomposition proportions, and the combinations of columns that are nearly zero.

        Of W^1/2 X at the fitted weights, columns scaled to unit length and not centred, as the covariance knows it (Belsley,
        Kuh and Welsch 1980): indices above 30 are dependencies that harm. It prints; `.table` and `.combinations` hold the
        numbers. No pass over data where the fitted covariance is from the information; of a robust one data= is read once.
        """
        covariance = collinear.of_information(
            self.record.specification, self.record.covariance, "collinearity", data, self.cov_params
        )
        kind = "observed" if self.record.specification.covariance == "observed" and data is None else "expected"
        basis = f"the inverse of the covariance ({kind} information)"
        return collinear.collinearity(covariance, self.record.names, basis)

    @on_cluster
    def relativities(
        self,
        data: Any = None,
        *,
        level: float = 0.95,
        exposure: str | None = None,
        bands: Mapping[str, Any] | None = None,
        where: str | None = None,
        client: Any = None,
        **options: Any,
    ) -> pd.DataFrame:
        """exp(params) with their limits, for models with a log or logit link (odds ratios under logit). No pass.

        With data a table by level: rows (variable, level), of every factor of the model with its
        baseline at 1, of columns of true and false, and of numbers that `bands` cuts at the given
        points, {"age": [25, 40]} into < 25, [25, 40), >= 40; columns of dates and times are cut at
        ISO text, dates, datetimes or timestamps. Columns relativity, lower, upper:
        exp(b_level - b_baseline), of a factor's own columns (where it is part of interactions, at
        the baseline of the others, which `attrs["notes"]` says; NaN where it has none), of an
        interaction of factors each combination against that of the baselines, by all terms of these
        factors, of a band the mean of the number's own columns against that of the first band with
        rows; exposure: sum of m s, with m the weight or trials of a row (1 without) and s its
        exposure, the model's or that of `exposure` (1 without); observed, fitted: sum of m y and of
        m mu over that; rows. One pass, one evaluation per row. where: a filter of the rows; that of
        the fit is not applied.
        """
        refuse_unknown(options, ["level", "data", "exposure", "bands", "where", "client"])
        link = self.record.specification.link
        if link not in ("log", "logit"):
            raise DesignError(f"relativities are exp(params), which mean nothing under the {link} link")
        effects.check_level(level)
        if data is not None:
            return relativities.table(self.record, data, level, exposure, bands, where)
        for name, value in (("exposure", exposure), ("bands", bands), ("where", where)):
            if value is not None:
                raise DesignError(f"{name}= is of rows: give data=, too")
        frame = self.conf_int(level=level)
        frame.insert(0, "relativity", self.record.coefficients)
        if self.record.parameters.kind == "ordered":
            frame = frame.loc[list(self.record.parameters.columns)]
        return frame.apply(np.exp)

    @on_cluster
    def margins(
        self,
        data: Any,
        at: str = "overall",
        variables: Any = None,
        kind: str = "dydx",
        level: float = 0.95,
        *,
        where: str | None = None,
        client: Any = None,
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
        where: a filter of the rows; that of the fit is not applied.
        One pass; at="overall" takes for each number 2 and for each level of a factor 1 evaluation per row and as many
        gradients, times predictors and classes; at="mean" none.
        """
        refuse_unknown(options, ["at", "variables", "kind", "level", "where", "client"])
        return effects.margins(self.record, data, at, variables, kind, level, where)

    @on_cluster
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
        *,
        client: Any = None,
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
        refuse_unknown(options, ["specs", "data", "at", "by", "weights", "type", "level", "offset", "client"])
        refuse_table("emmeans(specs, data)", "columns come", specs)
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
        if name in ELSEWHERE:
            raise AttributeError(f"a Fit has no {name!r}: here it is {ELSEWHERE[name]}")
        known = [attribute for attribute in dir(type(self)) if not attribute.startswith("_")]
        raise AttributeError(f"a Fit has no {name!r}{closest(name, known)}")

    def __repr__(self) -> str:
        spec, s = self.record.specification, self.record.statistics
        state = "" if self.converged else ", not converged"
        return (
            f"<Fit {spec.formula!r}, {spec.family} ({spec.link}), {s.n_used:.15g} observations, rank {s.rank}{state}>"
        )

    def _repr_html_(self) -> str:
        return as_html(self.record)

    def _errors(self) -> np.ndarray[Any, Any]:
        return self.record.errors

    def _shaped(self, values: Any) -> Any:
        import pandas as pd

        parameters, array = self.record.parameters, np.array(values)
        if parameters.kind == "classes":
            table = array.reshape(len(parameters.classes) - 1, -1).T
            return pd.DataFrame(table, index=list(parameters.columns), columns=list(parameters.classes[1:]))
        return pd.Series(array, index=list(parameters.names))
