"""The fault campaign: whatever breaks, what was produced is landed or dead-lettered, each message once.

make test-faults ROUNDS=200 SEED=1     so many rounds, from this seed on
make test-faults ROUNDS=1 SEED=42      that one round again
"""

from collections.abc import Iterator

import pytest

from ml_assets_tests.faults.disk import NoDiskError
from ml_assets_tests.faults.processes import landers
from ml_assets_tests.faults.proxy import FaultProxy
from ml_assets_tests.faults.rounds import Round, World, kind_of

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def world(kafka, s3) -> Iterator[World]:
    with FaultProxy(s3).running() as proxy, landers() as starter:
        yield World(kafka, s3, proxy, starter)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first, rounds = (metafunc.config.getoption(name) for name in ("--seed", "--rounds"))
    if "seed" in metafunc.fixturenames:
        seeds = range(first, first + rounds)
        metafunc.parametrize("seed", seeds, ids=[f"{kind_of(seed)}-{seed}" for seed in seeds])


def test_nothing_is_lost_and_nothing_doubled(world, seed, tmp_path):
    try:
        Round(world, seed, tmp_path, kind_of(seed)).run()
    except NoDiskError as lacking:
        pytest.skip(str(lacking))
    except Exception as failure:
        failure.add_note(f"this round again: make test-faults ROUNDS=1 SEED={seed}")
        raise
