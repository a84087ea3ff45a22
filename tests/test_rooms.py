"""Who may import whom, held on the syntax tree: a room needs a lock, not an intention."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "daskglm"
FRONTS = {"api", "estimators", "jobs", "cli", "examples", "progress", "families", "links", "__main__", "__init__"}
BELOW_FIT = {
    "errors",
    "partitions",
    "model",
    "kernels",
    "design",
    "totals",
    "cluster",
    "solvers",
    "inference",
    "plan",
    "record",
    "version",
}
ALLOWED: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "interrupts": set(),
    "partitions": {"errors"},
    "model": {"errors"},
    "kernels": {"errors"},
    "design": {"errors", "kernels"},
    "totals": {"errors", "model", "kernels", "design"},
    "cluster": {"errors", "partitions"},
    "solvers": {"errors", "model", "kernels", "totals", "partitions"},
    "inference": {"errors", "model", "kernels", "totals", "partitions", "solvers"},
    "plan": {"errors", "model", "design", "solvers", "inference"},
    "record": {"errors", "model", "kernels", "design", "solvers"},
    "checkpoint": BELOW_FIT | {"together"},
    "separation": BELOW_FIT,
    "choices": BELOW_FIT | {"separation"},
    "certificate": BELOW_FIT | {"separation"},
    "conclude": BELOW_FIT | {"separation", "choices", "certificate"},
    "together": {"partitions"},
    "estimation": BELOW_FIT | {"separation", "choices", "certificate", "conclude"},
    "several": {"errors", "persist", "result", "summary", "cluster"},
    "sizing": {"errors", "design", "totals"},
    "fit": BELOW_FIT | {"checkpoint", "sizing", "separation", "choices", "conclude", "estimation", "together"},
    "predict": BELOW_FIT,
    "scoring": BELOW_FIT | {"predict"},
    "postestimation": BELOW_FIT | {"conclude", "estimation", "fit", "together", "writing"},
    "comparing": {"errors", "record", "postestimation", "result"},
    "persist": BELOW_FIT,
    "writing": {"errors", "cluster"},
    "summary": {"record", "inference", "errors"},
    "result": BELOW_FIT
    | {"checkpoint", "separation", "choices", "conclude", "fit", "predict", "persist", "summary", "scoring"}
    | {"postestimation"},
}
# Statistics is tested without Dask, and Dask code without statistics.
DASK = {"dask", "distributed"}
CLUSTER_WORLD = {"dask", "distributed", "pyarrow", "pandas", "numpy", "fsspec", "threadpoolctl"}


def room(path: Path) -> str:
    """The first folder or the file itself."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            module = node.module or ""
            if module == "daskglm":
                yield from (f"daskglm.{alias.name}" for alias in node.names)
            else:
                yield module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    here = room(path)
    inner = {name.split(".")[1] for name in imports(path) if name.startswith("daskglm.")} - {here}
    if here in FRONTS:
        return
    assert here in ALLOWED, f"{here} is in no row of the table of rooms"
    assert inner <= ALLOWED[here] | {"version"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dask_is_spoken_in_one_room(path: Path) -> None:
    outer = {name.split(".")[0] for name in imports(path)}
    assert room(path) == "cluster" or not outer & DASK


@pytest.mark.parametrize("path", sorted((PACKAGE / "cluster").glob("*.py")), ids=lambda path: path.name)
def test_the_cluster_room_knows_no_statistics(path: Path) -> None:
    import sys

    outer = {name.split(".")[0] for name in imports(path)} - {"daskglm"}
    assert outer - set(sys.stdlib_module_names) <= CLUSTER_WORLD


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_what_it_reads(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
