"""`ratelimit top`: a shared quota on the screen, until Ctrl-C.

Owns the tables and the order of looks. Must never read a file.
"""

from __future__ import annotations

import contextlib
import json as json_format
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live

from ratelimit.commands.show import Output, table
from ratelimit.commands.streams import print_output, printable
from ratelimit.commands.top.look import QuotaShown, look
from ratelimit.limits import whole
from ratelimit.stores.opening import folder_of

PAUSE: Final = 1.0
"""Seconds between two looks."""


def top(*, store: str, json: bool = False, wait: Callable[[float], None] = time.sleep) -> int:
    """Show the quota until Ctrl-C, or once; return the exit status, 0.

    :param wait: sleeps, in seconds, between two looks.

    Raises `InvalidArgument` for what is no store, and `CommandError` where there is no
    quota.
    """
    folder = folder_of(store)
    shown = look(folder)
    if json:
        print_output(json_format.dumps([asdict(one) for one in shown]))
        return 0

    console = Output()
    if not console.is_terminal:
        console.print(_page(shown, {}))
        return 0

    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=False) as live:
        before = {one.family: one.admitted for one in shown}
        while True:
            live.update(_page(shown, before))
            before = {one.family: one.admitted for one in shown}
            wait(PAUSE)
            shown = look(folder)
    return 0


def _page(shown: Sequence[QuotaShown], before: dict[str, int]) -> Group:
    parts: list[RenderableType] = []
    for one in shown:
        most = "" if one.concurrency is None else f" of {one.concurrency}"
        pause = f", paused for {one.closed_for:.0f} s" if one.closed_for else ""
        rate = ""
        if one.family in before:
            rate = f", {one.admitted - before[one.family]} of them in the last second"
        levels = [[level.limit, whole(level.level)] for level in one.levels]
        processes = [
            [
                str(each.pid),
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
                f"{rate}{pause}; {len(processes)} processes, {one.waiting} of them wait"
            ),
            table("", ("limit", "left"), levels or [["none is known yet", ""]]),
            table("", ("process", "", "in flight", "admitted", "seen"), processes, texts=2),
        ]
    return Group(*parts)
