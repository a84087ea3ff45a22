"""`daskglm.glm`: a formula and data in, a Fit out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack, overload

import numpy as np

from daskglm.cluster.collections import is_collection, open_chunks
from daskglm.cluster.engine import Engine
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import (
    MATRIX,
    column_names,
    from_arrays,
    has_rows,
    is_sparse,
    paired,
    plain_array,
    with_columns,
)
from daskglm.errors import DesignError, public
from daskglm.fit import run_all
from daskglm.model.weights import Cluster, Frequency, Probability, Trials, Variance
from daskglm.plan import DEFAULTS, Plan, Start, make_plan, refuse_unknown
from daskglm.progress import reporter
from daskglm.result import Fit
from daskglm.several import Fits, fitted

# What arrays are called that say which rows belong together.
CLUSTER = "cluster"


class Options(TypedDict, total=False):
    """Options of `glm`, for type checkers."""

    family: Any
    link: Any
    weights: Any
    offset: Any
    exposure: Any
    trials: Any
    penalty: Any
    constraints: Any
    covariance: str | Cluster
    dispersion: str | float | None
    missing: str
    where: str | None
    unseen: str
    separation: str
    solver: str
    tol: float | None
    max_iter: int | None
    start: Any
    keep: str
    checkpoint: Any
    progress: bool | None
    client: Any


@overload
def glm(formula: str, data: Any, **options: Unpack[Options]) -> Fit | Fits: ...


@overload
def glm(*, X: Any, y: Any, **options: Unpack[Options]) -> Fit: ...


@public
def glm(
    formula: str | None = None,
    data: Any = None,
    *,
    X: Any = None,
    y: Any = None,
    family: Any = "gaussian",
    link: Any = None,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    trials: Any = None,
    penalty: Any = None,
    constraints: Any = None,
    covariance: str | Cluster = "model",
    dispersion: str | float | None = None,
    missing: str = "drop",
    where: str | None = None,
    unseen: str = "raise",
    separation: str = "limit",
    solver: str = "auto",
    tol: float | None = None,
    max_iter: int | None = None,
    start: Any = None,
    keep: str = "auto",
    checkpoint: Any = None,
    progress: bool | None = None,
    client: Any = None,
    **options: Any,
) -> Fit | Fits:
    """Fit a generalized linear model by maximum likelihood: E[y] = mu, g(mu) = x'b + offset, Var[y] = phi V(mu) / w.

    formula: Wilkinson notation, "claims ~ area + log(density) + bonus:region", with contrasts, "C(area, Sum)", and scaled
        columns, "scale(age)"; "cbind(successes, failures) ~ ..." counts out of trials, "responses(y1, y2) ~ ..." several
        models in the same passes.
    data: a Parquet file, folder, glob pattern, list of these or URL; pandas, polars, a pyarrow Table or Dataset, anything
        with the Arrow stream interface; a Dask DataFrame, whose partitions are taken as they are. Or arrays: X (n, p), NumPy
        or scipy.sparse, and y (n,), with an intercept added; or X a Dask array of either kind or a Dask DataFrame, and y,
        weights, offset, exposure and trials Dask arrays or Series chunked along rows as X is. Rows of pandas objects are
        paired by their index.
    family, link: names, or objects of `daskglm.families` and `daskglm.links`; the default link is the family's.
    weights: a column (variance weights), or `Frequency`, `Variance`, `Probability` or `Trials` of
        one. Beside a table in memory weights, offset, exposure, trials and clusters may be arrays,
        Series by their index; they become columns of the names of the options, which new data then
        need.
    offset: a column or expression added to the linear predictor; exposure: a column whose logarithm is (log link only).
    trials: a column; the response then counts successes out of that many.
    covariance: "model" (expected information), "observed", "HC0" to "HC3", or `Cluster` of one
        column or several, with X= and y= of arrays.
    separation: what becomes of an infinite optimum. "limit": its coefficients are -inf or inf without an error, deviance and
        likelihood are the limits of all rows, everything else is the fit without the rows that are at their limit, nobs and
        degrees of freedom included; a baseline that is at its limit gives way to the first level that is not. "drop": those
        rows are left out and counted in the ledger; "raise": SolverError; "firth": mean bias reduction (Firth 1993). Of a
        response of classes, some become impossible in some rows: the rows stay and are counted, everything else is told by
        the classes that stay possible, baselines stay as they are, and there is no "drop" and no "firth".
    dispersion: None (the family's rule), a number, "pearson", "deviance" or "ml".
    missing: "drop" (counted in the ledger) or "raise".
    where: a row filter, "year = 2024 and claims > 0 and age is not null"; fold(policy, 5) != 0
        leaves out the rows of every fifth policy or so, by a hash of its value.
    unseen: for later predictions at levels not seen here: "raise", "baseline" or "missing" (NaN).
    tol: bound on the Newton decrement per unit dispersion at the reported coefficients, 1e-12 unless given. Below 200,000
        rows a fit of this tolerance or less aims at 1e-20, which `fit.certificate` states.
    max_iter: the largest number of steps.
    start: coefficients by name or in order, or a Fit: its estimates of the parameters that both
        models have.
    keep: where decoded rows are kept, "auto", "memory", "disk" or "reread"; what a Dask collection
        holds stays in memory, and it takes no checkpoint.
    progress: a bar on standard error; None shows one in a terminal.
    checkpoint: a folder or s3:// URL for the state after each pass; the same call resumes from it,
        and removes it when done.
    client: a `distributed.Client`; None: the active one if there is one, and threads in this process if not.

    Raises DesignError (the request), DataError (the data), SolverError (no optimum); warns of aliased columns, of
    coefficients without a finite estimate and of missing convergence.
    """
    given = {
        "family": family, "link": link, "weights": weights, "offset": offset, "exposure": exposure, "trials": trials,
        "penalty": penalty, "constraints": constraints, "covariance": covariance, "dispersion": dispersion,
        "missing": missing, "where": where, "unseen": unseen, "separation": separation, "solver": solver, "tol": tol,
        "max_iter": max_iter, "start": start, "keep": keep, "checkpoint": checkpoint,
    }  # fmt: skip
    if isinstance(start, Fit):
        given["start"] = _start_of(start)
    if options:
        refuse_unknown(options, [*DEFAULTS, "X", "y", "progress", "client"])
    if progress not in (True, False, None):
        raise DesignError(f"progress must be True, False or None, not {progress!r}")
    if X is not None or y is not None:
        if formula is not None or data is not None:
            raise DesignError("give a formula and data, or X= and y=, not both")
        formula, source, given = _from_arrays(X, y, given)
    else:
        if isinstance(data, str) and "~" in data and not (isinstance(formula, str) and "~" in formula):
            raise DesignError(f"the formula comes first, then the data: glm({data!r}, data)")
        if formula is None or data is None:
            raise DesignError("give a formula and data, such as glm('y ~ x', 'lake/'), or X= and y=")
        data, given = _with_arrays(data, given)
        make_plan(formula, given)
        source = open_source(data)
    plan = make_plan(formula, given)
    return fitted(run_all(plan, source, Engine(client=client), reporter(progress)))


def _start_of(fit: Fit) -> Start:
    """The finite estimates of a fit, by name."""
    record = fit.record
    return Start(record.names, tuple(float(value) for value in record.finite))


def _with_arrays(data: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A table in memory with arrays that were given for options as columns, and the options that
    then name those.
    """
    arrays, changed = _beside(given)
    arrays = {name: value for name, value in arrays.items() if has_rows(value) and not is_collection(value)}
    names = column_names(data)
    if names is None or not arrays:
        return data, given
    columns = {}
    for option, value in arrays.items():
        name = option
        while name in names:
            name += "_"
        columns[name] = value
        if option == "weights":
            given = {**given, option: type(changed[option])(name)}
        elif option in given:
            given = {**given, option: name}
        else:
            renamed = [name if column == option else column for column in changed["covariance"].columns]
            changed["covariance"] = Cluster(*renamed, correction=changed["covariance"].correction)
            given = {**given, "covariance": changed["covariance"]}
    return with_columns(data, columns), given


def _from_arrays(x: Any, y: Any, given: dict[str, Any]) -> tuple[str, Source, dict[str, Any]]:
    """X, y and other arrays as a table, and the formula that takes all of X with an intercept."""
    if x is None or y is None:
        raise DesignError("X= and y= go together")
    values = [
        given["offset"],
        given["exposure"],
        given["trials"],
        getattr(given["weights"], "column", given["weights"]),
        *getattr(given["covariance"], "columns", ()),
    ]
    if any(is_collection(value) for value in (x, y, *values)):
        return _from_collections(x, y, given)
    names = [str(name) for name in x.columns] if hasattr(x, "columns") else None
    beside, changed = _beside(given)
    x, y, *rest = paired({"X": x, "y": y, **beside}).values()
    beside = dict(zip(beside, rest, strict=True))
    for value, label in ((x, "X"), (y, "y")):
        if label == "y" and is_sparse(value):
            raise DesignError(f"{label} of type {type(value).__name__} is not read by this version: pass NumPy arrays")
    matrix = plain_array(x)
    if matrix.dtype == object:
        raise DesignError("X must be numbers: for text columns write a formula")
    if matrix.dtype.kind not in "biuf" and is_sparse(x):
        raise DesignError(f"X must be real numbers, not {matrix.dtype}")
    if matrix.ndim == 1:
        matrix = matrix.reshape(-1, 1)
    if matrix.ndim != 2:
        raise DesignError(f"X must have two dimensions, not {matrix.ndim}")
    response = plain_array(y)
    if response.ndim == 2 and response.shape[1] == 1:
        response = response[:, 0]
    if response.ndim != 1:
        raise DesignError(f"y must have one dimension, not {response.ndim}")
    if response.dtype.kind not in "biuf":
        raise DesignError("y must be numbers; a two-level text response goes through a formula")
    extra = {"y": response, **{name: _vector(value, name) for name, value in beside.items()}}
    source, columns = from_arrays(matrix, extra, names)
    make_plan("y ~ 1", changed)
    return _matrix_formula(source, columns), source, changed


def _beside(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays that go with X and y, by the names they get as columns, and the options that then name those."""
    arrays: dict[str, Any] = {}
    changed = dict(given)
    for option in ("offset", "exposure", "trials"):
        if given[option] is not None:
            arrays[option] = given[option]
            changed[option] = option
    weights = given["weights"]
    if weights is not None:
        kind = type(weights) if isinstance(weights, (Frequency, Variance, Probability, Trials)) else Variance
        arrays["weights"] = weights.column if kind is type(weights) else weights
        changed["weights"] = kind("weights")
    covariance = given["covariance"]
    if isinstance(covariance, Cluster):
        names = []
        for number, column in enumerate(covariance.columns, 1):
            name = column if isinstance(column, str) else CLUSTER + (str(number) if len(covariance.columns) > 1 else "")
            names.append(name)
            if name is not column:
                arrays[name] = column
        changed["covariance"] = Cluster(*names, correction=covariance.correction)
    return arrays, changed


def _matrix_formula(source: Source, columns: Sequence[str]) -> str:
    # a term for each of so many columns would say no more than the matrix itself
    right = (MATRIX if source.matrix_names and columns else " + ".join(f"`{name}`" for name in columns)) or "1"
    return f"y ~ {right}"


def _from_collections(x: Any, y: Any, given: dict[str, Any]) -> tuple[str, Source, dict[str, Any]]:
    """X, y and others as Dask collections, a leaf for every chunk of rows."""
    beside, changed = _beside(given)
    make_plan("y ~ 1", changed)
    source, columns = open_chunks(x, {"y": y, **beside})
    return _matrix_formula(source, columns), source, changed


def _vector(value: Any, label: str) -> Any:
    array = plain_array(value)
    if array.ndim == 1 and array.dtype.kind in "OUS" and label.startswith(CLUSTER):
        import pandas as pd

        codes = pd.factorize(array)[0]
        return np.where(codes < 0, np.nan, codes)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DesignError(f"with X= and y=, {label} must be an array of numbers of one dimension")
    return array


@public
def plan(formula: str, data: Any = None, **options: Any) -> Plan:
    """Check a request for a fit without reading any data.

    Parameters
    ----------
    formula : str
        The model, as for `glm`.
    **options
        Those of `glm` that are about the model.

    Returns
    -------
    Plan
        The checked description.

    Raises
    ------
    DesignError
        Where the request makes no sense.
    """
    if data is not None:
        raise DesignError(
            "plan reads no data in this version: dg.plan(formula, family=...) checks a request, and "
            "dg.glm(formula, data, family=...) fits it"
        )
    unknown: Mapping[str, Any] = {name: value for name, value in options.items() if name not in DEFAULTS}
    if unknown:
        refuse_unknown(unknown, list(DEFAULTS))
    return replace(make_plan(formula, options))
