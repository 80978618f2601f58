"""What grows or is left behind in a long run. Two kinds:

  batches   runs 100,000 small batches while an old snapshot is held elsewhere, and compares the first with the last
  jobs      runs four jobs at a time for an hour while clients write their tables; they are paused, altered, cancelled,
            terminated and killed at random; each that ends is verified, and another one starts

In batches, the question is what grows with the length of a run: the cost of a batch, the pages that a poll of
backfill.progress reads, and the worker's memory. In jobs it is memory, locks, snapshots, worker slots, files, and the
extension's own tables. Not part of CI, which has short versions (tests/cluster/test_long_runs.py): times mean
something only on a machine that does nothing else. Run it through scripts/soak, which builds and installs first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

if TYPE_CHECKING:
    from harness import Server
    from harness.soakjobs import SoakJobs


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", nargs="?", choices=["batches", "jobs"], default="batches", help="default: batches")
    parser.add_argument("-m", "--minutes", type=float, default=60, help="jobs: how long (default 60)")
    parser.add_argument("-s", "--seed", type=int, default=int(time.time()), help="jobs: default: from the clock")
    parser.add_argument("-n", "--batches", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("-b", "--batch", type=int, default=10, help="rows per commit (default 10)")
    return parser.parse_args()


def main() -> int:
    """One run and its report; 0 if all bounds are kept."""
    args = arguments()
    from harness import Server, process

    process.exit_on_sigterm()
    server = Server()
    server.hold()
    return run_jobs(args, server) if args.kind == "jobs" else run_batches(args, server)


def run_jobs(args: argparse.Namespace, server: Server) -> int:
    """Four jobs at a time."""
    from harness.soakjobs import SoakJobs

    soak = SoakJobs(minutes=args.minutes, seed=args.seed)
    try:
        soak.run(server)
    finally:
        print(f"PostgreSQL {server.major}, seed {args.seed}, {args.minutes:g} minutes")
        for name, counts in {"jobs": soak.ended, "events": soak.events}.items():
            print(
                f"{name:<12} {sum(counts.values()):,}: " + ", ".join(f"{n} {what}" for what, n in counts.most_common())
            )
        print_samples(soak)
        for problem in soak.problems:
            print(f"BAD          {problem}")
    print(f"{'result':<12} {len(soak.problems) or 'no'} problems")
    return 1 if soak.problems else 0


def print_samples(soak: SoakJobs) -> None:
    """What was seen after a minute, in the middle and at the end, and the most of all."""
    if not soak.watch or not soak.watch.samples:
        return
    seen = [sample for sample in soak.watch.samples if sample.seconds > 60] or soak.watch.samples
    # At the very end there is no worker.
    busy = [sample for sample in seen if sample.worker] or seen
    chosen = {"start": busy[0], "middle": busy[len(busy) // 2], "end": busy[-1]}
    print(f"{'':<30}" + "".join(f"{name:>12}" for name in [*chosen, "most"]))
    for title, name, unit in (
        ("after seconds", "seconds", 1),
        ("postmaster, kB", "postmaster", 1024),
        ("launcher, kB", "launcher", 1024),
        ("largest worker, kB", "worker", 1024),
        ("shared memory, kB", "shared", 1024),
        ("open files, most of one", "files", 1),
        ("extension's tables, kB", "tables", 1024),
        ("jobs kept", "jobs", 1),
    ):
        values = [getattr(sample, name) for sample in chosen.values()] + [max(getattr(s, name) for s in seen)]
        print(f"{title:<30}" + "".join(f"{value / unit:>12,.0f}" for value in values))
    longest = soak.watch.longest
    of_it = [longest[min(3, len(longest) - 1)], longest[len(longest) // 2], longest[-1], max(longest)]
    print(f"{f'longest life ({len(longest)} samples), kB':<30}" + "".join(f"{value / 1024:>12,.0f}" for value in of_it))
    print(f"{'most growth of one process, kB':<30}{soak.watch.growth / 1024:>12,.0f}")


def run_batches(args: argparse.Namespace, server: Server) -> int:
    """Very many batches under an old snapshot."""
    from harness.soak import Soak

    soak = Soak(batches=args.batches, batch_size=args.batch)
    soak.run(server)
    ratio, cpu_ratio = soak.last / soak.first, soak.last_cpu / soak.first_cpu
    memory = soak.memory
    growth = max(memory.values()) - memory[500]
    checks = {
        "batch, by the clock": (
            f"{soak.first * 1e6:.0f} us first, {soak.last * 1e6:.0f} us last: {ratio:.2f}",
            ratio <= 1.3,
        ),
        "batch, processor": (
            f"{soak.first_cpu * 1e6:.0f} us first, {soak.last_cpu * 1e6:.0f} us last: {cpu_ratio:.2f}",
            cpu_ratio <= 1.3,
        ),
        "pages of a poll": (f"{soak.pages_early} early, {soak.pages_late} late", soak.pages_late <= soak.pages_early),
        "RssAnon, kB": (", ".join(f"{n:,}: {size // 1024:,}" for n, size in memory.items()), growth < 1 << 20),
        "n | count": ("; ".join(f"{n} | {count:,}" for n, count in soak.counts), len(soak.counts) == 1),
    }
    print(f"PostgreSQL {server.major}, {args.batches:,} batches of {args.batch} rows in {soak.seconds:.1f} s")
    for name, (value, good) in checks.items():
        print(f"{name:<20} {'ok ' if good else 'BAD'}  {value}")
    return 0 if all(good for _, good in checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
