"""What backfill.plan foretells of WAL and growth is what the run takes, or it says that it does not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from harness import Cluster
from harness.estimates import BOUND, CASES, CONF, FEW_PAGES, compare

# These it must know; of the others it may say that it does not.
KNOWN = {name for name in CASES if not name.startswith(("hash", "GiST", "GIN", "a trigger", "a sequence"))}

# Rows where scripts/estimates has 150,000.
FEWER = "60000"


@pytest.mark.parametrize("name", CASES)
def test_the_plan_and_the_run(new_cluster: Callable[..., Cluster], name: str) -> None:
    """Within 30 per cent."""
    cluster = new_cluster(conf=CONF)
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    figures, numbers = compare(db, dataclasses.replace(CASES[name], make=CASES[name].make.replace("150000", FEWER)))
    for figure in ("wal_bytes", "heap_growth_bytes", "index_growth_bytes"):
        assert figures[figure].is_right(BOUND, FEW_PAGES), (figure, figures, numbers)
        if name in KNOWN:
            assert figures[figure].plan is not None, numbers["unknown"]
