"""The file of results: what is done already, and one whole line more for each result.

Owns resuming, healing and appending. A line is written by one call at the end of the
file, and cut away again where the disk takes only a part of it; a run that is killed
leaves at most one broken line, its last, which the next one heals. Must never come in:
asking, what a result means beyond "answered or failed".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ratelimit.batch.locking import FileLock
from ratelimit.batch.requests import key_of
from ratelimit.batch.results import OPENING, read_result
from ratelimit.errors import InvalidArgument

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Done:
    """What a file of results holds: for each of its names, in 16 bytes (see `key_of`),
    whether it was answered or only failed.

    `tail`: where a last line without an end begins, in bytes, or None; `tail_is_whole`:
    it lacks nothing but its end.
    """

    def __init__(self) -> None:
        self.answered: set[bytes] = set()
        self.failed: set[bytes] = set()
        self.tail: int | None = None
        self.tail_is_whole = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, line by line, changing nothing; one that is not there holds
        nothing. Raises `InvalidArgument` for any other file.
        """
        found = cls()
        place = 0
        for number, raw in enumerate(_lines(path), 1):
            try:
                name, ok = read_result(raw)
            except InvalidArgument:
                if raw.endswith(b"\n") or not (
                    number > 1 or OPENING.startswith(raw[: len(OPENING)])
                ):
                    raise InvalidArgument(
                        f"line {number} of {path} is no line of results; is this the right file? Nothing was changed in it"
                    ) from None
                found.tail = place
                break
            (found.answered if ok else found.failed).add(key_of(name))
            if not raw.endswith(b"\n"):
                found.tail, found.tail_is_whole = place, True
            place += len(raw)
        found.failed -= found.answered
        return found


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidArgument(
                    f"{path} is no ordinary file; results are appended to one, and read again to go on"
                )
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror or error}") from None


class Journal:
    """A file of results, open for one more; a context manager. Raises `InvalidArgument`
    where the file cannot be used.

    `done` is what it held at the start; `healed` says what became of a half-written
    last line, "" if there was none. Who leaves by an exception before the first result
    leaves no file that was not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = Done()
        self.healed = ""
        self._descriptor = -1
        self._size = 0
        self._found = False
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                if self.path.exists() and not self.path.is_file():
                    raise InvalidArgument(
                        f"{self.path} is no ordinary file; results are appended to one, and read again to go on"
                    )
                stack.enter_context(FileLock(self.path))
                self.done = Done.read(self.path)
                self._found = self.path.exists()
                stack.push(self._clear)
                stack.callback(self._detach)
                self._attach()
                self._heal()
            except OSError as error:
                raise InvalidArgument(
                    f"cannot write {self.path}: {error.strerror or error}"
                ) from None
            self._open = stack.pop_all()
        return self

    def _attach(self) -> None:
        self._descriptor = os.open(self.path, _FLAGS, 0o666)
        self._size = os.fstat(self._descriptor).st_size

    def _detach(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _clear(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._found and not self._size:
            self.path.unlink(missing_ok=True)

    def _heal(self) -> None:
        if self.done.tail is None:
            return
        if self.done.tail_is_whole:
            self.write(b"\n")
            return
        self.healed = f"the last line of {self.path} was half-written: it is cut off, and its request is sent again"
        os.ftruncate(self._descriptor, self.done.tail)
        self._size = self.done.tail

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, line: bytes) -> None:
        """Append one line, whole or not at all. Raises OSError when the disk does not
        take it.
        """
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def forget_failures(self) -> None:
        """Leave out of the file all that only failed, so that it can be asked again;
        the file is replaced in one step, or not at all.
        """
        beside = self.path.with_name(self.path.name + ".tmp")
        try:
            with beside.open("wb") as file:
                file.writelines(raw for raw in _lines(self.path) if read_result(raw)[1])
                file.flush()
                os.fsync(file.fileno())
            self._detach()  # some systems replace no file that is open
            try:
                beside.replace(self.path)
            finally:
                self._attach()
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InvalidArgument(f"cannot write {self.path}: {error.strerror or error}") from None
