"""What a process loads before it needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Everything but the standard library that `import daskglm` may load.
AT_IMPORT = {"daskglm", "daskglm.interrupts", "daskglm.version"}
# What is not loaded by a fit of a table in memory.
NOT_BY_A_FIT = {
    "dask",
    "distributed",
    "fsspec",
    "s3fs",
    "scipy.stats",
    "scipy.optimize",
    "daskglm.kernels.native.sparse",
}
FIT = "daskglm.glm('y ~ x', {'x': [1.0, 2.0, 4.0], 'y': [1.0, 3.0, 2.0]}).summary()"


def loaded(code: str) -> set[str]:
    """Modules that a fresh process has after the code."""
    names = "print('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", f"import sys\nbefore = set(sys.modules)\nimport daskglm\n{code}\n{names}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def foreign(modules: set[str]) -> set[str]:
    """Those that are not of the standard library, nor of a site's own start-up."""
    at_start = loaded("sys.modules = {name: None for name in before}")
    return {name for name in modules - at_start if name.split(".")[0] not in sys.stdlib_module_names}


def test_the_package_loads_nothing_when_it_is_imported() -> None:
    assert foreign(loaded("")) <= AT_IMPORT


def test_a_fit_loads_what_it_needs() -> None:
    assert not loaded(FIT) & NOT_BY_A_FIT


@pytest.mark.parametrize("name", ["glm", "plan", "load", "Fit", "families", "errors", "Frequency"])
def test_every_public_name_can_be_the_first(name: str) -> None:
    code = f"assert daskglm.{name} is not None; from daskglm import *; assert callable(plan) and callable(glm)"
    assert "daskglm.api" in loaded(code)


@pytest.mark.parametrize("name", ["api", "cli", "comparing", "fit", "predict", "result", "several", "summary"])
def test_every_module_can_be_the_first(name: str) -> None:
    assert f"daskglm.{name}" in loaded(f"import daskglm.{name}; assert callable(daskglm.glm)")


def test_an_unknown_name_is_answered_with_the_public_ones() -> None:
    code = "try:\n    daskglm.gml\nexcept AttributeError as error:\n    assert 'glm' in str(error)\nelse:\n    raise SystemExit(1)"
    assert "daskglm.api" not in loaded(code)
