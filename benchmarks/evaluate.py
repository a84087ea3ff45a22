"""Deviance and gradient of anybody's coefficients, by NumPy alone: the judge is none of the parties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.workers import problem_columns


def judged(lake: Path, problem: str, coefficients: dict[str, float]) -> tuple[float, float]:
    """(deviance, largest entry of the gradient of the mean log-likelihood in the coefficients)."""
    floats, factors, response = problem_columns(problem)
    deviance, rows = 0.0, 0
    gradient: dict[str, float] = dict.fromkeys(coefficients, 0.0)
    for path in sorted(lake.glob("*.parquet")):
        table = pq.read_table(path)
        y = table.column(response).to_numpy().astype(float)
        x = {name: table.column(name).to_numpy() for name in floats}
        eta = np.full(len(y), coefficients["Intercept"])
        if problem == "poisson":
            eta += np.log(table.column("exposure").to_numpy())
        for name in floats:
            eta += coefficients[name] * x[name]
        levels = {}
        for factor in factors:
            codes = table.column(factor).combine_chunks()
            labels, index = codes.dictionary.to_pylist(), codes.indices.to_numpy()
            levels[factor] = labels, index
            eta += np.array([coefficients.get(f"{factor}[T.{label}]", 0.0) for label in labels])[index]
        deviance_part, score = _terms(problem, y, eta)
        deviance += deviance_part
        rows += len(y)
        gradient["Intercept"] += float(score.sum())
        for name in floats:
            gradient[name] += float(x[name] @ score)
        for factor, (labels, index) in levels.items():
            for label, total in zip(labels, np.bincount(index, score, minlength=len(labels)), strict=False):
                if f"{factor}[T.{label}]" in gradient:
                    gradient[f"{factor}[T.{label}]"] += float(total)
    return deviance, max(map(abs, gradient.values())) / rows


def _terms(problem: str, y: np.ndarray, eta: np.ndarray) -> tuple[float, np.ndarray]:
    if problem == "logistic":
        mu = 1.0 / (1.0 + np.exp(-eta))
        return float(2.0 * (np.logaddexp(0.0, eta) - y * eta).sum()), y - mu
    mu = np.exp(eta)
    if problem == "gamma":
        return float(2.0 * (y / mu - 1.0 - np.log(y / mu)).sum()), y / mu - 1.0
    safe = np.where(y > 0, y / mu, 1.0)
    return float(2.0 * (y * np.log(safe) - (y - mu)).sum()), y - mu
