"""Interruptions at every moment at which Python would run a signal handler, one after
the other: no chance, no waiting.

Owns nothing but that. Python looks for signals when a function of its own begins and
when a call has returned; a profiler is called there too.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(BaseException):
    """What Ctrl-C raises, by a name of our own."""


def interrupt() -> None:
    """Be Ctrl-C."""
    raise Interrupted


class Interruption:
    """While entered, ``handler`` is called once, at the moment of that number, and
    `came` tells whether there were so many.
    """

    def __init__(self, number: int, handler: Callable[[], object] = interrupt) -> None:
        self.came = False
        self._left = number
        self._handler = handler

    def __enter__(self) -> Interruption:
        self._before = sys.getprofile()
        gc.disable()  # no rubbish of others is to be interrupted: its finalizers could not tell
        sys.setprofile(self._profile)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.setprofile(self._before)
        gc.enable()
        return kind is Interrupted

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event not in {"call", "c_return", "c_exception"} or frame.f_code.co_filename == __file__:
            return
        self._left -= 1
        if self._left < 0:
            sys.setprofile(None)
            self.came = True
            self._handler()


def interruptions(
    act: Callable[[], object], handler: Callable[[], object] = interrupt
) -> Iterator[int]:
    """Run ``act`` again and again, interrupted at its first moment, then at its second,
    until it ends before that.

    After each run that was interrupted the number of the moment is given out, for the
    caller to see what was left behind.
    """
    number = 0
    while True:
        with Interruption(number, handler) as interruption:
            act()
        if not interruption.came:
            return
        yield number
        number += 1
