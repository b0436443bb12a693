"""A table on the terminal that shows a limiter while it works (the extra `cli`).

Owns how it looks and how often it is drawn. Must never raise into the program that it
shows, or draw where there is no terminal.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ratelimit.errors import InvalidArgument, caution
from ratelimit.events import Settled, Waited
from ratelimit.events.records import name_of
from ratelimit.limiter import RateLimiter
from ratelimit.limits import amount_of
from ratelimit.statistics import FamilyExplanation, KnownLimit
from ratelimit.telemetry.figures import Recent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

EVERY: Final = 0.25
"""Seconds between two looks."""
MOST_FAMILIES: Final = 12
"""Families that are shown, those with waiting calls and calls in flight first."""
LAST_SECONDS: Final = 2.0
"""Seconds that the end of the block waits for the last figures to be drawn; a terminal
that is stopped takes none.
"""
BAR: Final = 10
"""Characters of a full bar."""


@contextmanager
def live(
    limiter: RateLimiter, *, console: Console | None = None, every: float = EVERY
) -> Iterator[None]:
    """Show a limiter on the terminal while the block runs.

    One row a limit: its level as a bar, and for its family the calls that wait and are
    in flight, when the head goes, the median and the 95th percentile of the waits, the
    429s, and the tokens that were billed in the last minute. Draws nothing where the
    output is no terminal (a file, a pipe, ``TERM=dumb``).

    :param console: rich's console; standard error by default, so that the program's
        own output can be sent elsewhere.
    :param every: seconds between two looks; more where looking would take more than a
        tenth of a core.

    Raises `InvalidArgument` where rich is not installed.
    """
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra
        from rich.live import Live  # noqa: PLC0415  # an extra
    except ImportError as missing:
        from ratelimit.installation import install_command  # noqa: PLC0415  # slow to load

        raise InvalidArgument(f"rich is not installed: {install_command('cli')}") from missing

    every = max(amount_of(every, "every=, in seconds,"), 0.02)
    if console is None:
        console = Console(stderr=True)
    if not (console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)):
        yield
        return

    view = View(limiter)
    with limiter.subscribe(view.recent, Waited, Settled):
        drawn = Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=_is_terminal(sys.stdout),
            redirect_stderr=_is_terminal(sys.stderr),
        )
        over = threading.Event()

        def look() -> float:
            began = time.thread_time()
            drawn.update(view.table(), refresh=True)
            return pause_after(time.thread_time() - began, every)

        def draw() -> None:
            try:
                drawn.start()
                while not over.wait(look()):
                    pass
                look()
            except (Exception, SystemExit) as error:  # noqa: BLE001  # rich exits on a lost pipe
                caution(f"the live view of the limiter has ended: {error!r}; calls go on")
            try:
                drawn.stop()
            except (Exception, SystemExit) as error:  # noqa: BLE001  # likewise
                caution(f"the live view of the limiter could not be ended: {error!r}")

        thread = threading.Thread(target=draw, name="ratelimit-live", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(LAST_SECONDS)


def pause_after(spent: float, every: float) -> float:
    """Return the seconds until the next look, after one that has spent so much CPU."""
    return min(max(every, 9 * spent), threading.TIMEOUT_MAX)


def _is_terminal(stream: Any) -> bool:
    """Return whether what the program prints there has to go around the view.

    Elsewhere, in a file or a pipe, it must not end up on the view's terminal.
    """
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


class View:
    """What is drawn of one limiter."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self.recent = Recent()

    def table(self) -> Table:
        """Return the table of this moment."""
        from rich.table import Table  # noqa: PLC0415  # an extra

        table = Table(title="ratelimit", expand=False)
        table.add_column("family", overflow="ellipsis", max_width=24)
        table.add_column("limit", no_wrap=True)
        table.add_column("level", no_wrap=True)
        table.add_column("left", justify="right")
        for name in ("waiting", "in flight", "next in", "p50 / p95", "429s", "tokens/min"):
            table.add_column(name, justify="right")
        families = self._limiter.explain().families
        shown = sorted(families, key=lambda name: -_activity(families[name]))[:MOST_FAMILIES]
        for name in shown:
            self._add(table, name, families[name])
        if len(families) > len(shown):
            table.caption = f"and {len(families) - len(shown)} more families"
        return table

    def _add(self, table: Table, name: str, family: FamilyExplanation) -> None:
        from rich.text import Text  # noqa: PLC0415  # an extra

        name = name_of(name)
        waits = self.recent.percentiles(name)
        used = self.recent.tokens(name, family.at)
        figures: list[RenderableType] = [
            f"{family.waiting:,}",
            f"{family.in_flight:,}",
            "-" if family.next_in is None else f"{family.next_in:,.1f} s",
            "-" if waits is None else f"{waits[0]:,.1f} / {waits[1]:,.1f} s",
            Text(f"{family.refused:,}", "bold red" if family.refused else ""),
            "-" if used is None else f"{used:,}",
        ]
        title: RenderableType = Text(name)  # a pattern's brackets are no style
        for known in family.limits or (None,):
            if known is None:
                table.add_row(title, "none known", "", "", *figures)
            else:
                limit, left = Text(str(known.limit)), f"{known.level:,.0f}"
                table.add_row(title, limit, Text(*bar(known)), left, *figures)
            title, figures = "", [""] * len(figures)


def bar(known: KnownLimit) -> tuple[str, str]:
    """Return a level as a bar, and its colour."""
    share = min(max(known.level / known.limit.amount, 0.0), 1.0)
    full = round(share * BAR)
    colour = "green" if share > 0.5 else "yellow" if share > 0.1 else "red"
    return "\u2588" * full + "\u2591" * (BAR - full), colour


def _activity(family: FamilyExplanation) -> int:
    return 2 * family.waiting + family.in_flight
