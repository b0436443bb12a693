"""The file of results: resumed, repaired and appended to, and never broken."""

from __future__ import annotations

import collections
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import InvalidArgument
from ratelimit.batch.journal import Done, Journal
from ratelimit.batch.requests import key_of
from tests.journal_files import names, result


def test_what_was_written_is_done(tmp_path: Path) -> None:
    """The next run knows answers and failures by their names, and later lines count."""
    path = tmp_path / "results"
    with Journal(path) as journal:
        assert journal.done.answered == journal.done.failed == set()
        for made in (result("a"), result("b", 500), result("c", None), result("c")):
            journal.write(made.line())
    with Journal(path) as journal:
        assert journal.done.answered == {key_of("a"), key_of("c")}
        assert journal.done.failed == {key_of("b")}
        assert journal.healed == ""
    assert sorted(path.parent.iterdir()) == [path]


@given(cut=st.integers(0, 2_000), rows=st.integers(1, 4))
def test_a_file_cut_anywhere_is_healed(
    tmp_path_factory: pytest.TempPathFactory, cut: int, rows: int
) -> None:
    """A run killed in the middle of a write leaves half a line: it goes, everything
    before it stays, nothing is broken.
    """
    path = tmp_path_factory.mktemp("cut") / "results"
    written = [result(f"n{number}").line() for number in range(rows)]
    whole = b"".join(written)
    left = whole[: len(whole) - cut % len(whole)]
    path.write_bytes(left)
    kept = left.count(b"\n")
    if left + b"\n" == b"".join(written[: kept + 1]):
        kept += 1  # only the line's end was missing

    with Journal(path) as journal:
        assert journal.done.answered == {key_of(f"n{number}") for number in range(kept)}
        assert bool(journal.healed) == (
            left not in {b"".join(written[:kept]), b"".join(written[:kept])[:-1]}
        )
        journal.write(result("next").line())

    assert names(path) == [f"n{number}" for number in range(kept)] + ["next"]


@pytest.mark.parametrize(
    "content",
    [
        b"my diary",
        b"my diary\n",
        b'{"id": 5}\n',
        result("a").line() + b"oops\n" + result("b").line(),
    ],
)
def test_another_file_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """A slip of -o destroys nothing: what is no file of results is neither cut nor
    appended to.
    """
    path = tmp_path / "diary"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match="no line of results"), Journal(path):
        pass

    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_costs_one_line_and_breaks_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk took of a line is taken back, so the file stays whole, and goes on
    when there is room.
    """
    path, real, room = tmp_path / "results", os.write, 500

    def write(descriptor: int, data: bytes) -> int:
        free = room - path.stat().st_size
        if free <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:free])

    with Journal(path) as journal:
        monkeypatch.setattr(os, "write", write)
        lines = [result(f"n{number}").line() for number in range(10)]
        with pytest.raises(OSError, match="No space"):
            collections.deque(map(journal.write, lines), 0)
        kept = names(path)
        room = 10_000
        journal.write(result("later").line())

    assert 1 <= len(kept) < 10
    assert names(path) == [*kept, "later"]


def test_a_line_the_system_takes_in_pieces_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write may take less than all: the rest follows at once."""
    real = os.write
    with Journal(tmp_path / "results") as journal:
        monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
        journal.write(result("a").line())
    monkeypatch.undo()

    assert names(tmp_path / "results") == ["a"]


def test_results_are_on_the_disk_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that says it is done survives a power cut."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with Journal(tmp_path / "results") as journal:
        journal.write(result("a").line())

    assert synced == [(tmp_path / "results").stat().st_size]


def test_failures_that_were_asked_again_go_in_one_step(tmp_path: Path) -> None:
    """Each name stands there once in the end, with what came last; failures that have
    no newer line stay, and appending goes on in the new file.
    """
    path = tmp_path / "results"
    with Journal(path) as journal:
        for made in (result("a"), result("b", 500), result("c", 500), result("d", None)):
            journal.write(made.line())
    with Journal(path) as journal:
        journal.write(result("b").line())
        journal.write(result("c", 429).line())
        journal.drop_outdated()
        journal.write(result("e").line())

    assert names(path) == ["a", "d", "b", "c", "e"]
    assert b'"status_code":429' in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_retry_loses_no_failure_and_is_tidied_by_the_next_run(tmp_path: Path) -> None:
    """What was not asked again is still a failure, what was has two lines, and the
    answered one counts.
    """
    path = tmp_path / "results"
    path.write_bytes(result("a", 500).line() + result("b", 500).line() + result("a").line())
    with Journal(path) as journal:
        assert len(journal.done.answered) == len(journal.done.failed) == 1
        assert journal.done.asked_again == journal.done.answered
        journal.drop_outdated()

    assert names(path) == ["b", "a"]


def test_an_answer_counts_whatever_stands_behind_it(tmp_path: Path) -> None:
    """A failure below it, as in files that were put together, costs no paid answer."""
    path = tmp_path / "results"
    path.write_bytes(
        result("a").line() + result("b", 500).line() + result("a", 500).line()
        + result("b").line() + result("b", 429).line() + result("c", 500).line()
    )  # fmt: skip
    with Journal(path) as journal:
        assert journal.done.answered == journal.done.asked_again == {key_of("a"), key_of("b")}
        assert journal.done.failed == {key_of("c")}
        journal.drop_outdated()

    assert path.read_bytes().count(b'"status_code":200') == 2
    assert names(path) == ["a", "b", "c"]


KILLED = """
import os, signal, sys
from pathlib import Path
from ratelimit.batch.journal import Journal

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(*{"synced": (os, "fsync"), "replaced": (Path, "replace")}[sys.argv[2]], kill)
with Journal(Path(sys.argv[1])) as journal:
    journal.drop_outdated()
"""


@pytest.mark.parametrize("moment", ["synced", "replaced"])
def test_killed_while_it_drops_failures_it_leaves_nothing_in_the_end(
    tmp_path: Path, moment: str
) -> None:
    """The file is as it was, and the next attempt removes the copy that was begun."""
    path = tmp_path / "results"
    path.write_bytes(result("a", 500).line() + result("b").line() + result("a").line())
    before = path.read_bytes()
    subprocess.run([sys.executable, "-c", KILLED, path, moment], check=False)  # ourselves
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    with Journal(path) as journal:
        journal.drop_outdated()

    assert names(path) == ["b", "a"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_outdated_failures_is_not_replaced(tmp_path: Path) -> None:
    """There is nothing to gain from copying it."""
    path = tmp_path / "results"
    path.write_bytes(result("a", 500).line() + result("b").line())
    before = path.stat()
    with Journal(path) as journal:
        journal.drop_outdated()

    assert path.stat().st_ino == before.st_ino
    assert names(path) == ["a", "b"]


def test_failures_stay_when_the_file_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for the new file leaves the old one."""
    path = tmp_path / "results"
    with Journal(path) as journal:
        journal.write(result("a", 500).line())

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(path) as journal, monkeypatch.context() as patch:
        journal.write(result("a").line())
        before = path.read_bytes()
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(InvalidArgument, match="No space"):
            journal.drop_outdated()

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_start_leaves_things_as_they_were(tmp_path: Path) -> None:
    """No file where there was none, an empty one where there was one; after the first
    result, and without an exception, it stays.
    """

    def left(name: str, *lines: bytes, error: type[Exception] | None) -> bool:
        with suppress(ZeroDivisionError), Journal(tmp_path / name) as journal:
            for line in lines:
                journal.write(line)
            if error is not None:
                raise error
        return (tmp_path / name).exists()

    (tmp_path / "there").touch()

    assert not left("new", error=ZeroDivisionError)
    assert left("there", error=ZeroDivisionError)
    assert left("begun", b"1\n", error=ZeroDivisionError)
    assert left("done", error=None)
    assert {path.name for path in tmp_path.iterdir()} == {"there", "begun", "done"}, (
        "no lock is left either"
    )


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (lambda path: path, "no ordinary file"),
        (lambda path: path / "nowhere" / "results", "No such file"),
        (lambda _: Path("/dev/full"), "no ordinary file"),
        (lambda _: Path("/proc/results"), "cannot write"),
    ],
    ids=["a directory", "in no directory", "a device", "where no file can be made"],
)
def test_an_output_that_cannot_be_written_is_told(
    tmp_path: Path, place: Callable[[Path], Path], expected: str
) -> None:
    """One sentence, with the name, before anything is sent."""
    path = place(tmp_path)
    with pytest.raises(InvalidArgument, match=expected) as caught, Journal(path):
        pass

    assert str(path) in str(caught.value)


def test_a_read_only_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file is there and may only be read."""
    path, real = tmp_path / "results", os.open
    path.write_bytes(result("a").line())

    def refuse(name: Any, flags: int, mode: int = 0o777) -> int:
        if name == path and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(InvalidArgument, match=r"cannot write .*results: Permission denied"),
        Journal(path),
    ):
        pass

    assert list(tmp_path.iterdir()) == [path]


def test_reading_what_is_done_changes_nothing(tmp_path: Path) -> None:
    """A dry run looks at half a line and leaves it."""
    path = tmp_path / "results"
    content = result("a").line() + result("b").line()[:30]
    path.write_bytes(content)

    assert Done.read(path).answered == {key_of("a")}
    assert path.read_bytes() == content
    assert Done.read(tmp_path / "none").answered == set()
