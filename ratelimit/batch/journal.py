"""The file of results: what is done already, and one whole line more for each result.

Owns resuming, repairing and appending, and the lock that keeps a second run out. Must
never ask for an answer, or judge a result beyond "answered or failed".

A line is written at the end of the file and cut away again where the disk takes only a
part of it. A run that is killed leaves at most one broken line, the last, which the
next run cuts off. The lock is on the file itself, so it holds for every name of the
file, and the operating system lifts it when its process ends, however that ends.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import lock_descriptor

from ratelimit.batch.files import is_at, place_of, replacement, write_whole
from ratelimit.batch.requests import key_of
from ratelimit.batch.results import OPENING, read_bill, read_result
from ratelimit.errors import InvalidArgument
from ratelimit.feedback import Usage

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Done:
    """Which requests a file of results holds, answered or failed.

    Names are kept as 16 bytes each, see `key_of`.
    """

    def __init__(self) -> None:
        self.answered: set[bytes] = set()
        self.failed: set[bytes] = set()
        self.asked_again: set[bytes] = set()
        """Which have a failure and another line: the answer counts, or the last one."""
        self.tail: int | None = None
        """Where a last line without an end begins, in bytes."""
        self.tail_is_whole = False
        """Whether that line lacks nothing but its end."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file line by line, changing nothing; a missing file holds nothing.

        Raises `InvalidArgument` for a file of anything else.
        """
        return cls.of(_lines(path), path)

    @classmethod
    def of(cls, lines: Iterator[bytes], path: Path) -> Self:
        """Read the `lines` of a file; `path` is named where one is no result."""
        found = cls()
        place = 0
        for number, raw in enumerate(lines, 1):
            try:
                name, is_answered = read_result(raw)
            except InvalidArgument:
                if raw.endswith(b"\n") or not _may_be_cut_off(raw, number):
                    raise InvalidArgument(
                        f"line {number} of {path} is no line of results; is this the right"
                        " file? Nothing was changed in it"
                    ) from None
                found.tail = place
                break

            key = key_of(name)
            if key in found.failed or (key in found.answered and not is_answered):
                found.asked_again.add(key)
            (found.answered if is_answered else found.failed).add(key)
            if not raw.endswith(b"\n"):
                found.tail = place
                found.tail_is_whole = True
            place += len(raw)

        found.failed -= found.answered
        return found


def _may_be_cut_off(raw: bytes, number: int) -> bool:
    """Return whether a last line may be the beginning of one of ours."""
    return number > 1 or OPENING.startswith(raw[: len(OPENING)])


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unusual(path)
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror or error}") from None


def _unusual(path: Path) -> InvalidArgument:
    return InvalidArgument(
        f"{path} is no ordinary file; results are appended to one, and read again to go on"
    )


class Journal:
    """A file of results, open for one more; a context manager.

    An exception before the first result leaves no file that was not there. Raises
    `InvalidArgument` where the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = Done()
        """What the file held at the start."""
        self.healed = ""
        """What became of a half-written last line; empty if there was none."""
        self._place = path
        self._descriptor = -1
        self._size = 0
        self._was_there = False
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                if self.path.exists() and not self.path.is_file():
                    raise _unusual(self.path)
                self._place = place_of(self.path)
                self._was_there = self._place.exists()
                stack.callback(self._detach)
                self._attach()
                stack.push(self._clear)
                self.done = Done.of(self._read(), self.path)
                self._heal()
            except OSError as error:
                raise self._refused(error) from None
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, line: bytes) -> None:
        """Append one line, whole or not at all; raise OSError when the disk refuses."""
        try:
            write_whole(self._descriptor, line)
        except BaseException:
            os.ftruncate(self._descriptor, self._size)
            raise

        self._size += len(line)

    def drop_outdated(self) -> None:
        """Drop each failure that an answer or a later failure of its request replaces.

        The file is replaced in one step, or not at all. Raises `InvalidArgument` where
        that cannot be: nothing is lost, and the same lines count.
        """
        outdated = self._outdated()
        if not outdated:
            return

        with ExitStack() as stack:
            try:
                with replacement(self.path) as new:
                    for number, raw in enumerate(self._read()):
                        if number not in outdated:
                            write_whole(new, raw)
                    if sys.platform == "win32":  # which replaces no file that is open
                        self._detach()
                    else:
                        kept = os.dup(new)  # it is locked
                        stack.callback(os.close, kept)
            except OSError as error:
                raise self._refused(error) from None
            finally:
                if self._descriptor < 0:
                    self._attach()
            if sys.platform != "win32":
                stack.pop_all()
                os.close(self._descriptor)
                self._descriptor = kept
            self._size = os.fstat(self._descriptor).st_size

    def _outdated(self) -> set[int]:
        """Return the numbers of the lines that do not count; none is an answer."""
        names = self.done.failed | self.done.asked_again
        counts: dict[bytes, tuple[int, bool]] = {}
        outdated: set[int] = set()
        for number, raw in enumerate(self._read()):
            name, is_answered = read_result(raw)
            key = key_of(name)
            if key not in names:
                continue
            before, was_answered = counts.get(key, (number, True))
            if was_answered and key in counts and not is_answered:
                outdated.add(number)
                continue
            if not was_answered:
                outdated.add(before)
            counts[key] = number, is_answered
        return outdated

    def _attach(self) -> None:
        """Open the file and lock it; raise `InvalidArgument` where a run holds it."""
        while self._descriptor < 0:
            descriptor = os.open(self._place, _FLAGS, 0o666)
            try:
                _lock(descriptor, self.path)
                # What was locked may have been replaced or removed by its last holder
                # between the two steps.
                stands = is_at(descriptor, self._place)
            except BaseException:
                os.close(descriptor)
                raise

            if stands:
                self._descriptor = descriptor
                self._size = os.fstat(descriptor).st_size
            else:
                os.close(descriptor)

    def _detach(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return

        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _clear(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._was_there or self._size:
            return

        with suppress(PermissionError):  # Windows removes no file that is open
            self._place.unlink(missing_ok=True)

    def usages(self) -> Iterator[tuple[str, Usage | None]]:
        """Yield the model and the bill of each result; None where none is shown."""
        for raw in self._read():
            yield read_bill(raw)

    def _read(self) -> Iterator[bytes]:
        """Read all lines through the descriptor that holds the lock."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            yield from file

    def _heal(self) -> None:
        if self.done.tail is None:
            return

        if self.done.tail_is_whole:
            self.write(b"\n")
            return

        self.healed = (
            f"the last line of {self.path} was half-written: it is cut off, and its request"
            " is sent again"
        )
        os.ftruncate(self._descriptor, self.done.tail)
        self._size = self.done.tail

    def _refused(self, error: OSError) -> InvalidArgument:
        return InvalidArgument(f"cannot write {self.path}: {error.strerror or error}")


def _lock(descriptor: int, path: Path) -> None:
    if not lock_descriptor(descriptor, blocking=False):
        raise InvalidArgument(
            f"another run is writing to {path}; wait for its end, or give this one another output"
        )
