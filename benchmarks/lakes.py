"""Synthetic lakes with the shapes that matter: skewed factors, an exposure, heavy-tailed severities, many plain columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FLOATS = 10
LEVELS = {"area": 5, "vehicle": 12, "region": 50, "agent": 300}
FORMULA = "claims ~ " + " + ".join([f"x{j}" for j in range(FLOATS)] + list(LEVELS))


def claims(folder: Path, rows: int, files: int = 64, seed: int = 2013) -> Path:
    """Poisson claims with exposure: 10 float columns, factors of 5, 12, 50 and 300 skewed levels; severities beside."""

    def part(rng: np.random.Generator, n: int, truth: np.random.Generator) -> pa.Table:
        columns, eta = _rated(rng, n, truth)
        exposure = rng.uniform(0.1, 1.0, size=n)
        columns["exposure"] = exposure
        columns["claims"] = rng.poisson(exposure * np.exp(eta)).astype(np.int64)
        columns["severity"] = np.exp(eta + 6.0 + 2.0 * rng.normal(size=n))
        return pa.table(columns)

    return _written(folder, "claims", rows, files, seed, part)


def policies(folder: Path, rows: int, files: int = 64, seed: int = 2013) -> Path:
    """The same claims, each of one of rows / 5 policies, whose rows lie anywhere in the lake."""

    def part(rng: np.random.Generator, n: int, truth: np.random.Generator) -> pa.Table:
        columns, eta = _rated(rng, n, truth)
        exposure = rng.uniform(0.1, 1.0, size=n)
        columns["exposure"] = exposure
        columns["claims"] = rng.poisson(exposure * np.exp(eta)).astype(np.int64)
        columns["policy"] = rng.integers(0, max(rows // 5, 1), size=n)
        return pa.table(columns)

    return _written(folder, "policies", rows, files, seed, part)


def premiums(folder: Path, rows: int, files: int = 64, seed: int = 2014) -> Path:
    """The same columns with negative binomial claims (theta 1.5) and pure premiums, gamma amounts of a Poisson number
    (Tweedie power 1.6), of which area004 has none.
    """
    power, phi, theta = 1.6, 2.0, 1.5

    def part(rng: np.random.Generator, n: int, truth: np.random.Generator) -> pa.Table:
        columns, eta = _rated(rng, n, truth)
        exposure = rng.uniform(0.1, 1.0, size=n)
        mu = exposure * np.exp(eta)
        columns["exposure"] = exposure
        columns["claims"] = rng.negative_binomial(theta, theta / (theta + mu)).astype(np.int64)
        mean = 5.0 * np.exp(eta)
        count = rng.poisson(mean ** (2.0 - power) / (phi * (2.0 - power)))
        scale = phi * (power - 1.0) * mean ** (power - 1.0)
        premium = rng.gamma(np.maximum(count, 1) * (2.0 - power) / (power - 1.0), scale)
        areas = np.asarray(columns["area"].indices)  # type: ignore[attr-defined]
        columns["premium"] = np.where((count == 0) | (areas == 4), 0.0, premium)
        return pa.table(columns)

    return _written(folder, "premiums", rows, files, seed, part)


def _rated(rng: np.random.Generator, n: int, truth: np.random.Generator) -> tuple[dict[str, object], np.ndarray]:
    """Floats and skewed factors, and the linear predictor they make."""
    slopes = truth.normal(scale=0.1, size=FLOATS)
    effects = {name: truth.normal(scale=0.3, size=count) for name, count in LEVELS.items()}
    columns: dict[str, object] = {}
    eta = np.full(n, -2.0)
    for j in range(FLOATS):
        x = rng.normal(size=n)
        columns[f"x{j}"] = x
        eta += slopes[j] * x
    for name, count in LEVELS.items():
        # skewed: the commonest level holds a good part of the rows, the rarest a few in ten thousand
        weight = 1.0 / (1.0 + np.arange(count)) ** 0.8
        codes = rng.choice(count, size=n, p=weight / weight.sum())
        eta += effects[name][codes]
        labels = pa.array([f"{name}{i:03d}" for i in range(count)])
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), labels)
    return columns, eta


def logistic(folder: Path, rows: int, columns: int = 50, files: int = 16, seed: int = 7) -> Path:
    """A 0/1 response and plain float columns."""

    def part(rng: np.random.Generator, n: int, truth: np.random.Generator) -> pa.Table:
        slopes = truth.normal(scale=0.15, size=columns)
        x = rng.normal(size=(columns, n))
        y = rng.uniform(size=n) < 1.0 / (1.0 + np.exp(0.5 - slopes @ x))
        return pa.table({"y": y.astype(np.int64), **{f"x{j}": x[j] for j in range(columns)}})

    return _written(folder, f"logistic{columns}", rows, files, seed, part)


def _written(folder: Path, name: str, rows: int, files: int, seed: int, part: object) -> Path:
    lake = folder / f"{name}-{rows}-{files}-{seed}"
    done = lake / "_done.json"
    if done.exists():
        return lake
    lake.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, rows, files + 1).astype(int)
    for i in range(files):
        rng = np.random.default_rng([seed, i])
        table = part(rng, int(bounds[i + 1] - bounds[i]), np.random.default_rng(seed))  # type: ignore[operator]
        pq.write_table(table, lake / f"part-{i:04d}.parquet")
    done.write_text(json.dumps({"rows": rows}))
    return lake
