"""What the commands print: progress while it runs, tables when it has run.

Owns the look: on a terminal the progress stays in place, elsewhere it is plain lines.
Must never decide or measure anything.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ratelimit.commands.streams import OutputLost, abandon, printable

if TYPE_CHECKING:
    # it imports what only the demo needs
    from ratelimit.commands.demo.clients import ClientFigures

PLAIN_EVERY: Final = 5.0
"""Seconds between two plain lines."""

_AS_IT_IS: Final[Any] = {"markup": False, "emoji": False}
"""Names and paths may look like styles or emoji; none of our texts means one."""


class Output(Console):
    """A console on standard output, which raises `OutputLost` when that is lost."""

    def __init__(self) -> None:
        super().__init__(**_AS_IT_IS)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as a `Console` does."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._lose(error)

    def on_broken_pipe(self) -> NoReturn:
        """Treat a reader that has gone as a disk that is full."""
        self._lose(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def _lose(self, error: OSError) -> NoReturn:
        abandon(sys.stdout)
        self.quiet = True
        raise OutputLost(error) from None


class Notes(Console):
    """A console on standard error, which is silent once that is lost."""

    def __init__(self) -> None:
        super().__init__(stderr=True, **_AS_IT_IS)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as a `Console` does, as long as that can be read."""
        try:
            super().print(*objects, **options)
        except OSError:  # there is no third place to complain at
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Go on in silence: the work must not end for want of a reader."""
        abandon(sys.stderr)
        self.quiet = True


def say(console: Console, sentence: str) -> None:
    """Print a sentence as it is, on one line, however wide the console."""
    console.print(printable(sentence), highlight=False, soft_wrap=True)


def can_redraw(console: Console) -> bool:
    """Return whether what is drawn can stay in place: not in a file or a pipe.

    Nor on a dumb terminal, where rich draws nothing before the end.
    """
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def watching(console: Console, figures: ClientFigures) -> Iterator[Callable[[], None]]:
    """Yield a function to call now and then, which shows how far a client has come.

    The last state is shown at the end.
    """
    look, end = _live(console, figures) if can_redraw(console) else _plain(console, figures)
    try:
        yield look
    finally:
        end()


def _live(
    console: Console, figures: ClientFigures
) -> tuple[Callable[[], None], Callable[[], None]]:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=console)
    bar = progress.add_task(figures.name, total=figures.calls, status="")
    progress.start()

    def look() -> None:
        progress.update(bar, completed=figures.answered, status=_status(figures))

    def end() -> None:
        look()
        progress.stop()

    return look, end


def _plain(
    console: Console, figures: ClientFigures
) -> tuple[Callable[[], None], Callable[[], None]]:
    started = last = time.monotonic()

    def line() -> None:
        passed = time.monotonic() - started
        done = f"{figures.name:<10} {figures.answered:>4} of {figures.calls} answered"
        say(console, f"{done}, {_status(figures)}, {passed:.1f} s")

    def look() -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            line()

    return look, line


def _status(figures: ClientFigures) -> str:
    return f"{figures.rejected} 429s, {figures.failed} failed"


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    *,
    texts: int = 1,
) -> Table:
    """Make a table of `texts` columns of text, followed by columns of figures."""
    made = Table(
        title=printable(title),
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
        made.add_row(*map(printable, row))
    return made


def money(amount: float, *, up: bool = False) -> str:
    """Show a price with two digits behind the point, or two that are not zero.

    :param up: round up, so that a bound stays one.
    """
    value = Decimal(f"{amount:.12g}")
    places = 2 if value >= 1 or not value else max(2, 1 - value.adjusted())
    rounding = ROUND_CEILING if up else ROUND_HALF_EVEN
    return f"{value.quantize(Decimal(1).scaleb(-places), rounding):,f}"


def duration(seconds: float) -> str:
    """Show seconds for people: "12 s", "3 min 20 s", "2 h 5 min", "1 day 6 h"."""
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
