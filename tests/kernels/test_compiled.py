"""Where compiled kernels are cached, and what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daskglm.kernels.native import compiled

# The file alone: to import the package would be to compile all of its kernels.
ONE_KERNEL = """
import runpy, sys
kernel = runpy.run_path(sys.argv[1])["kernel"]
@kernel("float64(float64)")
def twice(x):
    return 2.0 * x
assert twice(3.0) == 6.0
print(sum(twice.compiled.stats.cache_hits.values()), sum(twice.compiled.stats.cache_misses.values()))
"""
VARIABLES = ("DASKGLM_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")


@compiled.kernel("float64(float64[::1])")
def _left_to_right(x):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(x.size):
        total += x[i]
    return total


def test_sums_are_not_reordered() -> None:
    """1e16 + 1 - 1e16 is 0 from left to right, and 1 in an order a vectoriser would like better."""
    x = np.tile([1e16, 1.0, -1e16, 0.0], 64)
    truth = 0.0
    for value in x.tolist():
        truth += value
    assert _left_to_right(x) == truth == 0.0


def test_division_by_zero_follows_ieee() -> None:
    @compiled.kernel("float64(float64, float64)")
    def ratio(a, b):  # type: ignore[no-untyped-def]
        return a / b

    assert ratio(1.0, 0.0) == np.inf
    assert np.isnan(ratio(0.0, 0.0))


def test_one_signature_alone_is_compiled() -> None:
    """Another type must not set a compiler off in the middle of a pass."""
    with pytest.raises(TypeError, match="No matching definition"):
        _left_to_right(np.zeros(3, np.float32))


@pytest.mark.parametrize("first", range(len(VARIABLES)))
def test_the_first_variable_that_is_set_says_where(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES[:first]:
        monkeypatch.delenv(name, raising=False)
    for name in VARIABLES[first:]:
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = compiled._cache_directory()
    assert folder is not None
    assert Path(folder).parent == tmp_path / VARIABLES[first] / "daskglm"
    assert Path(folder).is_dir()


def test_the_home_directory_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = compiled._cache_directory()
    assert folder is not None
    assert Path(folder).parent == tmp_path / ".cache" / "daskglm"


def test_nowhere_to_write_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DASKGLM_CACHE_DIR", str(tmp_path / "file"))
    assert compiled._cache_directory() is None


def test_a_changed_source_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "kernels"
    (room / "native").mkdir(parents=True)
    monkeypatch.setenv("DASKGLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "__file__", str(room / "native" / "compiled.py"))
    found = []
    for text in ("one", "two", "one"):
        (room / "lanes.py").write_text(text)
        found.append(compiled._cache_directory())
    assert found[0] == found[2] != found[1]


def powerless() -> list[str]:
    """A command in front of another that makes permissions hold for root too."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root writes everywhere, and there is no setpriv to take that away")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def test_a_cache_that_cannot_be_written_to_is_read(tmp_path: Path) -> None:
    """As in an image with its kernels in it and its root mounted read-only: no write, no compilation, no failure."""
    script, cache = tmp_path / "one_kernel.py", tmp_path / "cache"
    script.write_text(ONE_KERNEL)

    def hits_and_misses(*prefix: str) -> str:
        command = [*prefix, sys.executable, str(script), compiled.__file__]
        environment = {**os.environ, "DASKGLM_CACHE_DIR": str(cache)}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    prefix = powerless()
    assert hits_and_misses() == "0 1"
    entries = {path: path.stat() for path in cache.rglob("*") if path.is_file()}
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    assert entries
    try:
        for path in (*entries, *folders):
            path.chmod(0o555)
        # the layers of an image keep what a source says and not always when it was written
        os.utime(script, (0, 0))
        assert hits_and_misses(*prefix) == "1 0"
        script.write_text(ONE_KERNEL.replace("2.0 * x", "x + x"))
        assert hits_and_misses(*prefix) == "0 1"
        assert {path for path in cache.rglob("*") if path.is_file()} == set(entries)
        assert all(path.stat().st_mtime_ns == stat.st_mtime_ns for path, stat in entries.items())
        # one that cannot even be read is in nobody's way
        script.write_text(ONE_KERNEL)
        for path in entries:
            path.chmod(0)
        assert hits_and_misses(*prefix) == "0 1"
    finally:
        for path in (*entries, *folders):
            path.chmod(0o755)
