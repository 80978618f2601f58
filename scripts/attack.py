"""Calls everything in the schema backfill on the jobs of a hostile owner, whose every object is a trap.

Functions, procedures, views and options come from the catalog and from the extension. The callers are a superuser, a
member of the owner, a member of pg_monitor, a stranger, and the owner of the table. A look after each call shows what
was gained (roles, rights, settings of the server) and what is left in the caller's session (prepared statements,
cursors, temporary objects, settings, locks). The owner's code must never run in a session of somebody else's.

test_attack_everything.py runs a part of this. Here each kind of table, state, caller and option meets each other.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))


def main() -> int:
    """All of them, or those that were asked for; 0 if nothing was found."""
    from harness import Cluster, Server, process
    from harness.traps.attack import CALLERS, CONF, Attack
    from harness.traps.objects import KINDS
    from harness.traps.states import STATES

    parser = argparse.ArgumentParser(
        prog="scripts/attack [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-t", "--table", choices=list(KINDS), action="append", help="only these kinds of tables")
    parser.add_argument("-s", "--state", choices=STATES, action="append", help="only jobs in these states")
    parser.add_argument("-r", "--role", choices=CALLERS, action="append", help="only these callers")
    parser.add_argument("-q", "--quick", action="store_true", help="without each option by itself")
    parser.add_argument("-x", "--stop", action="store_true", help="stop after the first state with a finding")
    args = parser.parse_args()
    process.exit_on_sigterm()
    server = Server()
    server.hold()
    with Cluster(server=server, conf=CONF) as cluster:
        attack = Attack(cluster)
        for kind in args.table or KINDS:
            for state in args.state or STATES:
                attack.run(kind, [state], args.role or CALLERS, every_option=not args.quick)
                print(f"{kind}, {state}: {attack.counts['calls']:,} calls so far", flush=True)
                if args.stop and attack.findings:
                    break
        print(attack.report(1000))
        print(f"PostgreSQL {server.major}: {attack.summary()}")
        return 1 if attack.findings else 0


if __name__ == "__main__":
    sys.exit(main())
