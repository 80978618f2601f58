"""Random backfills through random trouble: the small version of scripts/property."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from harness import Cluster, Server
from harness.cases import make
from harness.property import Violation, run

SEED = 2026


@pytest.fixture(scope="module")
def property_cluster(server: Server) -> Iterator[Cluster]:
    """One server for all cases: what crashes it in one is part of the next one's past."""
    with Cluster(server=server, conf={"backfill.max_workers": 6}) as cluster:
        cluster.sql("CREATE EXTENSION backfill")
        yield cluster


@pytest.mark.parametrize("number", range(14))
def test_random_backfill(property_cluster: Cluster, number: int) -> None:
    """What comes of it is what was promised; what fails can be run again with scripts/property."""
    case = make(SEED, number)
    try:
        run(property_cluster, case)
    except Violation as violation:
        pytest.fail(f"scripts/property --seed {SEED} --case {number}\n{case.shown()}\n{violation}", pytrace=False)


@pytest.mark.parametrize(
    "sabotage",
    ["UPDATE t SET n = 0 WHERE rid = 1", "UPDATE t SET n = 2 WHERE rid = 1", "UPDATE t SET n = NULL WHERE rid = 1"],
)
def test_the_model_sees_what_is_wrong(property_cluster: Cluster, sabotage: str) -> None:
    """A row left out, one done twice, one lost: without this the cases would prove nothing."""
    case = dataclasses.replace(make(SEED, 0, partitions=False), rows=100, where=None, key="int", events=(), writers=())
    case = dataclasses.replace(case, options={}, indexes=())
    run(property_cluster, case)
    with pytest.raises(Violation, match="rows not as promised"):
        run(property_cluster, case, sabotage)
