"""Every call that the catalog knows, by everybody, in every state of a hostile owner's job: no trap is sprung there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harness import Cluster, Server
from harness.traps.attack import CALLERS, CONF, Attack
from harness.traps.installed import grant_by_default, open_doors
from harness.traps.states import STATES

FEW = ("pending", "running", "verified")
# A function as somebody could write it one day: it plans what the owner has written, as whoever calls.
CARELESS = """
CREATE FUNCTION backfill.careless(job_id bigint) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE job record; BEGIN
    SELECT * INTO job FROM backfill.progress p WHERE p.job_id = careless.job_id;
    EXECUTE format('EXPLAIN SELECT FROM %s WHERE %s', job.relation, job.where_clause);
    RETURN 1;
END $$
"""


@pytest.fixture(scope="module")
def attack(server: Server) -> Iterator[Attack]:
    """A server with the owner's traps; the counts are printed at the end."""
    with Cluster(server=server, conf=CONF) as cluster:
        made = Attack(cluster)
        yield made
        print(f"\nPostgreSQL {server.major}: {made.summary()}")


def assert_nothing(attack: Attack) -> None:
    """What was found is said once: not by the next test again."""
    found, count = attack.report(), len(attack.findings)
    attack.findings.clear()
    assert count == 0, f"{attack.summary()}\n{found}"


def test_what_is_installed(attack: Attack) -> None:
    """A superuser whose default privileges give all to somebody has installed the extension: nobody got anything."""
    server = attack.cluster
    server.sql("CREATE DATABASE bare")
    bare = server.database("bare")
    grant_by_default(bare, "outsider")
    bare.sql("CREATE EXTENSION backfill")
    found = open_doors(bare)
    server.sql("DROP DATABASE bare WITH (FORCE)")
    assert found == []


def test_a_careless_function_is_found(attack: Attack) -> None:
    """What is new in the schema is attacked without anybody's doing, and what it gives away is seen."""
    attack.cluster.sql(CARELESS)
    attack.renew()
    attack.run("domains", ["pending"], ["postgres"])
    found = {finding.what for finding in attack.findings if finding.function == "careless"}
    attack.cluster.sql("DROP FUNCTION backfill.careless(bigint)")
    attack.renew()
    assert "an IMMUTABLE function ran in the caller's session, as postgres" in found, found
    assert "a deferred trigger ran in the caller's session, as postgres" in found
    assert any(what.startswith("seized: ALTER ROLE") for what in found) and len(found) > 20
    attack.findings.clear()
    attack.counts.clear()
    attack.seen["function"].discard("careless")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("state", STATES)
def test_in_every_state(attack: Attack, state: str) -> None:
    """Each function, procedure and view, by a superuser and by a member of the owner."""
    attack.run("domains", [state], ["postgres", "ally"])
    assert_nothing(attack)


@pytest.mark.timeout(300)
def test_by_everybody(attack: Attack) -> None:
    """The same by those who may only look, and by those who may not even do that."""
    attack.run("domains", FEW, [user for user in CALLERS if user not in ("postgres", "ally")])
    assert_nothing(attack)


@pytest.mark.timeout(300)
def test_every_option(attack: Attack) -> None:
    """Each option that the extension says it knows, with what it takes for it."""
    attack.run("domains", ["pending"], ["postgres"], every_option=True)
    assert_nothing(attack)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["arrays of domains", "partitions"])
def test_other_tables(attack: Attack, kind: str) -> None:
    """Keys whose input function calls code, and expressions that decide about partitions."""
    attack.run(kind, FEW, ["postgres"])
    assert_nothing(attack)


@pytest.mark.timeout(300)
def test_the_owner_of_the_table(attack: Attack) -> None:
    """Whose table it is may see the job of another on it, and stop it: still nothing of that job runs with them."""
    attack.run("a lodger", FEW, ["proprietor"])
    assert_nothing(attack)


def test_nothing_is_left_out(attack: Attack) -> None:
    """All that the catalog has was called, and each trap was sprung somewhere: the owner's worker."""
    if not attack.seen["state"]:
        pytest.skip("another process has made the calls")
    names = {routine.name for routine in attack.calls.routines} | set(attack.calls.views)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Several processes have their share of the states, and of the roles.
        assert attack.seen["function"] <= names and attack.seen["role"] <= set(CALLERS)
    else:
        assert attack.seen["function"] == names
        assert attack.seen["role"] == set(CALLERS)
        assert attack.seen["state"] == set(STATES)
        assert len(attack.seen["trap"]) > 25, sorted(attack.seen["trap"])
