from __future__ import annotations
import pytest
from daskglm.cluster.engine import Engine
from tests.cluster.problem import *

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(scope="module")
def expected(lake):
    with pytest.MonkeyPatch.context() as patch:
        from daskglm import fit as fitting
        from daskglm.cluster import lakes

        patch.setattr(lakes, "LEAF_BYTES", 1)
        patch.setattr(fitting, "PILOT_ROWS", 1_000)
        return bits(fitted(lake, Engine(1, None, 1)))


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("leaves_per_task", [1, 4, 64, None])
def test_a(client, lake, expected, keep, leaves_per_task, scratch):
    told = Told()
    r = fitted(lake, Engine(client=client, leaves_per_task=leaves_per_task), keep, told)
    assert bits(r) == expected
    assert keys_on(client) == []
    assert blocks_under(scratch) == []
    print(told.phases, told.leaves, told.rows, told.partitions.fetched_bytes)
