"""Each row exactly once, whatever dies: the small version of scripts/storm."""

from __future__ import annotations

import pytest
from harness import Server
from harness.storm import Storm


@pytest.mark.timeout(240)
def test_each_row_once_through_kills_and_a_restart(server: Server) -> None:
    """Clients update the same rows all the while; three workers are killed, then the server is restarted."""
    storm = Storm(scale=2, batch_size=500, kills=3)
    storm.run(server)
    assert storm.counts == [(1, 200_000)]
    # The first worker, and one after each blow.
    assert storm.workers >= 5
    assert storm.load_starts >= 5
    # The clients' own work is whole, too.
    assert storm.transactions > 100
    assert len(set(storm.balances)) == 1, storm.balances
