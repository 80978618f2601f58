"""What the demo shows: on a terminal a live display, elsewhere a line now and then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

WIDTH = 80
COLOURS = {
    "running": "green",
    "paused": "yellow",
    "pausing": "yellow",
    "completed": "bright_green",
    "failed": "red",
    "crash recovery": "red",
}


@dataclass
class Progress:
    """One look at backfill.progress; in a crash the last one, with the state that the server is in."""

    state: str
    percent: float | None
    rows_done: int
    rows_total: int | None
    rows_per_second: float | None
    eta: dt.timedelta | dt.datetime | None
    worker: int | None = None
    waiting_for: str | None = None

    @property
    def rows(self) -> str:
        """Rows done, and of how many if that is known."""
        return f"{self.rows_done:,}" + (f" of {self.rows_total:,}" if self.rows_total else "") + " rows"

    @property
    def rate(self) -> str:
        """Rows per second."""
        return f"{self.rows_per_second:,.0f} rows/s" if self.rows_per_second else "- rows/s"

    @property
    def left(self) -> str:
        """The time that is left, whether the server tells a duration or a point in time."""
        eta = self.eta
        if isinstance(eta, dt.datetime):
            eta = eta - dt.datetime.now(eta.tzinfo)
        return "ETA -" if eta is None else f"ETA {max(0.0, eta.total_seconds()):.0f} s"


class View:
    """Prints headings, SQL and notes, and between them the progress of the job."""

    def __init__(self) -> None:
        self.console = Console(width=WIDTH, highlight=False)
        self._live: Live | None = None
        self._last = ("", -1)

    def title(self, text: str) -> None:
        """The box at the top."""
        self.console.print(Panel(Text(text, justify="center"), box=box.ROUNDED, style="bold", width=WIDTH))

    def step(self, text: str) -> None:
        """What comes next, and why."""
        self.console.print(f"\n[bold cyan]{text}[/]")

    def note(self, text: str) -> None:
        """Something that happened."""
        self.console.print(f"[dim]·[/] {text}")

    def sql(self, statement: str) -> None:
        """A statement that is run now."""
        if self.console.is_terminal:
            shown = Syntax(
                statement.strip(), "postgresql", theme="ansi_dark", background_color="default", word_wrap=True
            )
        else:
            shown = Text(statement.strip())
        self.console.print(Padding(shown, (0, 0, 0, 4)))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps the display of `progress` in place while notes scroll by above it."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=20) as self._live:
            yield
        self._live = None

    def progress(self, now: Progress) -> None:
        """Shows how far the job is."""
        if self._live:
            self._live.update(_display(now))
            return
        mark = (now.state, int(now.percent or 0) // 10)
        if mark != self._last:
            self._last = mark
            percent = "  ?" if now.percent is None else f"{now.percent:3.0f}"
            self.console.print(f"  {percent} %  {now.state:<14} {now.rows}  {now.rate}  {now.left}")

    def table(self, rows: list[tuple[str, str]]) -> None:
        """The report at the end."""
        table = Table(box=box.SIMPLE_HEAD, show_header=False, width=WIDTH, pad_edge=False)
        table.add_column(ratio=2)
        table.add_column(ratio=3)
        for name, value in rows:
            table.add_row(name, value)
        self.console.print(table)

    def comparison(self, head: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> None:
        """Two ways beside each other."""
        table = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False)
        for name, ratio in zip(head, (2, 2, 2), strict=True):
            table.add_column(name, ratio=ratio)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def _display(now: Progress) -> Group:
    colour = COLOURS.get(now.state, "white")
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    worker = f"worker process {now.worker}" if now.worker else ""
    if now.waiting_for:
        colour = "yellow"
    head.add_row(f"[{colour}]●[/] [bold {colour}]{now.state}[/]", f"[dim]{worker}[/]")
    foot = Table.grid(expand=True)
    foot.add_column()
    foot.add_column(justify="right")
    percent = "" if now.percent is None else f"[bold]{now.percent:.1f} %[/]   "
    foot.add_row(percent + now.rows, f"{now.rate}   {now.left}")
    bar = ProgressBar(
        total=100, completed=now.percent or 0, pulse=now.percent is None, complete_style=colour, finished_style=colour
    )
    # A bar by itself ends without a new line.
    line = Table.grid(expand=True)
    line.add_row(bar)
    # Always a line, so that nothing jumps.
    waits = Text(now.waiting_for or "", style="yellow", no_wrap=True, overflow="ellipsis")
    return Group(Text(), head, line, foot, waits)
