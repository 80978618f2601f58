"""Every call that the catalog knows, by everybody, in every state of a hostile owner's job: no trap is sprung there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Cluster, Server
from harness.traps.attack import CALLERS, CONF, Attack
from harness.traps.states import STATES

FEW = ("pending", "running", "verified")


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
@pytest.mark.parametrize("state", ["pending", "running"])
def test_every_option(attack: Attack, state: str) -> None:
    """Each option that the extension says it knows, with what it takes for it."""
    attack.run("domains", [state], ["postgres"], every_option=True)
    assert_nothing(attack)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["arrays of domains", "partitions"])
def test_other_tables(attack: Attack, kind: str) -> None:
    """Keys whose input function calls code, and expressions that decide about partitions."""
    attack.run(kind, FEW, ["postgres", "ally"])
    assert_nothing(attack)


@pytest.mark.timeout(300)
def test_the_owner_of_the_table(attack: Attack) -> None:
    """Whose table it is may see the job of another on it, and stop it: still nothing of that job runs with them."""
    attack.run("a lodger", FEW, ["postgres", "proprietor"])
    assert_nothing(attack)


def test_nothing_is_left_out(attack: Attack) -> None:
    """All that the catalog has was called, and each trap was sprung somewhere: the owner's worker."""
    names = {routine.name for routine in attack.calls.routines} | set(attack.calls.views)
    assert attack.seen["function"] == names
    assert attack.seen["state"] == set(STATES) and attack.seen["role"] == set(CALLERS)
    assert len(attack.seen["trap"]) > 25, sorted(attack.seen["trap"])
