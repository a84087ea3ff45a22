"""What inference costs, as multiples of one closing pass over the same lake: the decode, the Gram and all statistics."""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import lakes

# What each task may cost at most: in closing passes, and in passes over the data.
GOALS: dict[str, tuple[float | None, int | None]] = {
    "HC3": (2.0, None),
    "clusters": (5.0, None),
    "candidates": (None, 1),
    "profile": (None, 12),
    "bootstrap": (None, 1),
    "checks": (4.0, 1),
}
PARAMETERS = 20
REPLICATES = 1_000
CANDIDATES = 200


def candidates() -> list[str]:
    """200 terms that the model does not have."""
    names = [f"x{j}" for j in range(lakes.FLOATS)]
    pairs = [f"{a}:{b}" for a, b in itertools.combinations(names, 2)]
    powers = [f"I({a}**{k})" for k in (2, 3, 4, 5) for a in names]
    others = [f"{function}({a})" for function in ("sin", "cos", "tanh", "exp") for a in names]
    mixed = [f"I({a} * {b}**2)" for a, b in itertools.permutations(names, 2)]
    return (pairs + powers + others + mixed)[:CANDIDATES]


def report(folder: Path, rows: int, repeat: int, only: tuple[str, ...]) -> None:
    """Each task in fresh processes, its closing pass measured beside it."""
    lake = lakes.policies(folder, rows)
    model = folder / f"inference-{rows}"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.inference", "fit", str(lake), str(model)], check=True
    )
    click.echo("| task | seconds | closing passes | at most | passes | peak GB | |")
    click.echo("|---|---|---|---|---|---|---|")
    for task in only or GOALS:
        found = [_once(task, lake, model) for _ in range(repeat)]
        ratio = statistics.median(one["seconds"] / one["closing"] for one in found)
        most, passes = GOALS[task]
        goal = " and ".join(([] if most is None else [f"{most:g}"]) + ([] if passes is None else [f"{passes} passes"]))
        click.echo(
            f"| {task} | {statistics.median(one['seconds'] for one in found):.2f} | {ratio:.2f} | {goal} | "
            f"{found[0]['passes']} | {max(one['peak'] for one in found):.2f} | {found[0]['said']} |"
        )


def _once(task: str, lake: Path, model: Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.inference", task, str(lake), str(model)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def _fit(lake: str, model: str) -> None:
    import daskglm as dg

    if not (Path(model) / "current.json").exists():
        dg.glm(lakes.FORMULA, lake, family="poisson", exposure="exposure", progress=False).save(model)


def _tasks(fit: Any, lake: str) -> dict[str, Callable[[], str]]:
    """What is measured, each with a word on what came out."""
    import daskglm as dg

    names = list(fit.params.index)[:PARAMETERS]
    return {
        "HC3": lambda: f"mean error {fit.cov_params('HC3', lake).to_numpy().diagonal().mean() ** 0.5:.6f}",
        "clusters": lambda: (
            f"mean error {fit.cov_params(dg.Cluster('policy'), lake).to_numpy().diagonal().mean() ** 0.5:.6f}"
        ),
        "candidates": lambda: f"{len(fit.score_test(candidates(), lake))} terms",
        "profile": lambda: f"{len(fit.conf_int(method='profile', data=lake, params=names).dropna())} intervals",
        "bootstrap": lambda: f"{len(fit.bootstrap(lake, replicates=REPLICATES).params)} replicates",
        "checks": lambda: (
            f"{len(str(fit.check(lake, by=('area', 'agent', 'x0'), exposure='exposure')).splitlines())} lines"
        ),
    }


def _closing(fit: Any, lake: str) -> None:
    """The pass that ends every fit, over rows that are decoded for it."""
    from daskglm.postestimation.revisit import Visit
    from daskglm.totals.moments import Request, moments

    with Visit(fit.record, lake) as visit:
        visit.total(moments, visit.model, Request(visit.coef, 2, "expected", statistics=True))


def _worker(task: str, lake: str, model: str) -> dict[str, Any]:
    import daskglm as dg
    from daskglm.cluster.local import LocalPartitions

    fit = dg.load(model)
    work = _tasks(fit, lake)[task]
    passes = [0]

    def counting(taken: Any) -> Any:
        def counted(self: Any, *args: Any) -> Any:
            passes[0] += 1
            return taken(self, *args)

        return counted

    _closing(fit, lake)
    for name in ("total", "grouped"):
        setattr(LocalPartitions, name, counting(getattr(LocalPartitions, name)))
    seconds, closing = [], []
    for _ in range(2):
        began = time.perf_counter()
        _closing(fit, lake)
        closing.append(time.perf_counter() - began)
        passes[0], began = 0, time.perf_counter()
        said = work()
        seconds.append(time.perf_counter() - began)
        if seconds[0] > 60.0:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": min(seconds), "closing": min(closing), "passes": passes[0], "peak": peak, "said": said}


if __name__ == "__main__":
    if sys.argv[1] == "fit":
        _fit(*sys.argv[2:])
    else:
        print(json.dumps(_worker(*sys.argv[1:])))
