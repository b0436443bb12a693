"""`ratelimit top`: a shared quota on the screen, until Ctrl-C.

Owns the tables and the order of looks. Must never read a file.
"""

from __future__ import annotations

import contextlib
import json as json_format
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live

from ratelimit.commands import CommandError
from ratelimit.commands.show import Output, can_redraw, duration, table
from ratelimit.commands.streams import print_output, printable
from ratelimit.commands.top.look import Place, QuotaShown, place_of
from ratelimit.limits import whole

PAUSE: Final = 1.0
"""Seconds between two looks."""


def top(
    *,
    store: str,
    json: bool = False,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Show the quota until Ctrl-C, or once; return the exit status, 0.

    :param wait: sleeps, in seconds, between two looks.
    :param clock: tells the seconds that pass between them.

    Raises `InvalidArgument` for what is no store, and `CommandError` where there is no
    quota at the first look.
    """
    place = place_of(store)
    shown = place.look()
    if not shown:
        raise CommandError(f"{_no_quota(place)}: start a program with the same store=")
    if json:
        print_output(json_format.dumps([asdict(one) for one in shown]))
        return 0

    console = Output()
    if not can_redraw(console):
        console.print(_page(place, shown))
        return 0

    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        looked_at, before, seconds = clock(), dict[str, int](), 0.0
        while True:
            live.update(_page(place, shown, before, seconds), refresh=True)
            before = {one.family: one.admitted for one in shown}
            wait(PAUSE)
            try:
                shown, last, looked_at = place.look(), looked_at, clock()
            except CommandError as error:  # it may be there again at the next look
                live.update(printable(str(error)), refresh=True)
                shown, last, looked_at, before = [], looked_at, clock(), {}
                continue
            seconds = looked_at - last
    return 0


def _no_quota(place: Place) -> str:
    return f"there is no quota in {place.name} yet"


def _page(
    place: Place,
    shown: Sequence[QuotaShown],
    before: Mapping[str, int] | None = None,
    seconds: float = 0.0,
) -> Group:
    """Draw all families.

    :param before: what the last look has seen admitted, by family.
    :param seconds: how long ago that was.
    """
    parts: list[RenderableType] = [] if shown else [printable(_no_quota(place))]
    for one in shown:
        most = "" if one.concurrency is None else f" of {one.concurrency}"
        pause = f", paused for {one.closed_for:.0f} s" if one.closed_for else ""
        levels = [[level.limit, whole(level.level)] for level in one.levels]
        processes = [
            [
                each.process,
                "waits" if each.waits else "",
                str(each.in_flight),
                f"{each.admitted:,}",
                f"{each.seen_ago:.1f} s ago",
            ]
            for each in one.processes
        ]
        parts += [
            printable(
                f"{one.family}: {one.in_flight}{most} in flight, {one.admitted:,} admitted"
                f"{_rate(one, before or {}, seconds)}{pause}; {len(processes)} processes, "
                f"{one.waiting} of them wait"
            ),
            table("", ("limit", "left"), levels or [["none is known yet", ""]]),
            table("", ("process", "", "in flight", "admitted", "seen"), processes, texts=2),
        ]
    return Group(*parts)


def _rate(one: QuotaShown, before: Mapping[str, int], seconds: float) -> str:
    """Say how many calls went since the last look; nothing where that is not known.

    A file that was made anew counts from zero.
    """
    admitted = one.admitted - before.get(one.family, one.admitted + 1)
    return "" if admitted < 0 else f", {admitted:,} of them in the last {duration(seconds)}"
