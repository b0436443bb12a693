"""One writer for a file of results, whatever name it is given by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratelimit import InvalidArgument
from ratelimit.batch.journal import Journal
from tests.journal_files import names, result


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    """The second is refused in a sentence, and let in when the first has ended."""
    path = tmp_path / "results"
    with Journal(path):
        with pytest.raises(InvalidArgument, match="another run is writing"), Journal(path):
            pass
        with Journal(tmp_path / "other"):
            pass
    with Journal(path) as journal:
        journal.write(result("a").line())

    assert names(path) == ["a"]


HOLD_A_JOURNAL = """
import sys, time
from pathlib import Path
from ratelimit.batch.journal import Journal

with Journal(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_holds_no_lock(tmp_path: Path) -> None:
    """The lock of a run ends with its process, also by SIGKILL, and leaves no file."""
    path = tmp_path / "results"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_JOURNAL, path], stdout=subprocess.PIPE
    ) as holder:  # ourselves
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InvalidArgument, match="another run"), Journal(path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Journal(path):
        pass

    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "relative", "dotted"])
def test_two_names_of_one_file_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A second run that names the same output in another way is kept out."""
    path, other = tmp_path / "results", tmp_path / "other"
    path.touch()
    monkeypatch.chdir(tmp_path)
    if kind == "symbolic link":
        other.symlink_to(path)
    elif kind == "hard link":
        other.hardlink_to(path)
    else:
        other = (
            Path("results") if kind == "relative" else tmp_path / ".." / tmp_path.name / "results"
        )

    with Journal(path), pytest.raises(InvalidArgument, match="another run"), Journal(other):
        pass


def test_a_file_that_was_replaced_while_it_was_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a file that has lost its name just then would keep no other run out."""
    path, real = tmp_path / "results", os.open
    path.touch()

    def late(name: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = real(name, flags, mode)
        monkeypatch.undo()
        path.unlink()  # as the last holder does, between the open and the lock
        return descriptor

    monkeypatch.setattr(os, "open", late)
    with Journal(path) as journal:
        journal.write(result("a").line())
        with pytest.raises(InvalidArgument, match="another run"), Journal(path):
            pass

    assert names(path) == ["a"]
