"""Fits side by side: estimates with their errors, and criteria below."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from daskglm.errors import DesignError, closest, public
from daskglm.postestimation import criteria
from daskglm.postestimation.comparisons import different_rows
from daskglm.record import FitRecord
from daskglm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

CRITERIA = ("nobs", "df_resid", "deviance", "deviance_explained", "scale", "llf", "aic", "aicc", "bic")
# Criteria that mean nothing next to each other where the rows or the responses are not the same.
OF_THE_SAME_ROWS = ("llf", "aic", "aicc", "bic")
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip


@public
def compare(*fits: Fit, names: Sequence[str] | None = None) -> Comparison:
    """Fits as columns of one table: estimates with standard errors, and criteria below. No pass over data.

    names: of the columns, "(1)", "(2)", ... where none are given. Where responses or rows differ a note says so, and
    likelihoods and information criteria are left out. `str`, `as_html()`, `as_latex()`; `frame` and `criteria` hold the
    numbers.
    """
    if not fits:
        raise DesignError("compare takes one fit or more: dg.compare(fit, other)")
    for fit in fits:
        if not isinstance(fit, Fit):
            hint = ': choose one of its responses, fits["y"]' if hasattr(fit, "responses") else ""
            raise DesignError(f"compare takes fits, not {type(fit).__name__}{hint}")
    labels = [f"({k + 1})" for k in range(len(fits))] if names is None else [str(name) for name in names]
    if isinstance(names, str) or len(labels) != len(fits):
        raise DesignError(f"names= has {len(labels)} name(s) for {len(fits)} fit(s)")
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise DesignError(f"two fits would be called {twice!r}")
    return Comparison([fit.record for fit in fits], labels)


@final
class Comparison:
    """What `compare` gives. frame: a row per parameter, columns (name, "estimate") and (name, "error"); criteria: a row per
    criterion, a column per fit; notes: what is to be known of them.
    """

    def __init__(self, records: Sequence[FitRecord], labels: Sequence[str]) -> None:
        import pandas as pd

        self.names = tuple(labels)
        index = list(dict.fromkeys(name for record in records for name in record.names))
        columns: dict[tuple[str, str], pd.Series] = {}
        for label, record in zip(labels, records, strict=True):
            with np.errstate(invalid="ignore"):
                errors = record.errors
            columns[label, "estimate"] = pd.Series(record.coefficients, list(record.names)).reindex(index)
            columns[label, "error"] = pd.Series(errors, list(record.names)).reindex(index)
        self.frame = pd.DataFrame(columns, index=index)
        self._present = {label: frozenset(record.names) for label, record in zip(labels, records, strict=True)}
        self._models = {
            label: f"{r.specification.family} ({r.specification.link})"
            for label, r in zip(labels, records, strict=True)
        }
        self.notes = _notes(records, labels)
        comparable = not any(note.startswith("not ") for note in self.notes)
        table = {label: _criteria(record) for label, record in zip(labels, records, strict=True)}
        kept = [name for name in CRITERIA if comparable or name not in OF_THE_SAME_ROWS]
        self.criteria = pd.DataFrame(table, index=list(CRITERIA)).loc[kept]

    def as_text(self) -> str:
        """Plain text."""
        head, body, tail = self._cells()
        rows = [head, *body, *tail]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]

        def line(row: Sequence[str]) -> str:
            first = row[0].ljust(widths[0])
            return "  ".join([first, *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([line(head), rule, *map(line, body), rule, *map(line, tail), *self.notes])

    def as_html(self) -> str:
        """An HTML fragment."""
        head, body, tail = self._cells()

        def line(row: Sequence[str], tag: str) -> str:
            first = f"<th>{html.escape(row[0])}</th>"
            return f"<tr>{first}{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row[1:])}</tr>"

        rows = [line(row, "td") for row in body]
        below = [line(row, "td") for row in tail]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(rows)}</tbody><tbody>{''.join(below)}</tbody>"
            f"</table>{notes}"
        )

    def as_latex(self) -> str:
        """A tabular environment; its rules are those of every LaTeX."""
        head, body, tail = self._cells()

        def line(row: Sequence[str]) -> str:
            return " & ".join(_latex(cell) for cell in row) + r" \\"

        notes = [rf"\multicolumn{{{len(head)}}}{{l}}{{{_latex(note)}}} \\" for note in self.notes]
        lines = [
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\hline", line(head), r"\hline", *map(line, body),
            r"\hline", *map(line, tail), r"\hline", *notes, r"\end{tabular}",
        ]  # fmt: skip
        return "\n".join(lines)

    def _cells(self) -> tuple[list[str], list[list[str]], list[list[str]]]:
        """Header, a line for each parameter and one for its errors, criteria."""
        head = ["", *self.names]
        body = []
        for name in self.frame.index:
            estimates, errors = [str(name)], [""]
            for label in self.names:
                inside = name in self._present[label]
                value, error = self.frame.loc[name, (label, "estimate")], self.frame.loc[name, (label, "error")]
                estimates.append("" if not inside else "aliased" if np.isnan(value) else f"{value:.5g}")
                errors.append("" if not inside or np.isnan(error) else f"({error:.3g})")
            body += [estimates, errors]
        tail = [["family (link)", *(self._models[label] for label in self.names)]]
        tail += [
            [str(name), *(_number(self.criteria.loc[name, label]) for label in self.names)]
            for name in self.criteria.index
        ]
        return head, body, tail

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        known = ("frame", "criteria", "notes", "names", "as_text", "as_html", "as_latex")
        raise AttributeError(f"a comparison has no {name!r}{closest(name, known)}")

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()


def _criteria(record: FitRecord) -> dict[str, float]:
    s = record.statistics
    return {
        "nobs": s.nobs, "df_resid": s.df_resid, "deviance": s.deviance,
        "deviance_explained": criteria.deviance_explained(record), "scale": s.scale, "llf": s.llf, "aic": s.aic,
        "aicc": criteria.aicc(record), "bic": s.bic,
    }  # fmt: skip


def _notes(records: Sequence[FitRecord], labels: Sequence[str]) -> tuple[str, ...]:
    """What is different between the first fit and the others; those that begin with "not" forbid to compare likelihoods."""
    notes = []
    first = records[0]
    for label, record in zip(labels[1:], records[1:], strict=True):
        a, b = first.specification.response, record.specification.response
        if a != b:
            notes.append(
                f"not of the same response: {labels[0]} of {a}, {label} of {b}; information criteria are left out"
            )
            continue
        found = different_rows(first, record)
        if found is not None:
            notes.append(f"not of the same rows ({labels[0]}, {label}): {found}; information criteria are left out")
    for label, record in zip(labels, records, strict=True):
        if record.separated:
            notes.append(f"{label} has infinite coefficients: {', '.join(record.separated[:5])}")
        if not record.converged:
            notes.append(f"{label} did not converge")
    return tuple(notes)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _latex(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
