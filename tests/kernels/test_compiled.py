"""Where compiled kernels are cached, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daskglm.kernels import compiled

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
    room.mkdir()
    monkeypatch.setenv("DASKGLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "__file__", str(room / "compiled.py"))
    found = []
    for text in ("one", "two", "one"):
        (room / "lanes.py").write_text(text)
        found.append(compiled._cache_directory())
    assert found[0] == found[2] != found[1]
