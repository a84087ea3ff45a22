"""`python -m benchmarks compare|gamma|scaling|memory|objects|cluster|faults|freezes|families|grid|inference|kernel|separation`: tables of ratios, everything of a table measured in one run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from benchmarks import lakes
from benchmarks.evaluate import judged
from benchmarks.limits import control_group, entered

FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(tempfile.gettempdir()) / "daskglm-benchmarks",
    help="Where lakes are written and kept between runs.",
)  # fmt: skip


@dataclass
class Series:
    """Repeated processes of one contender."""

    name: str
    worker: str
    options: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def once(self, lake: Path, problem: str, group: Path | None = None) -> None:
        """One fresh process, timed from outside, its peak memory from the kernel; in a control group if one is given."""
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.workers", self.worker, str(lake), problem]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, json.dumps(self.options)], stdout=subprocess.PIPE, text=True, preexec_fn=lambda: entered(group)
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds.append(time.perf_counter() - began)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise click.ClickException(f"{self.name} ended with {process.returncode}")
        self.peak.append(usage.ru_maxrss / 1e6)
        self.results.append(json.loads(output.strip().splitlines()[-1]))

    @property
    def median(self) -> float:
        """Median seconds of the whole process."""
        return statistics.median(self.seconds)


def alternate(series: list[Series], lake: Path, problem: str, repeat: int) -> None:
    """Every contender once, then every one again: what the machine does meanwhile is shared."""
    for turn in range(repeat):
        for one in series:
            one.once(lake, problem)
            click.echo(f"  {turn + 1}/{repeat} {one.name}: {one.seconds[-1]:.2f} s", err=True)


def loosest(lake: Path, problem: str, goal: float) -> tuple[float, float]:
    """The largest of glum's tolerances at which its gradient is no larger than `goal`, and the gradient there."""
    found = []
    for tolerance in (1e-6, 1e-8, 1e-10, 1e-12):
        probe = Series("glum", "glum", {"tol": tolerance})
        probe.once(lake, problem)
        gradient = judged(lake, problem, probe.results[0]["coefficients"])[1]
        found.append((gradient, tolerance))
        click.echo(f"  glum at {tolerance:g}: gradient {gradient:.1e}", err=True)
        if gradient <= goal:
            return tolerance, gradient
    gradient, tolerance = min(found)
    return tolerance, gradient


def table(series: list[Series], lake: Path, problem: str, scan: float) -> None:
    """Medians and ratios to the first contender, with deviance and gradient evaluated independently."""
    ours = series[0]
    click.echo(
        f"\n{problem}, {lake.name}; medians of {len(ours.seconds)} alternating fresh processes, {os.cpu_count()} cores"
    )
    click.echo(f"bare pyarrow scan of the same columns: {scan:.2f} s")
    click.echo("| | seconds | ratio | peak GB | ratio | passes | deviance | gradient |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for one in series:
        deviance, gradient = judged(lake, problem, one.results[0]["coefficients"])
        peak, ours_peak = statistics.median(one.peak), statistics.median(ours.peak)
        click.echo(
            f"| {one.name} | {one.median:.2f} | {one.median / ours.median:.1f} | {peak:.2f} | {peak / ours_peak:.1f} "
            f"| {one.results[0]['passes']} | {deviance:.6f} | {gradient:.1e} |"
        )
    warm = [result["warm_seconds"] for result in ours.results if "warm_seconds" in result]
    if warm:
        click.echo(
            f"daskglm in a warm process: {statistics.median(warm):.2f} s, {statistics.median(warm) / scan:.1f} scans"
        )


def bare_scan(lake: Path, problem: str) -> float:
    """Seconds of a bare scan, page cache warm."""
    scan = Series("scan", "scan", {})
    scan.once(lake, problem)
    return float(scan.results[0]["seconds"])


def versus(lake: Path, problem: str, repeat: int, peers: bool) -> None:
    """daskglm against glum at its default tolerance and at the loosest that reaches our gradient."""
    series = [Series("daskglm", "daskglm", {})]
    bare_scan(lake, problem)
    series[0].once(lake, problem)  # kernels compiled, files in the page cache
    goal = judged(lake, problem, series[0].results[0]["coefficients"])[1]
    series[0].seconds, series[0].peak, series[0].results = [], [], []
    if peers:
        tolerance, _ = loosest(lake, problem, goal)
        series += [Series("glum", "glum", {}), Series(f"glum, gradient_tol {tolerance:g}", "glum", {"tol": tolerance})]
    alternate(series, lake, problem, repeat)
    warm = Series("daskglm", "daskglm", {"turns": 6})
    warm.once(lake, problem)
    series[0].results[0]["warm_seconds"] = warm.results[0]["warm_seconds"]
    table(series, lake, problem, bare_scan(lake, problem))


@click.group()
def main() -> None:
    """Measurements, as ratios taken within one run."""


@main.command()
@click.option("--rows", default=10_000_000, help="Rows of the claims lake.")
@click.option("--dense-rows", default=2_000_000, help="Rows of the dense logistic lake; 0 leaves it out.")
@click.option("--repeat", default=5, help="Processes per contender.")
@click.option("--peers/--no-peers", default=True, help="Also run glum.")
@FOLDER
def compare(rows: int, dense_rows: int, repeat: int, peers: bool, folder: Path) -> None:
    """Poisson claims and dense logistic, from Parquet to coefficients, against glum."""
    versus(lakes.claims(folder, rows), "poisson", repeat, peers)
    if dense_rows:
        versus(lakes.logistic(folder, dense_rows), "logistic", repeat, peers)


@main.command()
@click.option("--rows", default=10_000_000, help="Rows of the claims lake.")
@FOLDER
def gamma(rows: int, folder: Path) -> None:
    """Passes of a gamma fit with log link on lognormal severities (sd 2)."""
    lake = lakes.claims(folder, rows)
    one = Series("daskglm", "daskglm", {})
    one.once(lake, "gamma")
    result = one.results[0]
    click.echo(f"gamma, log link, {rows:,} rows: {result['passes']} passes, decrement {result['decrement']:.1e}, "
               f"{one.seconds[0]:.2f} s")  # fmt: skip


@main.command()
@click.option("--rows", multiple=True, type=int, default=(2_000_000, 10_000_000), help="Sizes to compare.")
@click.option("--repeat", default=5, help="Processes per size.")
@FOLDER
def scaling(rows: tuple[int, ...], repeat: int, folder: Path) -> None:
    """Time per row of the Poisson fit, in a warm process, as rows grow."""
    each = [(n, Series(f"{n:,}", "daskglm", {"turns": 3}), lakes.claims(folder, n)) for n in rows]
    for _ in range(repeat):
        for _, series, lake in each:
            series.once(lake, "poisson")
    first: float | None = None
    for n, series, _ in each:
        per_row = statistics.median(result["warm_seconds"] for result in series.results) / n * 1e9
        first = first or per_row
        click.echo(f"{n:>12,} rows: {per_row:6.1f} ns per row, {per_row / first:.2f} of the first")


@main.command()
@click.option("--rows", default=50_000_000, help="Rows of the lake that does not fit.")
@click.option("--fitting", default=10_000_000, help="Rows of the lake that does, for comparison.")
@click.option("--gib", default=2.0, help="Memory of the control group, page cache included.")
@FOLDER
def memory(rows: int, fitting: int, gib: float, folder: Path) -> None:
    """The Poisson fit in a control group with little memory, against one that fits, per row."""
    small, large = lakes.claims(folder, fitting), lakes.claims(folder, rows)
    inside = Series("in memory", "daskglm", {})
    for _ in range(3):
        inside.once(small, "poisson")
    per_row = inside.median / fitting
    with control_group(int(gib * 2**30)) as group:
        if group is None:
            raise click.ClickException("a control group cannot be made here: run as root where cgroups are mounted")
        limited = Series("limited", "daskglm", {})
        limited.once(large, "poisson", group)
    result = limited.results[0]
    click.echo(
        f"{rows:,} rows in {gib:g} GiB: {limited.median:.1f} s, peak {limited.peak[0]:.2f} GB, {result['passes']} passes, "
        f"{result['decodes']} decodes, converged {result['converged']}"
    )
    click.echo(
        f"{fitting:,} rows in memory: {inside.median:.1f} s; per row, limited / in memory: "
        f"{limited.median / rows / per_row:.2f}"
    )


@main.command()
@click.option("--objects", "count", default=10_000, help="Objects of the lake.")
@click.option("--rows", default=1_000, help="Rows of each object.")
@click.option("--latency-ms", default=50.0, help="Round trip between the fit and the store.")
@click.option("--errors", default=0.01, help="Share of requests that are answered with 503 SlowDown.")
@click.option("--concurrency", default=32, help="Requests at once.")
@FOLDER
def objects(count: int, rows: int, latency_ms: float, errors: float, concurrency: int, folder: Path) -> None:
    """Planning and fitting a lake of many objects in a store that is far and sometimes busy."""
    from benchmarks.objects import report

    try:
        report(count, rows, latency_ms / 1e3, errors, concurrency, folder)
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--rows", default=1_000_000, help="Rows.")
@click.option("--repeat", default=9, help="Repetitions, of which the median counts.")
def kernel(rows: int, repeat: int) -> None:
    """Gather and scatter with one thread and two, against tabmat with two."""
    from benchmarks.kernel import report

    report(rows, repeat)


PARTS = ("bits", "collections", "gain", "overhead", "wide", "small", "large", "together")


@main.command("cluster")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--rows", default=10_000_000, help="Rows of the claims lake.")
@click.option("--dense-rows", default=24_000, help="Rows with 2 000 columns.")
@click.option("--small-rows", default=20_000_000, help="Rows whose blocks lie on one small worker's disk.")
@click.option("--large-rows", default=200_000_000, help="Rows of the lake far larger than memory.")
@click.option("--repeat", default=5, help="Repetitions, of which the median counts.")
@click.option("--seed", default=1, help="Of the moments at which workers are killed.")
@FOLDER
def cluster_(
    parts: tuple[str, ...], rows: int, dense_rows: int, small_rows: int, large_rows: int, repeat: int, seed: int,
    folder: Path,
) -> None:  # fmt: skip
    """The distributed engine on worker processes of this machine, part by part (all but large if none is named)."""
    from benchmarks import cluster

    run = {
        "bits": lambda: cluster.bits(folder, rows, seed),
        "collections": lambda: cluster.collections(folder, rows, repeat),
        "gain": lambda: cluster.gain(64, 5, repeat),
        "overhead": lambda: cluster.overhead(10 * repeat),
        "wide": lambda: cluster.wide(dense_rows, "2GiB"),
        "small": lambda: cluster.small(folder, small_rows),
        "large": lambda: cluster.large(folder, large_rows, "1GiB"),
        "together": lambda: cluster.together(folder, rows),
    }
    for part in parts or PARTS[:-2] + PARTS[-1:]:
        click.echo(f"== {part}")
        run[part]()


@main.command()
@click.argument("tasks", nargs=-1)
@click.option("--rows", default=10_000_000, help="Rows of the lake.")
@click.option("--repeat", default=3, help="Processes per task.")
@FOLDER
def inference(tasks: tuple[str, ...], rows: int, repeat: int, folder: Path) -> None:
    """Covariances, tests, intervals and checks, each against a closing pass. TASKS: some of them, by name."""
    from benchmarks.inference import report

    report(folder, rows, repeat, tasks)


@main.command()
@click.option("--seeds", default=20, help="Fits, each with faults of its own.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--rows", default=600_000, help="Rows of the claims lake.")
@FOLDER
def faults(seeds: int, first: int, rows: int, folder: Path) -> None:
    """Workers killed, frozen, joined and sent away at random moments; every fit must end with the same bits."""
    from benchmarks.faults import soak

    wrong = soak(rows, range(first, first + seeds), folder)
    if wrong:
        raise click.ClickException(f"{wrong} of {seeds} fits went wrong")


@main.command("freezes")
@click.option("--patience", default=20.0, help="Seconds without progress that a fit allows.")
@click.option("--only", default="", help="Only cases whose name (worker in pass, keep=disk, ...) has this in it.")
@FOLDER
def freezes_(patience: float, only: str, folder: Path) -> None:
    """A worker and the scheduler frozen in each phase: the same bits, or one sentence in time, and nothing left behind."""
    from benchmarks.faults import freezes

    wrong = freezes(folder, patience, only)
    if wrong:
        raise click.ClickException(f"{wrong} fits went wrong")


@main.command()
@click.option("--planted", default=240, help="Cases with an infinite optimum.")
@click.option("--ordinary", default=1_200, help="Cases without one, or by luck.")
@click.option("--first", default=100, help="The first seed.")
def separation(planted: int, ordinary: int, first: int) -> None:
    """Infinite optima against a linear program and the fit without the separated rows; none may be missed or made up."""
    from benchmarks.separation import report

    wrong = report(planted, ordinary, first)
    if wrong:
        raise click.ClickException(f"{wrong} cases went wrong")


@main.command("families")
@click.option("--rows", default=10_000_000, help="Rows of each lake.")
@click.option("--repeat", default=3, help="Processes per problem.")
@FOLDER
def families_(rows: int, repeat: int, folder: Path) -> None:
    """Multinomial passes, negative binomial theta and Tweedie power, each against what is simpler."""
    from benchmarks.families import report

    report(folder, rows, repeat)


@main.command()
@click.option("--seeds", default=2, help="Times that data of each shape are drawn.")
@click.option("--first", default=0, help="The first seed.")
@click.option("--only", default="", help="Only cases whose name (family link shape seed) has this in it.")
@click.option("--slowest", default=5, help="How many of the fits with the most passes are named.")
def grid(seeds: int, first: int, only: str, slowest: int) -> None:
    """Every family with every link on data of every shape; each fit must say what is true of its data."""
    from benchmarks.grid import report

    wrong = report(range(first, first + seeds), only, slowest)
    if wrong:
        raise click.ClickException(f"{wrong} fits said something untrue")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
