"""What the commands print: progress while it runs, tables when it has run.

Owns the look. Must never come in: deciding or measuring anything. On a terminal the
progress lives in place; elsewhere it is plain lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from ratelimit.commands.clients import Tally  # which imports what only the demo needs

PLAIN_EVERY = 5.0  # seconds between two plain lines


@contextmanager
def watching(console: Console, tally: Tally) -> Iterator[Callable[[], None]]:
    """Yield the function to call now and then, which shows how far a client has come;
    the last state is shown at the end.
    """
    look, end = _live(console, tally) if console.is_terminal else _plain(console, tally)
    try:
        yield look
    finally:
        end()


def _live(console: Console, tally: Tally) -> tuple[Callable[[], None], Callable[[], None]]:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=console)
    bar = progress.add_task(tally.name, total=tally.calls, told="")
    progress.start()

    def look() -> None:
        progress.update(bar, completed=tally.answered, told=_told(tally))

    def end() -> None:
        look()
        progress.stop()

    return look, end


def _plain(console: Console, tally: Tally) -> tuple[Callable[[], None], Callable[[], None]]:
    started = last = time.monotonic()

    def line() -> None:
        passed = time.monotonic() - started
        told = f"{tally.name:<10} {tally.answered:>4} of {tally.calls} answered, {_told(tally)}, {passed:.1f} s"
        console.print(told, highlight=False, soft_wrap=True)

    def look() -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            line()

    return look, line


def _told(tally: Tally) -> str:
    return f"{tally.rejected} 429s, {tally.failed} failed"


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    *,
    texts: int = 1,
) -> Table:
    """A table whose first `texts` columns are text and whose others are figures."""
    made = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="",
    )
    for number, column in enumerate(columns):
        made.add_column(
            column,
            justify="left" if number < texts else "right",
            no_wrap=number >= texts,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    return made


def duration(seconds: float) -> str:
    """Seconds for people: "12 s", "3 min 20 s", "2 h 5 min", "1 day 6 h"."""
    whole = max(round(seconds), 0)
    days = "day" if whole < 2 * 86_400 else "days"
    for size, unit, smaller, subunit in (
        (86_400, days, 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {subunit}" if rest else "")
    return f"{whole} s"
