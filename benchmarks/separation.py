"""Infinite optima planted and not: what is found, against a linear program, and the fit without the separated rows or, of
responses of classes, the likelihood at the limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np

from tests.fronts import separated, separated_classes

Make = Callable[[np.random.Generator], Any]


def _kind(make: Make, check: Callable[[Any], dict[str, Any]], seeds: Sequence[int]) -> tuple[int, int, list[int]]:
    """Separated cases, wrong ones, and passes of every fit."""
    infinite, wrong, passes = 0, 0, []
    for seed in seeds:
        case = make(np.random.default_rng([seed, 7]))
        found = check(case)
        infinite += found["rows"] > 0
        passes.append(found["passes"])
        if found["wrong"]:
            wrong += 1
            click.echo(
                f"  {make.__name__} {seed}: {case.formula}, {case.family}, {case.link}: {found['wrong']}", err=True
            )
    return infinite, wrong, passes


def report(planted: int, ordinary: int, first: int) -> int:
    """Print the table; the number of cases that went wrong."""
    click.echo("| | cases | separated | wrong | passes, median | most |")
    click.echo("|---|---|---|---|---|---|")
    total = 0
    responses: tuple[Any, ...] = (separated, separated_classes)
    for response in responses:
        for table, count in ((response.PLANTED, planted), (response.ORDINARY, ordinary)):
            each = -(-count // len(table))
            for make in table:
                infinite, wrong, passes = _kind(make, response.check, range(first, first + each))
                total += wrong
                name = make.__name__.replace("_", " ")
                median = statistics.median(passes)
                click.echo(f"| {name} | {each} | {infinite} | {wrong} | {median:g} | {max(passes)} |")
    return total
