"""Interruptions at every moment at which Python would run a signal handler, one after the other: no chance, no waiting.

Owns nothing but that. Python looks for signals when a function of its own begins and when a call has returned; a profiler is called there too.
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


def interruptions(act: Callable[[], object], handler: Callable[[], object] = interrupt) -> Iterator[int]:
    """Run ``act`` again and again, and ``handler`` inside it: at its first moment, then at its second, until it ends before the handler's turn.

    After each run that was interrupted the number of that moment is given out, for the caller to see what was left behind.
    """
    number = 0
    while True:
        left = number

        def profile(frame: FrameType, event: str, _: object) -> None:
            nonlocal left
            if event not in {"call", "c_return", "c_exception"} or frame.f_code.co_filename == __file__:
                return
            left -= 1
            if left == -1:
                sys.setprofile(None)
                handler()

        before = sys.getprofile()
        gc.disable()  # no rubbish of others is to be interrupted: its finalizers could not tell
        sys.setprofile(profile)
        try:
            act()
        except Interrupted:
            pass
        finally:
            sys.setprofile(before)
            gc.enable()
        if left >= 0:
            return
        yield number
        number += 1
