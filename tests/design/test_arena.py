"""Room that is handed out once, aligned, to however many threads ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from daskglm.design import columns
from daskglm.design.columns import Arena


def test_no_byte_is_handed_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ARENA_BYTES", 4096)
    arena = Arena()
    sizes = [1, 64, 65, 4096, 5000, 0, 777] * 20
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(arena.take, sizes))
    assert [place.size for place in places] == [-(-size // 64) * 64 for size in sizes]
    assert all(place.ctypes.data % 64 == 0 for place in places if place.size)
    for number, place in enumerate(places):
        place[:] = number % 251
    for number, place in enumerate(places):
        np.testing.assert_array_equal(place, number % 251)
