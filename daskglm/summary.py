"""A fit as a statistician reads it: the call, the coefficients with their tests, the deviances, and what to know."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from daskglm.inference import distributions
from daskglm.record import FitRecord

MOST_ROWS = 400
MOST_ALIASED = 20


def number(value: float, digits: int = 5) -> str:
    """A number in as many digits as it deserves."""
    if np.isnan(value):
        return "NA"
    if value == 0:
        return "0"
    if np.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if size >= 1e7 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    places = max(0, digits - 1 - int(np.floor(np.log10(size))))
    return f"{value:.{min(places, 8)}f}"


def probability(value: float) -> str:
    """A p-value as R prints it."""
    if np.isnan(value):
        return "NA"
    if value < 2e-16:
        return "<2e-16"
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.2e}"


def stars(value: float) -> str:
    """The usual marks of significance."""
    for bound, mark in ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, ".")):
        if value < bound:
            return mark
    return ""


@final
@dataclass(frozen=True)
class Limits:
    """Limits (r, 2) of the coefficients at a level."""

    level: float
    values: npt.NDArray[np.float64]


def coefficient_rows(record: FitRecord, limits: Limits | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the coefficient table."""
    letter = "z" if record.statistics.df_test is None else "t"
    header = ["", "Estimate", "Std. Error", f"{letter} value", f"Pr(>|{letter}|)", ""]
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = record.errors
        values = record.coefficients / errors
    tests = distributions.p_value(record.statistics, values)
    rows = [
        [name, number(b), number(e), "NA" if np.isnan(t) else f"{t:.3f}", probability(p), stars(p)]
        for name, b, e, t, p in zip(record.names, record.coefficients, errors, values, tests, strict=True)
    ]
    if limits is not None:
        tail = 50.0 * (1.0 - limits.level)
        header[-1:] = [f"{tail:.4g} %", f"{100.0 - tail:.4g} %", ""]
        for row, (low, high) in zip(rows, limits.values, strict=True):
            row[-1:] = [number(low), number(high), row[-1]]
    return header, rows


def _facts(record: FitRecord) -> list[tuple[str, str]]:
    s, spec = record.statistics, record.specification
    expected = "observed information" if spec.response_kind == "ordered" else "expected information"
    kinds = {"model": expected, "observed": "observed information"}
    covariance = kinds.get(spec.covariance, spec.covariance)
    if s.clusters:
        covariance = f"{spec.covariance}, {' and '.join(f'{count:,}' for count in s.clusters)} clusters"
    elif spec.weights and spec.weights[0] == "probability":
        covariance = "linearised for probability weights"
    facts = [
        ("Formula", spec.formula),
        ("Family", f"{spec.family}, {spec.link} link"),
        ("Observations", _observations(record)),
        ("Standard errors", covariance),
    ]
    for label, value in (("Exposure", spec.exposure), ("Offset", spec.offset), ("Trials", spec.trials)):
        if value:
            facts.append((label, value))
    if spec.weights:
        facts.append(("Weights", f"{spec.weights[1]} ({spec.weights[0]})"))
    classes = record.parameters.classes
    if spec.response_kind == "classes":
        facts.append(("Classes", f"{classes[0]} (reference), {', '.join(classes[1:])}"))
    if spec.response_kind == "ordered":
        facts.append(("Classes", " < ".join(classes)))
    if spec.where:
        facts.append(("Rows", f"where {spec.where}"))
    return facts


def _observations(record: FitRecord) -> str:
    """How many were used, and how many of them tell nothing of the finite coefficients."""
    s = record.statistics
    rows = "" if s.nobs == s.n_rows else f" in {s.n_rows + _rows_at_limit(record):,} rows"
    limit = f", {s.at_limit:,.15g} of them fitted at their limit" if s.at_limit else ""
    return f"{s.n_used:,.15g}{rows}{limit}"


def _rows_at_limit(record: FitRecord) -> int:
    return record.separation.rows if record.separation is not None and record.statistics.at_limit else 0


def _estimator(record: FitRecord) -> str:
    """How the dispersion was estimated, where there is another estimate beside it."""
    if "dispersion" not in record.shape or not record.statistics.scale_estimated:
        return ""
    rule = record.specification.dispersion or "pearson"
    return {"pearson": " (Pearson)", "deviance": " (deviance)"}.get(str(rule), "")


def _foot(record: FitRecord) -> list[str]:
    s, spec = record.statistics, record.specification
    how = "estimated" if s.scale_estimated else "taken to be"
    lines = [
        *([] if spec.response_kind != "number" else [f"Dispersion {how} {number(s.scale, 7)}{_estimator(record)}"]),
        *(
            f"{name.capitalize()} by maximum likelihood {number(v, 7)}, std. error {number(e)}"
            for name, (v, e) in record.shape.items()
        ),
        f"Null deviance:     {number(s.null_deviance, 9)} on {s.df_null:,.15g} degrees of freedom",
        f"Residual deviance: {number(s.deviance, 9)} on {s.df_resid:,.15g} degrees of freedom",
        f"Log-likelihood {number(s.llf, 10)}, AIC {number(s.aic, 10)}, BIC {number(s.bic, 10)}",
    ]
    outcome = "Converged" if record.converged else "NOT CONVERGED"
    lines.append(
        f"{outcome} in {record.n_iter} steps, {record.n_passes} passes; Newton decrement "
        f"{record.certificate.decrement:.1e}, condition {record.certificate.condition:.1e}"
    )
    if record.certificate.accuracy:
        made = "".join(f"; {refinement}" for refinement in record.certificate.refinements)
        lines.append(f"Estimated accuracy: {record.certificate.accuracy}{made}")
    if record.reason:
        lines.append(record.reason)
    ledger = record.ledger
    lost = []
    if ledger.filtered:
        lost.append(f"{ledger.filtered:,} filtered out")
    if ledger.missing_rows:
        each = ", ".join(f"{name} {count:,}" for name, count in ledger.missing.items() if count)
        lost.append(f"{ledger.missing_rows:,} with a missing value ({each})")
    if ledger.zero_weight:
        lost.append(f"{ledger.zero_weight:,} of weight 0")
    if ledger.separated:
        lost.append(f"{ledger.separated:,} separated, without a finite estimate")
    if lost:
        lines.append(f"Rows: {ledger.read:,} read, {'; '.join(lost)}; {ledger.used:,} used")
    for name, parts in list(record.aliased.items())[:MOST_ALIASED]:
        combination = " + ".join(f"{value:.6g} {other}" for other, value in list(parts.items())[:4]) or "0"
        lines.append(f"Not estimated: {name} = {combination}{' + ...' if len(parts) > 4 else ''}")
    if len(record.aliased) > MOST_ALIASED:
        lines.append(f"Not estimated: {len(record.aliased) - MOST_ALIASED} more, see aliased")
    if record.separated:
        shown = ", ".join(record.separated[:MOST_ALIASED])
        more = f" and {len(record.separated) - MOST_ALIASED} more" if len(record.separated) > MOST_ALIASED else ""
        rows = "" if record.separation is None else f"; {record.separation.rows:,} row(s) are fitted at the limit"
        lines.append(f"No finite estimate: {shown}{more}{rows}")
    lines.extend(record.notes)
    return lines


def text(record: FitRecord, limits: Limits | None = None) -> str:
    """The summary as plain text."""
    width = max(len(label) for label, _ in _facts(record))
    lines = [f"{label:<{width}}  {value}" for label, value in _facts(record)]
    header, rows = coefficient_rows(record, limits)
    lines += ["", *_table(header, rows[:MOST_ROWS])]
    if len(rows) > MOST_ROWS:
        lines.append(f"... and {len(rows) - MOST_ROWS} more: see params, bse and pvalues")
    lines += ["---", "Signif. codes: 0 *** 0.001 ** 0.01 * 0.05 . 0.1", "", *_foot(record)]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    result = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True))]
        result.append(f"{'  '.join(cells)} {row[-1]}".rstrip())
    return result


def as_html(record: FitRecord, limits: Limits | None = None) -> str:
    """The summary as an HTML fragment."""
    head = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
        for label, value in _facts(record)
    )
    header, rows = coefficient_rows(record, limits)
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr><th style='text-align:left'>"
        + html.escape(row[0])
        + "</th>"
        + "".join(f"<td style='text-align:right'>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows[:MOST_ROWS]
    )
    foot = "<br>".join(html.escape(line) for line in _foot(record))
    return (
        f"<div class='daskglm-summary'><table>{head}</table>"
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table><p>{foot}</p></div>"
    )


@final
class Summary:
    """Prints as text; a notebook shows `as_html()`."""

    def __init__(self, record: FitRecord, limits: Limits | None = None) -> None:
        self._record, self._limits = record, limits

    def as_text(self) -> str:
        """Plain text."""
        return text(self._record, self._limits)

    def as_html(self) -> str:
        """An HTML fragment."""
        return as_html(self._record, self._limits)

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()
