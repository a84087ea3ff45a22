"""Every family with every link it accepts on data of every shape: what each fit says, held against the data."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict

import click

from tests.laws import grid


def report(seeds: range, only: str, slowest: int) -> int:
    """A row for each shape, the slowest fits, and every fit that said something untrue; how many those were."""
    verdicts = []
    cases = [case for case in grid.cases(seeds) if only in str(case)]
    for number, case in enumerate(cases):
        verdicts.append(grid.judge(case))
        if not verdicts[-1].right:
            click.echo(f"wrong: {case}: {verdicts[-1].detail}")
        if number % 200 == 199:
            click.echo(f"  {number + 1}/{len(cases)}", err=True)
    by_shape = defaultdict(list)
    for verdict in verdicts:
        by_shape[verdict.case.shape].append(verdict)
    outcomes = ("optimum", "separated", "boundary", "refused", "wrong")
    click.echo(f"| shape | {' | '.join(outcomes)} | passes: median | largest |")
    click.echo("|---" * (len(outcomes) + 3) + "|")
    for shape, found in [*by_shape.items(), ("all", verdicts)]:
        count = Counter(verdict.outcome for verdict in found)
        passes = [verdict.passes for verdict in found]
        cells = " | ".join(str(count[outcome]) for outcome in outcomes)
        click.echo(f"| {shape} | {cells} | {statistics.median(passes):g} | {max(passes)} |")
    for outcome in ("optimum", "separated", "boundary"):
        most = sorted((v for v in verdicts if v.outcome == outcome), key=lambda v: -v.passes)[:slowest]
        click.echo(f"most passes, {outcome}: " + "; ".join(f"{verdict.case} {verdict.passes}" for verdict in most))
    return sum(not verdict.right for verdict in verdicts)
