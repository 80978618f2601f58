"""Each row exactly once, whatever dies: the small version of scripts/storm."""

from __future__ import annotations

import pytest
from harness import Server
from harness.storm import KINDS, Storm


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
def test_each_row_once_through_kills_and_a_restart(server: Server, kind: str) -> None:
    """Clients write the same table all the while; four workers of a job are killed, and the server is restarted.

    Three times: at once, again, and while it still recovers from a kill.
    """
    storm = Storm(kind=kind, seed=15, restarts=3)
    if storm.keeps:
        # Else it would be over before the last blow.
        storm.batch_size = 10
    storm.run(server)
    assert storm.once, (storm.counts, storm.wrong)
    # What the clients have deleted is gone, and nothing else.
    deleted, inserted = storm.client_rows
    assert sum(count for _, _, count in storm.counts) == storm.rows - deleted + inserted
    # The first workers, and at least one after each blow.
    assert storm.workers_started >= storm.kills + storm.restarts + 1
    assert storm.load_starts >= storm.kills + storm.restarts + 1
    assert deleted > 10 and inserted > 10, storm.messages
    # The clients' own work is whole, too.
    assert storm.sums[0] == storm.sums[1]
