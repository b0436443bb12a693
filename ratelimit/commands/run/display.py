"""How a run is shown while it goes on: in place on a terminal, else in plain lines.

Owns the look. Must never count or decide anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ratelimit import RateLimiter
from ratelimit.commands.run.meter import Meter, Use
from ratelimit.commands.show import PLAIN_EVERY, can_redraw, duration, money, say
from ratelimit.events import Settled, Waited
from ratelimit.telemetry.live import View

NOTICEABLE: Final = 0.01
"""Share of a limit from which what came out of a full bucket is shown apart."""


@contextmanager
def display(
    console: Console,
    meter: Meter,
    notice: Callable[[], str] = str,
    below: Callable[[], RenderableType] | None = None,
) -> Iterator[Callable[[], None]]:
    """Yield the function to call a few times a second.

    :param notice: what is shown before the figures; empty most of the time.
    :param below: what is drawn below them on a terminal.
    """
    if can_redraw(console):
        with _progress(console, meter, notice, below) as look:
            yield look
            look()
    else:
        yield _plain(console, meter, notice)


@contextmanager
def table_of(
    console: Console, limiter: RateLimiter, *, wanted: bool
) -> Iterator[Callable[[], RenderableType] | None]:
    """Yield what draws the limiter's table below the progress.

    None where that is not wanted or cannot be drawn; then no events are made for it.
    """
    if not wanted or not can_redraw(console):
        yield None
        return
    view = View(limiter)
    with limiter.subscribe(view.recent, Waited, Settled):
        yield view.table


class _WithTable(Progress):
    """The progress, and below it what is drawn of the limiter."""

    below: Callable[[], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, and what is below it."""
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below()


@contextmanager
def _progress(
    console: Console,
    meter: Meter,
    notice: Callable[[], str],
    below: Callable[[], RenderableType] | None,
) -> Iterator[Callable[[], None]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    shown = _WithTable(*columns, console=console)
    shown.below = below
    with shown as progress:
        bar = progress.add_task("", total=meter.left + meter.earlier, status="")

        def look() -> None:
            meter.sample()
            progress.update(
                bar, completed=meter.done + meter.earlier, status=status(meter, notice())
            )

        yield look


def _plain(console: Console, meter: Meter, notice: Callable[[], str]) -> Callable[[], None]:
    last = time.monotonic()

    def look() -> None:
        nonlocal last
        meter.sample()
        if time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            done = f"{meter.done + meter.earlier} of {meter.left + meter.earlier} done"
            say(console, f"{done}, {status(meter, notice())}")

    return look


def status(meter: Meter, notice: str = "") -> str:
    """Return all figures but the bar, in one line."""
    parts = [notice] if notice else []
    parts += [f"{meter.failed} failed", f"{meter.refused} 429s"]
    parts += map(_use, meter.uses())
    cost = meter.cost
    if cost is not None:
        parts.append(f"cost {money(cost)}")
    seconds = meter.remaining()
    if seconds is not None and not notice:
        parts.append(f"{duration(seconds)} left")
    return ", ".join(parts)


def _use(use: Use) -> str:
    """Show the use of a limit; what a full bucket gave beyond the rate stands apart."""
    beyond = use.used - use.allowed
    if beyond < use.allowed * NOTICEABLE:
        return f"{min(use.used, use.allowed):,.0f}/{use.allowed:,.0f} {use.name}"

    return f"{use.allowed:,.0f}/{use.allowed:,.0f} {use.name} and {beyond:,.0f} of the full bucket"
