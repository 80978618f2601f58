"""All calls, by everybody, on jobs in all states; and a look after each at what it has come to."""

from __future__ import annotations

import collections
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from harness.cluster import Cluster
from harness.traps import look
from harness.traps.calls import Call, Calls
from harness.traps.objects import FUNCTIONS
from harness.traps.spring import CLEAN, OWNER, Watch, arm, lay
from harness.traps.states import Job

CONF = {
    "backfill.allow_superuser_jobs": "off",
    "backfill.max_workers": "30",
    "max_worker_processes": "50",
    "autovacuum": "off",
    # Of what the traps say, the first line is enough.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
CALLERS = ("postgres", "ally", "overseer", "outsider", "proprietor")
NEUTRAL = """
GRANT CREATE ON SCHEMA trap TO proprietor; CREATE SCHEMA neutral; CREATE TABLE neutral.t (id int PRIMARY KEY, n int);
INSERT INTO neutral.t SELECT g, 0 FROM generate_series(1, 12) g; ANALYZE neutral.t;
CREATE TABLE neutral.gone (LIKE neutral.t); GRANT ALL ON SCHEMA neutral TO ally, proprietor, outsider;
GRANT ALL ON neutral.t, neutral.gone TO ally, proprietor, outsider
"""


@dataclass(frozen=True)
class Finding:
    """What a call has done that it must not do."""

    function: str
    role: str
    state: str
    what: str

    def __str__(self) -> str:
        return f"{self.function} by {self.role}, {self.state}: {self.what}"


class Session:
    """A caller's session, and how it was before the call."""

    def __init__(self, cluster: Cluster, user: str) -> None:
        self.user = user
        self.connection = cluster.connect(user, prepare_threshold=None)
        self.pid = self.connection.info.backend_pid
        self.connection.execute("SET statement_timeout = '10s'")
        self.connection.execute("PREPARE driver AS SELECT version()")
        # Libraries make their settings known when they are loaded.
        self.connection.execute("DO $$ BEGIN NULL; END $$; SELECT count(*) FROM backfill.progress")
        self.look = look.Look(self.connection, look.SESSION)

    def run(self, call: Call) -> str | None:
        """The call and its COMMIT; gives the SQLSTATE of the error that it ended with."""
        try:
            if call.block:
                self.connection.execute("BEGIN")
            self.connection.execute(call.statement)
            if call.block:
                self.connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            if self.connection.broken:
                return "lost"
            self.connection.execute("ROLLBACK")
            return error.sqlstate
        except psycopg.Error as error:
            self.connection.execute("ROLLBACK")
            return error.sqlstate
        return None

    def left(self) -> list[str]:
        """What is there that was not, and what the application's next statements meet."""
        if self.connection.broken:
            return ["the connection is lost"]
        found = self.look.differences()
        try:
            answer = self.connection.execute("EXECUTE driver").fetchone()
            if not answer or not answer[0].startswith("PostgreSQL"):
                found.append("the driver's prepared statement is another one")
        except psycopg.Error as error:
            found.append(f"the driver's prepared statement: {error}")
        try:
            self.connection.execute("SELECT pg_catalog.currval('trap.number')")
            found.append("the sequence's value is this session's")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            pass
        return found


class Attack:
    """A server with the owner's tables, and all who call."""

    def __init__(self, cluster: Cluster, *, seed: int = 1) -> None:
        self.cluster, self.random = cluster, random.Random(seed)
        cluster.sql("CREATE EXTENSION IF NOT EXISTS backfill")
        lay(cluster)
        cluster.sql(f"SET ROLE {OWNER}; {FUNCTIONS}")
        arm(cluster)
        cluster.sql(NEUTRAL)
        self.calls = Calls(cluster)
        self.superuser = cluster.connect()
        self.findings: dict[Finding, str] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.seen: dict[str, set[str]] = collections.defaultdict(set)
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._sessions: dict[str, Session] = {}
        self._world = look.Look(self.superuser, look.WORLD)
        self._watch = Watch(cluster)

    def renew(self) -> None:
        """Looks into the catalog again, after it was changed on purpose."""
        self.calls = Calls(self.cluster)
        self._world.again()

    def run(self, kind: str, states: Sequence[str], callers: Sequence[str], *, every_option: bool = False) -> None:
        """All calls by these callers on a job of each of these states."""
        for state in states:
            job = Job(self.cluster, self.superuser, kind, state)
            for user in callers:
                for number in range(len(self.calls.about(job, every_option=every_option))):
                    job.ready()
                    # Its number may be another one now.
                    call = self.calls.about(job, every_option=every_option)[number]
                    if call.caller in (None, user):
                        self._one(job, user, call)

    def summary(self) -> str:
        """The counts, in a line."""
        functions = f"{len(self.seen['function'])} functions, procedures and views"
        where = f"{len(self.seen['role'])} roles x {len(self.seen['state'])} states of jobs"
        places = f"{len(self.seen['trap'])} traps, {self.counts['sprung']} times sprung in workers"
        answered = f"{self.outcomes['']} answered"
        return (
            f"{self.counts['calls']} calls ({answered}): {functions} x {where} on {len(self.seen['kind'])} kinds of"
            f" tables; {places}; {self.counts['findings']} findings"
        )

    def report(self, most: int = 60) -> str:
        """What was found: function, role, state, and all that this call did; with the statement that showed it."""
        grouped: dict[str, list[str]] = collections.defaultdict(list)
        for finding, statement in self.findings.items():
            head = f"{finding.function} by {finding.role}, {finding.state}"
            grouped[head] = [*(grouped[head] or [statement]), finding.what]
        lines = [f"{head}\n    {found[0]}\n    - " + "\n    - ".join(found[1:]) for head, found in grouped.items()]
        return "\n".join([*lines[:most], *([f"... {len(lines)} calls in all"] if len(lines) > most else [])])

    def _one(self, job: Job, user: str, call: Call) -> None:
        session = self._sessions.get(user)
        if session is None or session.connection.closed:
            session = self._sessions[user] = Session(self.cluster, user)
        outcome = session.run(call)
        self.outcomes[outcome or ""] += 1
        self.counts["calls"] += 1
        for what, name in (("function", call.about), ("role", user), ("state", job.state), ("kind", job.place)):
            self.seen[what].add(name)
        found = session.left()
        sprung = self._after(call.about, user, job, found, call.statement, session)
        if found or sprung:
            # The next caller has a session of its own.
            self._sessions.pop(user).connection.close()

    def _after(
        self, function: str, user: str, job: Job, found: list[str], statement: str = "", session: Session | None = None
    ) -> bool:
        sprung, seized = self._watch.look()
        here = False
        for trap in sprung:
            if session and trap.pid == session.pid:
                here = True
                found.append(f"{trap.place} ran in the caller's session, as {trap.user}")
            elif trap.user != OWNER:
                found.append(f"{trap.place} ran as {trap.user} of {trap.session}")
            else:
                self.counts["sprung"] += 1
                self.seen["trap"].add(trap.place)
        found += [f"seized: {what}" for what in seized]
        if gained := self._world.differences():
            found += [f"gained: {what}" for what in gained]
            with contextlib.suppress(psycopg.Error):
                self.superuser.execute(CLEAN)
            self._world.again()
        for what in found:
            state = f"{job.state} job on {job.place}"
            finding = Finding(function, user, state, what)
            if finding not in self.findings:
                self.counts["findings"] += 1
                self.findings[finding] = statement
        return here
