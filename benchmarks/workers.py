"""One fit in one process: `python -m benchmarks.workers NAME LAKE PROBLEM OPTIONS`, result as one line of JSON.

A worker reads Parquet and ends with coefficients; the parent times the whole process.
"""

from __future__ import annotations

import json
import sys
import time

FLOATS = [f"x{j}" for j in range(10)]
FACTORS = ["area", "vehicle", "region", "agent"]


def problem_columns(problem: str) -> tuple[list[str], list[str], str]:
    """(float columns, factors, response)."""
    if problem == "logistic":
        return [f"x{j}" for j in range(50)], [], "y"
    return FLOATS, FACTORS, "severity" if problem == "gamma" else "claims"


def daskglm(lake: str, problem: str, options: dict[str, object]) -> dict[str, object]:
    """This package, by its one line."""
    import daskglm as dg

    floats, factors, response = problem_columns(problem)
    formula = f"{response} ~ {' + '.join(floats + factors)}"
    family = {"poisson": "poisson", "logistic": "binomial", "gamma": "gamma"}[problem]
    extra: dict[str, object] = {"exposure": "exposure"} if problem == "poisson" else {}
    if options.get("keep"):
        extra["keep"] = options["keep"]
    result: dict[str, object] = {}
    warm: list[float] = []
    for turn in range(int(options.get("turns", 1))):  # type: ignore[call-overload]
        began = time.perf_counter()
        fit = dg.glm(formula, lake, family=family, progress=False, **extra)
        seconds = time.perf_counter() - began
        if turn:
            warm.append(seconds)
            result["warm_seconds"] = sorted(warm)[len(warm) // 2]
    result["coefficients"] = {
        name: float(value) for name, value in zip(fit.record.names, fit.record.coefficients, strict=False)
    }
    result["passes"], result["converged"] = fit.n_passes, fit.converged
    result["decodes"] = fit.record.decodes
    result["decrement"] = fit.certificate.decrement
    return result


def glum(lake: str, problem: str, options: dict[str, object]) -> dict[str, object]:
    """glum on pandas, its documented way; rates weighted by exposure are the Poisson fit with exposure."""
    import glum as peer
    import pyarrow.parquet as pq

    floats, factors, response = problem_columns(problem)
    exposure = ["exposure"] if problem == "poisson" else []
    frame = pq.read_table(lake, columns=[*floats, *factors, *exposure, response]).to_pandas()
    y = frame.pop(response).to_numpy()
    weight = frame.pop("exposure").to_numpy() if exposure else None
    family = {"poisson": "poisson", "logistic": "binomial", "gamma": "gamma"}[problem]
    tolerance = {"gradient_tol": options["tol"]} if options.get("tol") else {}
    model = peer.GeneralizedLinearRegressor(
        family=family, alpha=0, drop_first=True, link="log" if problem == "gamma" else "auto", max_iter=300, **tolerance
    )
    model.fit(frame, y / weight if weight is not None else y, sample_weight=weight)
    names = ["Intercept", *(_translated(name, factors) for name in model.feature_names_)]
    values = [float(model.intercept_), *map(float, model.coef_)]
    return {"coefficients": dict(zip(names, values, strict=False)), "passes": int(model.n_iter_)}


def _translated(name: str, factors: list[str]) -> str:
    for factor in factors:
        if name.startswith(f"{factor}[") and not name.startswith(f"{factor}[T."):
            return f"{factor}[T.{name[len(factor) + 1 :]}"
    return name


def scan(lake: str, problem: str, options: dict[str, object]) -> dict[str, object]:
    """Nothing but pyarrow reading the same columns with every thread, five times."""
    import pyarrow.dataset as ds

    floats, factors, response = problem_columns(problem)
    columns = [*floats, *factors, *(["exposure"] if problem == "poisson" else []), response]
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        rows = sum(batch.num_rows for batch in ds.dataset(lake, format="parquet").to_batches(columns=columns))
        seconds.append(time.perf_counter() - began)
    return {"seconds": sorted(seconds)[2], "rows": rows}


if __name__ == "__main__":
    run = {"daskglm": daskglm, "glum": glum, "scan": scan}[sys.argv[1]]
    print(json.dumps(run(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))))
