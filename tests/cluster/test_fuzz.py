"""Bad arguments for every function, and random clauses: the small version of scripts/fuzz."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, Server, fuzz_runs, fuzz_sessions
from harness.fuzz import Violation, Watch, judge
from harness.fuzz_calls import Script
from harness.fuzz_clauses import Clauses
from harness.fuzzer import Fuzz

SEED = 2026


@pytest.fixture(scope="module")
def fuzz(server: Server) -> Iterator[Fuzz]:
    """Its servers are there from the first case of a kind on."""
    made = Fuzz(server, SEED)
    yield made
    made.stop()


@pytest.mark.parametrize(("kind", "cases"), [("calls", 100), ("clauses", 80), ("crowd", 1)])
def test_whatever_it_is_given(fuzz: Fuzz, kind: str, cases: int) -> None:
    """No crash, no internal error, nothing left behind; what fails can be run again with scripts/fuzz."""
    for number in range(cases):
        try:
            getattr(fuzz, kind)(number)
        except Violation as violation:
            pytest.fail(f"scripts/fuzz --seed {SEED} --kind {kind} --case {number}\n{violation}", pytrace=False)


def test_internal_errors_and_panics_are_seen(db: Database) -> None:
    """Without this and the next two, the cases would prove nothing."""
    watch = Watch(db.cluster)
    with pytest.raises(psycopg.Error) as raised:
        db.sql("DO $$ BEGIN RAISE 'oops' USING ERRCODE = 'XX000'; END $$")
    with pytest.raises(Violation, match="internal error"):
        judge(raised.value, "DO")
    with db.cluster.log.open("a") as log:
        log.write("thread x panicked at y\n")
    with pytest.raises(Violation, match="in the server's log"):
        watch.look()
    watch.look()


def test_what_a_failed_call_leaves_is_seen(fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is there because of a commit between the call and the error."""
    script = Script("postgres", (), ("SELECT backfill.define('u', 'n = 1')",), ("SELECT 1 / 0",), True, False)
    monkeypatch.setattr(fuzz_sessions, "make", lambda *_: script)
    with pytest.raises(Violation, match="left something behind"):
        fuzz.calls(1)


@pytest.mark.parametrize(
    ("sabotage", "seen"),
    [("NEW.t := 'wrong'; RETURN NEW", "rows of the job"), ("RETURN 1 / 0", "one UPDATE has come to")],
)
def test_another_result_than_that_of_one_update_is_seen(
    fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch, sabotage: str, seen: str
) -> None:
    """Here it is the one UPDATE that goes wrong."""
    monkeypatch.setattr(fuzz_runs, "VARIANTS", ("plain",))
    monkeypatch.setattr(fuzz_runs, "make", lambda *_: Clauses("i = 1", None))
    fuzz.clauses(0)
    db = fuzz.clauses_database()
    db.sql(f"CREATE FUNCTION one.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {sabotage}; END $$")
    db.sql("CREATE TRIGGER s BEFORE UPDATE ON one.rows_plain FOR EACH ROW EXECUTE FUNCTION one.sabotage()")
    try:
        with pytest.raises(Violation, match=seen):
            fuzz.clauses(0)
    finally:
        db.sql("DROP FUNCTION one.sabotage CASCADE")
