"""The command line."""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from harness import process

from bench import foreground_plot, page, plot, report, results
from bench.host import ROOT
from bench.runner import Runner, say
from bench.scenarios import FOREGROUND, MAIN, SCENARIOS, Scenario

QUICK_ROWS = 20_000
PAGE = ROOT / "docs" / "benchmark.md"
PICTURE = Path("docs/bench.svg")
FOREGROUND_PICTURE = Path("docs/foreground.svg")
DESCRIPTION = """\
Fills a column of the same tables in different ways, in turn, and tells what each took.

Results are kept in a file a scenario, bench.md and bench.svg show all that are in the folder. So scenarios can be run
one by one; running one again replaces its results."""
EPILOG = """\
examples:
  scripts/bench 16 --list                       what there is
  scripts/bench 16 -s main -c one-update ours   two contenders of one scenario
  scripts/bench 16 --quick                      shows that all of it works, in a minute
  scripts/bench 16 --scale 0.1 -r 1             a tenth of the rows, once each
  scripts/bench 16 --render --page              new tables from old results, into docs/benchmark.md, too"""


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    made = argparse.ArgumentParser(
        prog="scripts/bench [MAJOR]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    some = {"nargs": "+", "metavar": "NAME", "default": ["*"]}
    made.add_argument("-l", "--list", action="store_true", help="list scenarios, contenders and bars, and run nothing")
    made.add_argument("-s", "--scenarios", **some, help="these scenarios only; * and ? match (default: all)")
    made.add_argument("-c", "--contenders", **some, help="these contenders only, likewise")
    made.add_argument("-r", "--repetitions", type=_positive, metavar="N", help="of each contender (default: its own)")
    made.add_argument("--scale", type=float, default=1.0, metavar="F", help="multiplies the tables' rows (default 1)")
    made.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROWS:,} rows, everything once, fsync off: figures mean nothing"
    )
    made.add_argument(
        "-o", "--output", type=Path, default=ROOT / "target" / "bench", metavar="DIR", help="default target/bench"
    )
    made.add_argument("--render", action="store_true", help="run nothing, show the results that are in the folder")
    made.add_argument("--page", action="store_true", help=f"put the report into docs/benchmark.md and {PICTURE}, too")
    made.add_argument(
        "--memory-cgroup",
        type=Path,
        metavar="DIR",
        help="existing cgroup with a memory limit, for the scenarios that want little memory",
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """0 if every contender did its work; whether bars were reached is for the reader."""
    args = parser().parse_args(arguments)
    scenarios = choose(args)
    if not scenarios:
        parser().error("no scenario has such a contender: see --list")
    if args.list:
        print(listing(scenarios))
        return 0
    process.exit_on_sigterm()
    failed = 0
    if not args.render:
        output = args.output / "quick" if args.quick else args.output
        args.output = output
        ran = Runner(output, args.quick, args.memory_cgroup).run(scenarios)
        failed = sum(run.error is not None for result in ran for run in result.runs)
    show(args.output, args.page)
    if failed:
        say(f"{failed} runs FAILED")
    return 1 if failed else 0


def choose(args: argparse.Namespace) -> list[Scenario]:
    """The scenarios asked for, with the contenders asked for, in the size asked for."""
    chosen = []
    for scenario in SCENARIOS:
        names = {entry.name for entry in scenario.entries if _matches(entry.name, args.contenders)}
        if names and _matches(scenario.name, args.scenarios):
            rows, repetitions = (QUICK_ROWS, args.repetitions or 1) if args.quick else (None, args.repetitions)
            chosen.append(scenario.only(names).scaled(args.scale, rows, repetitions))
    return chosen


def listing(scenarios: list[Scenario]) -> str:
    """For people who choose."""
    lines = []
    for scenario in scenarios:
        lines += [f"{scenario.name}: {scenario.title}"]
        for entry in scenario.entries:
            times = entry.repetitions or scenario.repetitions
            lines += [f"    {entry.name:<20} {entry.contender.label}; {entry.dataset.rows:,} rows, {times} times"]
        lines += [f"    > {bar.text}: {report.limit(bar)}" for bar in scenario.bars]
    return "\n".join(lines)


def show(folder: Path, into_page: bool) -> None:
    """Writes the report of all results in the folder."""
    found = results.load(folder)
    if not found:
        raise SystemExit(f"no results in {folder}")
    picture = folder / "bench.svg"
    if MAIN.name in found:
        plot.draw(MAIN, found[MAIN.name], picture)
    latencies = folder / FOREGROUND_PICTURE.name
    if FOREGROUND.name in found:
        foreground_plot.draw(FOREGROUND, found[FOREGROUND.name], latencies)
    plots = {FOREGROUND.name: latencies.name} if latencies.exists() else {}
    (folder / "bench.md").write_text(report.markdown(found, picture.name if picture.exists() else None, plots))
    say(f"{folder / 'bench.md'}")
    if into_page:
        if picture.exists():
            (ROOT / PICTURE).write_bytes(picture.read_bytes())
        if latencies.exists():
            (ROOT / FOREGROUND_PICTURE).write_bytes(latencies.read_bytes())
        page.update(PAGE, report.markdown(found, PICTURE.name if picture.exists() else None, plots))


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
