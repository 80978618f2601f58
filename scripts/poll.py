"""What a look at backfill.progress and backfill.dashboard costs with many jobs, and what it costs the workers.

Makes 1,000 jobs that have ended and 20 that run, of 40 slices each, and asks for the views again and again; each query
is parsed and planned anew, as for psql and for exporters. Then a job runs at full speed, in turns with and without
somebody who looks at both views each second, and what it gets done is compared. Times mean something only on a machine
that does nothing else; the time on the processor is less sensitive. Run it through scripts/poll, which builds and
installs first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/poll [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-e", "--ended", type=int, default=1000, help="jobs that have completed (default 1000)")
    parser.add_argument("-f", "--failed", type=int, default=0, help="jobs that have failed, beside them (default 0)")
    parser.add_argument("-r", "--running", type=int, default=20, help="jobs that run (default 20)")
    parser.add_argument("-s", "--slices", type=int, default=40, help="slices of each job (default 40)")
    parser.add_argument("-n", "--polls", type=int, default=200, help="of each query (default 200)")
    parser.add_argument("-p", "--pairs", type=int, default=6, help="with and without polls; 0: none (default 6)")
    parser.add_argument("--seconds", type=float, default=4, help="of each half of a pair (default 4)")
    parser.add_argument("--bound", type=float, default=5, help="milliseconds for a poll of a view (default 5)")
    return parser.parse_args()


def main() -> int:
    """One run and its figures; 0 if each view is within the bound."""
    args = arguments()
    from harness import Cluster, Server, process
    from harness.poll import POLLS, Crowd, cost, effect, pages

    process.exit_on_sigterm()
    server = Server()
    server.hold()
    crowd = Crowd(ended=args.ended, failed=args.failed, running=args.running, slices=args.slices)
    print(
        f"PostgreSQL {server.major}: {args.ended} jobs completed, {args.failed} failed, {args.running} running,"
        f" {args.slices} slices each",
        flush=True,
    )
    slow = False
    with Cluster(server=server, conf=crowd.conf()) as cluster:
        crowd.build(cluster)
        connection = cluster.connect()
        print(f"{'':<20} {'rows':>6} {'median':>9} {'p95':>9} {'processor':>10} {'pages':>7}")
        for name, query in POLLS.items():
            seen = cost(connection, query, args.polls)
            slow |= seen.median_ms > args.bound
            print(
                f"{name:<20} {seen.rows:>6} {seen.median_ms:>6.2f} ms {seen.p95_ms:>6.2f} ms {seen.cpu_ms:>7.2f} ms"
                f" {pages(cluster, query):>7}",
                flush=True,
            )
        print(f"{crowd.at_work(cluster)} jobs still run")
        if args.pairs:
            # Beside 20 workers the one that is measured would get what they leave it.
            cluster.sql("SELECT backfill.pause_all()")
            shares = effect(cluster, args.pairs, args.seconds)
            print(
                f"a job at full speed, both views polled each second: {statistics.median(shares):.3f} of its rate"
                f" without (median of {len(shares)} pairs; {min(shares):.3f} to {max(shares):.3f})"
            )
    print(f"{'result':<20} {'too slow' if slow else 'within the bound'} ({args.bound:g} ms)")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
