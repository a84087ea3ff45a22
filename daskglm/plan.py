"""A fit described and checked, before any data are read."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from daskglm.errors import LEVEL, DesignError, closest
from daskglm.inference.covariance import COVARIANCES
from daskglm.model.links import Link
from daskglm.model.pairs import resolve
from daskglm.model.weights import Cluster, Frequency, Probability, Trials, Variance, Weights

# Bound on the Newton decrement per unit dispersion at the reported coefficients.
DEFAULT_TOL = 1e-12

# Names other libraries use, and what they are called here.
ELSEWHERE = {
    "freq_weights": 'weights=dg.Frequency("n")',
    "var_weights": 'weights=dg.Variance("w")',
    "sample_weight": 'weights=dg.Variance("w")',
    "pweights": 'weights=dg.Probability("w")',
    "fweights": 'weights=dg.Frequency("n")',
    "alpha": "level=, as in fit.conf_int(level=0.95)",
    "endog": "y=",
    "exog": "X=",
    "cov_type": "covariance=",
    "scale": "dispersion=",
    "maxiter": "max_iter=",
    "subset": "where=",
    "na_action": "missing=",
    "start_params": "start=",
    "intercept": "a formula (y ~ x - 1)",
    "fit_intercept": "a formula (y ~ x - 1)",
}

# What is not done about infinite coefficients of a response of classes.
CLASSES_LEAVE = {
    "drop": (
        "leaves out the rows that go to their limit, and rows of several classes do not: some of their classes become "
        'impossible, and they still tell the others apart; use separation="limit"'
    ),
    "firth": (
        "takes the bias off models of one linear predictor, and is not available for a response of classes; use "
        'separation="limit"'
    ),
}


@final
@dataclass(frozen=True)
class Start:
    """Estimates of another fit to begin from, by parameter: names (r,) and finite values (r,)."""

    names: tuple[str, ...]
    values: tuple[float, ...]


@final
@dataclass(frozen=True)
class Plan:
    """What to fit and how; see `daskglm.glm` for the meaning of each field."""

    formula: str | None
    family: Any
    link: Link
    weights: Weights | None
    offset: Any
    exposure: Any
    trials: Any
    covariance: str | Cluster
    dispersion: str | float | None
    missing: str
    where: str | None
    unseen: str
    separation: str
    tol: float
    max_iter: int
    start: Any
    keep: str
    checkpoint: str | None = None

    @property
    def meat(self) -> bool:
        """Whether the closing pass needs the products of scores."""
        sampled = isinstance(self.weights, Probability) and self.covariance == "model"
        return self.covariance in ("HC0", "HC1") or sampled

    @property
    def clusters(self) -> tuple[str, ...]:
        """Columns that errors are clustered by."""
        return self.covariance.columns if isinstance(self.covariance, Cluster) else ()


DEFAULTS: Mapping[str, Any] = {
    "family": "gaussian", "link": None, "weights": None, "offset": None, "exposure": None, "trials": None,
    "penalty": None, "constraints": None, "covariance": "model", "dispersion": None, "missing": "drop", "where": None,
    "unseen": "raise", "separation": "limit", "solver": "auto", "tol": None, "max_iter": None, "start": None,
    "keep": "auto", "checkpoint": None,
}  # fmt: skip


def _one_of(name: str, value: Any, options: tuple[str, ...]) -> str:
    if value not in options:
        listed = ", ".join(f'"{option}"' for option in options)
        raise DesignError(f"{name}={value!r} is not one of {listed}{closest(value, options)}")
    return str(value)


def refuse_unknown(options: Mapping[str, Any], known: list[str]) -> None:
    """A DesignError for an option that does not exist, with the name it has here."""
    for name in options:
        other = {"kind": "type", "type": "kind"}.get(name)
        if name == "alpha" and "level" in known:
            raise DesignError(f"there is no option 'alpha'; here it is {LEVEL}")
        if other in known:
            raise DesignError(f"there is no option {name!r}; here it is {other}=")
        if name in ELSEWHERE and not {"level", "type"} & set(known):
            raise DesignError(f"there is no option {name!r}; here it is {ELSEWHERE[name]}")
        raise DesignError(f"there is no option {name!r}{closest(name, known)}; options: {', '.join(known)}")


def refuse_table(call: str, first: str, value: object) -> None:
    """A DesignError where data were given as an argument that stands elsewhere in a call."""
    framed = hasattr(value, "columns") and hasattr(value, "__len__")
    if framed or isinstance(value, Mapping) or hasattr(value, "__arrow_c_stream__"):
        raise DesignError(f"the {first} first: {call}")


def make_plan(formula: str | None, options: Mapping[str, Any]) -> Plan:
    """Check every option and every pair; DesignError names both sides and the way out."""
    given = {**DEFAULTS, **options}
    for name, value in (("penalty", None), ("constraints", None)):
        if given[name] is not value:
            raise DesignError(f"{name}= is not available in this version")
    _one_of("solver", given["solver"], ("auto", "newton"))
    family, link = resolve(given["family"], given["link"])
    weights = _weights(given["weights"])
    scalar = family.response == "number"
    if (isinstance(weights, Trials) or given["trials"] is not None) and not (family.bounded and scalar):
        raise DesignError(f"trials are for the binomial family, not for {family.name}")
    if isinstance(weights, Trials) and given["trials"] is not None:
        raise DesignError('trials= makes the response a count, weights=dg.Trials("n") a proportion: give one of them')
    if given["exposure"] is not None and not scalar:
        raise DesignError(f"exposure is for counts and amounts, not for the {family.name} family")
    if given["exposure"] is not None and link.name != "log":
        raise DesignError(f"exposure adds its logarithm, which needs the log link, not {link.name}: use offset=")
    dispersion = given["dispersion"]
    if dispersion is not None and not scalar:
        raise DesignError(f"the {family.name} family has no dispersion: leave dispersion= out")
    if isinstance(dispersion, str):
        _one_of("dispersion", dispersion, ("pearson", "deviance", "ml"))
        if dispersion == "ml" and family.likelihood_at == "never":
            raise DesignError(f'dispersion="ml" needs a likelihood, which the {family.name} family does not have')
        if dispersion == "ml" and family.dispersion_known:
            raise DesignError(f'dispersion="ml" estimates what is 1 by definition for the {family.name} family')
    elif dispersion is not None and not (isinstance(dispersion, (int, float)) and dispersion > 0):
        raise DesignError(f"dispersion must be a positive number or a rule, not {dispersion!r}")
    covariance = given["covariance"]
    check_covariance(covariance, weights)
    separation = _one_of("separation", given["separation"], ("limit", "drop", "raise", "firth"))
    if not scalar and separation in CLASSES_LEAVE:
        raise DesignError(f'separation="{separation}" {CLASSES_LEAVE[separation]}')
    if separation == "firth":
        _refuse_bias_reduction(family, dispersion, covariance, weights)
    if given["where"] is not None and not isinstance(given["where"], str):
        raise DesignError(f"where= is a filter written as text, such as 'x > 0', not {type(given['where']).__name__}")
    tol = DEFAULT_TOL if given["tol"] is None else given["tol"]
    if isinstance(tol, bool) or not (isinstance(tol, (int, float)) and 0.0 < tol < math.inf):
        raise DesignError(f"tol must be a positive number, not {tol!r}")
    max_iter = 100 if given["max_iter"] is None else given["max_iter"]
    if not (isinstance(max_iter, int) and max_iter > 0):
        raise DesignError(f"max_iter must be a positive whole number, not {max_iter!r}")
    return Plan(
        formula, family, link, weights, given["offset"], given["exposure"], given["trials"], covariance, dispersion,
        _one_of("missing", given["missing"], ("drop", "raise")), given["where"],
        _one_of("unseen", given["unseen"], ("raise", "baseline", "missing")), separation, float(tol), max_iter,
        given["start"], _one_of("keep", given["keep"], ("auto", "memory", "disk", "reread")),
        _path(given["checkpoint"], "checkpoint"),
    )  # fmt: skip


def check_covariance(kind: Any, weights: Weights | None, option: str = "covariance") -> None:
    """A DesignError where there is no such covariance, or not with these weights."""
    if inspect.isclass(kind) and issubclass(kind, Cluster):
        raise DesignError('clusters need a column: dg.Cluster("policy")')
    if isinstance(kind, Cluster):
        strange = [column for column in kind.columns if not isinstance(column, str)]
        if strange:
            raise DesignError(
                f"Cluster takes the names of columns, not {type(strange[0]).__name__}: add it to data= as a column"
            )
        return
    if isinstance(kind, str) and kind.lstrip().lower().startswith("cluster"):
        raise DesignError(f'{option}={kind!r} is how the command line writes dg.Cluster("policy")')
    if not isinstance(kind, str):
        raise DesignError(
            f'{option}= takes {", ".join(COVARIANCES)} or dg.Cluster("policy"), not {type(kind).__name__}'
        )
    _one_of(option, kind, COVARIANCES)
    if isinstance(weights, Probability) and kind != "model":
        raise DesignError(
            f'with probability weights errors are linearised, which is {option}="model", or that of sampled clusters, '
            f'dg.Cluster("unit"): not {kind!r}'
        )


def _refuse_bias_reduction(family: Any, dispersion: Any, covariance: str | Cluster, weights: Weights | None) -> None:
    """What mean bias reduction is not defined for here."""
    said = 'separation="firth" adds the bias of maximum likelihood to the score'
    if not family.dispersion_known or dispersion is not None:
        raise DesignError(
            f"{said}, which is known where the dispersion is 1 by definition: not for {family.name}"
            + ("" if dispersion is None else f" with dispersion={dispersion!r}")
        )
    if covariance != "model":
        raise DesignError(f'{said}; its errors are those of covariance="model", not {covariance!r}')
    if isinstance(weights, Probability):
        raise DesignError(f"{said}, which is not known for probability weights")


def _path(value: Any, option: str) -> str | None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise DesignError(f"{option}= takes a path, not {type(value).__name__}")
    return None if value is None else str(os.fspath(value))


def _weights(value: Any) -> Weights | None:
    if value is None or isinstance(value, (Frequency, Variance, Probability, Trials)):
        return value
    if inspect.isclass(value):
        raise DesignError(f'weights need a column: dg.{value.__name__}("column")')
    return Variance(value)
