"""Families beyond the four: classes per entry of their Gram, parameters beside the coefficients against fixed ones."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import lakes

RIGHT = lakes.FORMULA.split("~")[1]
# (formula, options) of each problem; {} is filled with what an earlier fit found.
PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "binomial": (f"I(claims > 0) ~{RIGHT}", {"family": "binomial", "where": "claims <= 3"}),
    "multinomial": (f"claims ~{RIGHT}", {"family": "multinomial", "where": "claims <= 3"}),
    "theta fixed": (f"claims ~{RIGHT}", {"family": "negative_binomial(theta={theta!r})", "exposure": "exposure"}),
    "theta": (f"claims ~{RIGHT}", {"family": "negative_binomial", "exposure": "exposure"}),
    "power fixed": (f"premium ~{RIGHT}", {"family": "tweedie(power={power!r})"}),
    "power": (f"premium ~{RIGHT}", {"family": "tweedie"}),
}


def once(lake: Path, problem: str, found: dict[str, float]) -> dict[str, Any]:
    """One fit in a fresh process, kernels compiled and files in the page cache by a fit before it."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.families", str(lake), problem, json.dumps(found)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def report(folder: Path, rows: int, repeat: int) -> None:
    """Everything, alternating."""
    claims, premiums = lakes.claims(folder, rows), lakes.premiums(folder, rows)
    compare(claims, ("binomial", "multinomial"), repeat, {})
    one, many = last["binomial"], last["multinomial"]
    # q (q + 1) / 2 = 6 blocks of three predictors against one
    ratio = many["per_pass"] / 6.0 / one["per_pass"]
    click.echo(f"a multinomial pass with 4 classes per Gram entry: {ratio:.2f} times a binomial one (at most 4); "
               f"{len(many['separated'])} infinite coefficients in {many['passes']} passes")  # fmt: skip
    for lake, name in ((claims, "claims, which are Poisson"), (premiums, "overdispersed claims")):
        found = once(lake, "theta", {})["shape"]
        if found["theta"] < float("inf"):
            compare(lake, ("theta fixed", "theta"), repeat, found)
            click.echo(
                f"{name}: theta {found['theta']:.6g} estimated in {gain('theta'):.2f} times the time (at most 2.5)"
            )
    found = once(premiums, "power", {})["shape"]
    compare(premiums, ("power fixed", "power"), repeat, found)
    click.echo(f"pure premiums: power {found['power']:.6f}, dispersion {found['dispersion']:.5f} estimated in "
               f"{gain('power'):.2f} times the time (at most 2.5); infinite: {', '.join(last['power']['separated'])}")  # fmt: skip


last: dict[str, dict[str, Any]] = {}


def compare(lake: Path, problems: tuple[str, str], repeat: int, found: dict[str, float]) -> None:
    """Medians of some problems, each in turn."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in problems}
    for _ in range(repeat):
        for name in problems:
            results[name].append(once(lake, name, found))
    for name, each in results.items():
        last[name] = {**each[0], "seconds": statistics.median(one["seconds"] for one in each)}
        last[name]["per_pass"] = statistics.median(one["per_pass"] for one in each)
        click.echo(f"  {lake.name}, {name}: {last[name]['seconds']:.2f} s, {each[0]['passes']} passes of "
                   f"{last[name]['per_pass']:.3f} s, converged: {each[0]['converged']}")  # fmt: skip


def gain(name: str) -> float:
    """Time of the estimate against that of the fixed parameter."""
    return float(last[name]["seconds"] / last[f"{name} fixed"]["seconds"])


class Clock:
    """Times of the passes over all rows."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def begin(self, partitions: Any) -> None:
        """Planned."""

    def phase(self, name: str) -> None:
        """A phase begins."""
        self.marks = [time.perf_counter()] if name == "pass" and not self.marks else self.marks

    def deviance(self, value: float) -> None:
        """A pass is done."""
        self.marks.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more."""


def _worker(lake: str, problem: str, found: dict[str, float]) -> dict[str, Any]:
    from daskglm.cluster.engine import Engine
    from daskglm.cluster.sources import open_source
    from daskglm.fit import run
    from daskglm.plan import make_plan

    formula, options = PROBLEMS[problem]
    options = {
        **options,
        "family": options["family"].format(**found) if "{" in options["family"] else options["family"],
    }
    for turn in range(2):
        clock = Clock()
        began = time.perf_counter()
        record = run(make_plan(formula, options), open_source(lake), Engine(), clock)
        seconds = time.perf_counter() - began
        if not turn and seconds > 60.0:
            break
    steps = [b - a for a, b in zip(clock.marks[:-1], clock.marks[1:], strict=True)]
    # the longest are those with a Gram
    per_pass = statistics.median(sorted(steps)[len(steps) // 2 :]) if steps else seconds
    shape = {name: value for name, (value, _) in record.shape.items()}
    return {
        "seconds": seconds, "passes": record.n_passes, "per_pass": per_pass, "shape": shape,
        "converged": record.converged, "separated": list(record.separated),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_worker(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
