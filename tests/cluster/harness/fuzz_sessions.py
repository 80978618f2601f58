"""Runs random calls, alone and in a crowd, and looks at what each leaves behind."""

from __future__ import annotations

import collections
import threading
import time
from random import Random

import psycopg
from psycopg.pq import TransactionStatus

from harness.cluster import Cluster
from harness.database import Database
from harness.fuzz import Violation, Watch, judge, short, source
from harness.fuzz_calls import WORLD, Function, Script, make
from harness.wait import wait_until

FUNCTIONS = """
SELECT p.pronamespace::regnamespace::text, p.proname, p.prokind = 'p', p.pronargdefaults,
       (SELECT coalesce(json_agg(json_build_array(coalesce(p.proargnames[a.i], 'x'), format_type(a.type, NULL))
                                  ORDER BY a.i), '[]')
        FROM unnest(p.proargtypes) WITH ORDINALITY AS a(type, i))
FROM pg_proc p WHERE p.pronamespace::regnamespace::text ~ '^backfill' ORDER BY p.proname
"""
OF_KIND = """
SELECT relname FROM pg_class
WHERE relnamespace::regnamespace::text ~ '^backfill' AND relkind = %s ORDER BY relname
"""
# A session as a call has to leave it.
SESSION = """
SELECT session_user, current_user, current_setting('search_path'), current_setting('row_security'),
    current_setting('standard_conforming_strings'), current_setting('statement_timeout'),
    current_setting('DateStyle'), current_setting('client_min_messages'),
    (SELECT count(*) FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype IN ('advisory', 'tuple') AND mode <> 'SIReadLock'),
    (SELECT count(*) FROM pg_prepared_xacts)
"""


# What makes jobs, and returns their ids.
OTHERS = ("delete", "copy", "execute")
MAKERS = ("define", "start", "verify", "reapply", *OTHERS, *(f"define_{action}" for action in OTHERS))


class Sessions:
    """A server's database `calls`; functions and views are those that its catalog has."""

    def __init__(self, cluster: Cluster, seed: int, name: str) -> None:
        self.seed = seed
        self.cluster = cluster
        self.watch = Watch(cluster)
        self.counts: collections.Counter[str] = collections.Counter()
        cluster.sql(f"CREATE DATABASE {name}")
        self.db: Database = cluster.database(name)
        self.db.sql("CREATE EXTENSION backfill")
        self.db.sql(WORLD)
        self.functions = [
            Function(schema, name, procedure, tuple(map(tuple, arguments)), defaults)
            for schema, name, procedure, defaults, arguments in self.db.sql(FUNCTIONS)
        ]
        self.views = [name for (name,) in self.db.sql(OF_KIND, ["v"])]
        self.root = self.db.connect()
        tables = [name for (name,) in self.db.sql(OF_KIND, ["r"])]
        rows = ", ".join(
            f"(SELECT md5(string_agg(r::text, ',' ORDER BY r::text)) FROM backfill_internal.{t} r)" for t in tables
        )
        self._all_rows = f"SELECT ARRAY[{rows}]"

    def jobs(self) -> list[int]:
        """The ids of all jobs."""
        return [job for (job,) in self.root.execute("SELECT id FROM backfill_internal.job ORDER BY id").fetchall()]

    def _rows(self) -> object:
        found = self.root.execute(self._all_rows).fetchone()
        assert found is not None
        return found[0]

    def run(self, number: int) -> None:
        """One session alone, where no worker runs (`backfill.enabled` is off): what failed has left nothing."""
        draw = source(self.seed, "calls", number)
        if number % 50 == 0:
            self.clear()
        script = make(draw, self.functions, self.views, self.jobs())
        before = self._rows()
        session = Session(self.db, script)
        try:
            changed = session.run()
            self.counts["calls"] += len(script.calls)
            self.counts["refused"] += session.refused
            if not changed and self._rows() != before:
                raise Violation("a call that failed, or was rolled back, has left something behind")
            self.watch.look()
        except Violation as violation:
            raise Violation(f"{violation}\n{_shown(script)}") from None
        finally:
            session.close()

    def crowd(self, number: int, sessions: int = 5, seconds: float = 4) -> None:
        """Many sessions at once, with workers: every job that there is was returned by a call that has committed."""
        crowd = Crowd(self, number, seconds)
        crowd.run(sessions)
        self.counts += crowd.counts
        left = set(self.jobs()) - crowd.returned
        if left:
            found = "SELECT j::text FROM backfill_internal.job j WHERE id = ANY (%s)"
            rows = self.root.execute(found, [[*left]]).fetchall()
            raise Violation(
                f"jobs {left} are there, but no call has returned them (seed {self.seed}, crowd {number}): {rows}"
            )
        self.clear()
        self.watch.look()

    def clear(self) -> None:
        """Ends all jobs and forgets them, as anybody could."""
        over = "state IN ('completed', 'cancelled')"

        def ended() -> bool:
            self.root.execute(f"SELECT backfill.cancel(job_id, true) FROM backfill.progress WHERE NOT {over}")
            found = self.root.execute(
                f"SELECT count(*) FROM backfill.progress WHERE NOT {over} OR workers > 0"
            ).fetchone()
            return found == (0,)

        wait_until(ended, 60, "all jobs to end")
        self.root.execute("SELECT backfill.forget(job_id) FROM backfill.progress")
        # What says that a number is used up.
        self.root.execute("DELETE FROM backfill_internal.event WHERE event LIKE 'forget%'")
        if self._rows() != [None] * len(self._rows()):  # type: ignore[arg-type]
            found = self.root.execute(self._all_rows).fetchone()
            raise Violation(f"jobs are forgotten, but their rows are not: {found}")


class Session:
    """A connection that goes through a script; what is wrong is a Violation."""

    def __init__(self, db: Database, script: Script) -> None:
        self.script = script
        self.refused = 0
        self.lost = False
        self.returned: set[int] = set()
        self.connection = psycopg.connect(db.dsn(script.user), autocommit=True, connect_timeout=10)

    def close(self) -> None:
        """Ends it."""
        self.connection.close()

    def run(self) -> bool:
        """Gives whether anything that it did may stay."""
        script = self.script
        for statement in script.before:
            self._try(statement)
        state = self.connection.info.transaction_status
        session = self._session() if state == TransactionStatus.IDLE else None
        done = False
        for call in script.calls:
            done |= self._try(call, script.extended)
        ended = [self._try(statement) for statement in script.after]
        if not self.lost and self.connection.info.transaction_status != TransactionStatus.IDLE:
            self._try("ROLLBACK")
        now = self._session() if session and not script.after and not self.lost else None
        if now and now != session:
            raise Violation(f"the session is not as it was: {session}, {now}")
        return done and script.stays and all(ended)

    def _session(self) -> object:
        try:
            return self.connection.execute(SESSION).fetchone()
        except psycopg.Error:
            # A statement_timeout of a millisecond, a stack too small.
            return None

    def _try(self, statement: str, extended: bool = False) -> bool:
        """Whether the statement works."""
        if self.lost:
            return False
        try:
            if extended:
                cursor = self.connection.execute(statement.replace("%", "%%"), [])
            else:
                cursor = self.connection.execute(statement)
            if cursor.description and any(f"backfill.{maker}(" in statement for maker in MAKERS):
                self._note(cursor)
            return True
        except (UnicodeError, psycopg.DataError) as error:
            # Not sent, or an answer that this client can't read.
            if isinstance(error, psycopg.Error) and error.sqlstate:
                judge(error, statement)
            self.refused += 1
            return False
        except psycopg.Error as error:
            self.refused += 1
            if error.sqlstate in ("25P03", "57P01"):
                return False
            if error.sqlstate == "53200" and self.connection.closed:
                # Where memory ran out in the midst of something, this session alone has ended.
                self.lost = True
                return False
            if self.connection.closed or error.sqlstate is None:
                raise Violation(f"the connection is lost: {error!r}\n{short(statement)}") from None
            judge(error, statement)
            return False

    def _note(self, cursor: psycopg.Cursor) -> None:
        for row in cursor.fetchall():
            # Under SQL_ASCII, psycopg gives texts as bytes.
            cells = [cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell) for cell in row]
            self.returned |= {int(cell) for cell in cells if cell.isdecimal()}


class Crowd:
    """Sessions side by side, and somebody who cancels their statements."""

    def __init__(self, sessions: Sessions, number: int, seconds: float) -> None:
        self.sessions = sessions
        self.number = number
        self.deadline = time.monotonic() + seconds
        self.counts: collections.Counter[str] = collections.Counter()
        self.returned: set[int] = set()
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def run(self, sessions: int) -> None:
        """Until the time is over; complains of the first failure."""
        threads = [threading.Thread(target=self._member, args=(member,), daemon=True) for member in range(sessions)]
        threads.append(threading.Thread(target=self._cancel, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            if thread.is_alive():
                self.failures.append(f"a session does not end: {self.sessions.cluster.log_tail(5)}")
        if self.failures:
            raise Violation(f"{self.failures[0]}\n(seed {self.sessions.seed}, crowd {self.number})")

    def _member(self, member: int) -> None:
        draw = source(self.sessions.seed, f"crowd {self.number}", member)
        while time.monotonic() < self.deadline and not self.failures:
            try:
                self._session(draw)
            except (Violation, psycopg.Error) as error:
                self.failures.append(repr(error) if isinstance(error, psycopg.Error) else str(error))

    def _session(self, draw: Random) -> None:
        with self._lock:
            jobs = sorted(self.returned)[-8:]
        script = make(draw, self.sessions.functions, self.sessions.views, jobs, crowd=True)
        session = Session(self.sessions.db, script)
        try:
            session.run()
        except Violation as violation:
            raise Violation(f"{violation}\n{_shown(script)}") from None
        finally:
            with self._lock:
                self.returned |= session.returned
                self.counts["calls in crowds"] += len(script.calls)
            session.close()

    def _cancel(self) -> None:
        draw = source(self.sessions.seed, f"cancel {self.number}", 0)
        mine = "pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
        with psycopg.connect(self.sessions.db.dsn(), autocommit=True) as connection:
            while time.monotonic() < self.deadline:
                time.sleep(draw.random() * 0.1)
                connection.execute(
                    f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {mine} ORDER BY random() LIMIT 1"
                )


def _shown(script: Script) -> str:
    lines = [*script.before, *script.calls, *script.after]
    how = "extended protocol" if script.extended else "simple protocol"
    return f"as {script.user}, {how}:\n" + ";\n".join(short(line, 700) for line in lines)
