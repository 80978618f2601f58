"""All three fuzzers, each with a server of its own that is there when it is needed."""

from __future__ import annotations

import collections
import subprocess

from harness.cluster import Cluster
from harness.database import Database
from harness.fuzz import CONF
from harness.fuzz_runs import ClauseRuns
from harness.fuzz_sessions import Sessions
from harness.server import Server


class Fuzz:
    """Cases of each kind by number; a Violation tells what is wrong with one."""

    def __init__(self, server: Server, seed: int, memory: int | None = None) -> None:
        self.seed = seed
        self._memory = memory
        self._server = server
        self._clusters: list[Cluster] = []
        self._calls: Sessions | None = None
        self._crowds: Sessions | None = None
        self._clauses: ClauseRuns | None = None
        self._counts: collections.Counter[str] = collections.Counter()

    def calls(self, number: int) -> None:
        """One session alone."""
        if self._calls is None:
            # No worker runs: whatever changes was changed by a call.
            self._calls = Sessions(self._cluster({"backfill.enabled": "off"}), self.seed, "calls")
        self._calls.run(number)

    def crowd(self, number: int) -> None:
        """Many sessions at once."""
        if self._crowds is None:
            self._crowds = Sessions(self._cluster({}), self.seed, "crowd")
        self._crowds.crowd(number)

    def clauses(self, number: int) -> None:
        """One job, or a refusal."""
        if self._clauses is None:
            self._clauses = ClauseRuns(self._cluster({}), self.seed)
        self._clauses.run(number)

    def clauses_database(self) -> Database:
        """Where the jobs of `clauses` run."""
        assert self._clauses is not None
        return self._clauses.db

    def counts(self) -> collections.Counter[str]:
        """What was done so far."""
        now = self._counts.copy()
        for runs in (self._calls, self._crowds, self._clauses):
            now += runs.counts if runs else collections.Counter()
        return now

    def refusals(self) -> collections.Counter[str]:
        """With which errors clauses were refused, and how often."""
        return self._clauses.refusals if self._clauses else collections.Counter()

    def stop(self) -> None:
        """Ends the servers; the next case has new ones."""
        self._counts = self.counts()
        self._calls = self._crowds = self._clauses = None
        while self._clusters:
            self._clusters.pop().destroy()

    def _cluster(self, conf: dict[str, str]) -> Cluster:
        # The compiler of expressions is not ours, and ends the process where it finds no memory.
        scarce = {"jit": "off"} if self._memory else {}
        cluster = Cluster(server=self._server, conf=CONF | conf | scarce).__enter__()
        self._clusters.append(cluster)
        if self._memory:
            # What the postmaster starts from now on inherits it.
            limit = ["prlimit", "--pid", str(cluster.pid), f"--as={self._memory}"]
            subprocess.run(limit, check=True, user=cluster.os_user, group=cluster.os_user)
        return cluster
