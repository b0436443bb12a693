"""Interruptions at every moment at which Python would run a signal handler, in turn.

Owns the enumeration of these moments; nothing is left to chance and nothing waits. Must
never know what is interrupted.

Python handles signals when a function of its own begins or goes on after a ``yield``,
when a call has returned, and when it jumps backwards, at the end of each round of a
loop (`CHECK_EVAL_BREAKER` in CPython's ceval.c). A profiler is called at the first two
of these. A tracer that sees every instruction finds the rest: it raises at the first
instruction of a loop's next round and after a ``yield``. Not enumerated: moments inside
C code.

A profiler or tracer that raises is removed by the interpreter. So the second of two
interruptions comes from whichever of the two has not raised yet. The tracer stands in
for the profiler then: it raises at the instruction that follows a call. After the last
call of a ``try`` block that would be outside of the block, so these are left out.
"""

from __future__ import annotations

import dis
import gc
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count, pairwise
from types import CodeType, FrameType
from typing import Any, Final

_CALLS: Final = frozenset(code for name, code in dis.opmap.items() if name.startswith("CALL"))
_RESUMES: Final = frozenset({dis.opmap["RESUME"]})
_GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Interrupted(BaseException):
    """What Ctrl-C raises, by a name of its own."""


def interrupt() -> None:
    """Raise what Ctrl-C raises."""
    raise Interrupted


@lru_cache(1_000)
def _after(code: CodeType, opcodes: frozenset[int]) -> frozenset[int]:
    """Return the offsets of these instructions where the next one has the same
    handler.
    """
    entries: Any = vars(dis.Bytecode(code))["exception_entries"]  # typeshed lacks it

    def handler(offset: int) -> object:
        return next((one.target for one in entries if one.start <= offset < one.end), -1)

    steps = [(one.offset, one.opcode) for one in dis.get_instructions(code)]
    return frozenset(
        offset
        for (offset, opcode), (following, _) in pairwise(steps)
        if opcode in opcodes and handler(offset) == handler(following)
    )


class Interruption:
    """While entered, call ``handler`` once, at the moment of that number.

    `came` is whether there was such a moment.

    :param again: raise a second time, that many moments after the first, which has to
        raise; `came_again` is whether there was such a moment.
    """

    def __init__(
        self, number: int, handler: Callable[[], object] = interrupt, *, again: int | None = None
    ) -> None:
        self.came = False
        self.came_again = False
        self._left = number
        self._stopped = False
        self._again = again
        self._handler = handler

    def __enter__(self) -> Interruption:
        self._before = sys.getprofile(), sys.gettrace()
        gc.disable()  # finalizers of earlier garbage must not run, and be interrupted, in here
        sys.settrace(self._trace)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        sys.setprofile(self._before[0])
        sys.settrace(self._before[1])
        gc.enable()
        return kind is Interrupted

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_flags & _GENERATOR:
            return  # it may be about to be closed: no signal is handled then
        if event in {"call", "c_return", "c_exception"} and frame.f_code.co_filename != __file__:
            self._count()

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if event != "call" or frame.f_code.co_filename == __file__:
            return None
        if self.came and sys.getprofile() is None and not frame.f_code.co_flags & _GENERATOR:
            self._count()
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        calls = _after(frame.f_code, _CALLS)
        resumes = _after(frame.f_code, _RESUMES) if frame.f_code.co_flags & _GENERATOR else ()
        last = frame.f_lasti

        def step(frame: FrameType, event: str, _: object) -> Any:
            nonlocal last
            if event == "exception":
                last = -1
            if event != "opcode":
                return step

            before, last = last, frame.f_lasti
            in_place_of_profiler = self.came and sys.getprofile() is None
            if last < before or before in resumes or (in_place_of_profiler and before in calls):
                self._count()
            return step

        return step

    def _count(self) -> None:
        self._left -= not self._stopped
        if self._left >= 0 or self._stopped:
            return
        if self.came:
            self.came_again = True
            self._stop()
            interrupt()
        self.came = True
        if self._again is None:
            self._stop()
            self._handler()
        else:
            self._left = self._again
            interrupt()

    def _stop(self) -> None:
        self._stopped = True
        sys.setprofile(None)
        sys.settrace(None)


def interruptions(
    act: Callable[[], object], handler: Callable[[], object] = interrupt
) -> Iterator[int]:
    """Run ``act`` again and again, interrupted at its first moment, then at its second.

    Ends when ``act`` ends before the moment comes. After each run that was interrupted
    the number of the moment is yielded, for the caller to look at what is left.
    """
    for number in count():
        with Interruption(number, handler) as interruption:
            act()
        if not interruption.came:
            return
        yield number


def double_interruptions(act: Callable[[], object], *, step: int = 1) -> Iterator[tuple[int, int]]:
    """Run ``act`` interrupted at every moment, and once more while that is handled.

    :param step: take only every such moment for the first interruption.
    """
    for number in count(0, step):
        for again in count():
            with Interruption(number, again=again) as interruption:
                act()
            if not interruption.came:
                return
            yield number, again
            if not interruption.came_again:
                break
