"""Files are replaced in one step, and stay what they were: mode, owner, links."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratelimit import InvalidArgument
from ratelimit.batch import Request, Result, files
from ratelimit.batch.files import replacement, same_file, write_whole
from ratelimit.batch.journal import Journal
from ratelimit.cli import main
from ratelimit.commands import CommandError
from ratelimit.commands.figures import check_writable, write_figures

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def line(name: str, status: int = 200) -> bytes:
    """A line of results."""
    return Result(Request(name, "chat.completions", {}), status, {}).line()


def replace(path: Path, data: bytes) -> None:
    """Give a file another content."""
    with replacement(path) as descriptor:
        write_whole(descriptor, data)


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    """Results that only their owner may read stay so."""
    path = tmp_path / "results"
    path.write_bytes(b"old")
    path.chmod(0o600)
    replace(path, b"new")

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    """What the umask says, not that of a private temporary file."""
    path, other = tmp_path / "figures", tmp_path / "other"
    replace(path, b"new")
    other.touch()

    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.skipif(not ROOT, reason="only root may give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    """Another user's results stay that user's, also where root goes on with them."""
    path = tmp_path / "results"
    path.write_bytes(b"old")
    os.chown(path, 12_345, 54_321)
    replace(path, b"new")

    assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 54_321)


def test_an_owner_that_cannot_be_kept_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right to give files away, another user's file is left as it is."""
    path, real = tmp_path / "results", os.fstat
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def mine(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[4] = 4_711
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", mine)
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(PermissionError, match="belongs to another user"):
        replace(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What a symbolic link points at is replaced, not the link."""
    place = tmp_path / "disk"
    place.mkdir()
    path, link = place / "results", tmp_path / "results"
    path.write_bytes(b"old")
    link.symlink_to(path)
    replace(link, b"new")

    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert list(place.iterdir()) == [path]


def test_a_foreign_temporary_file_is_not_followed(tmp_path: Path) -> None:
    """Nothing that somebody has put beside the file is written to."""
    path, foreign = tmp_path / "results", tmp_path / "foreign"
    path.write_bytes(line("a", 500) + line("a"))
    foreign.write_text("precious")
    (tmp_path / "results.tmp").symlink_to(foreign)
    with Journal(path) as journal:
        journal.drop_outdated()

    assert foreign.read_text() == "precious"
    assert path.read_bytes().count(b"\n") == 1


def test_a_file_of_several_names_is_refused(tmp_path: Path) -> None:
    """Replacing it would leave the other name with the old content."""
    path = tmp_path / "results"
    path.write_bytes(line("a", 500) + line("a"))
    (tmp_path / "backup").hardlink_to(path)
    with Journal(path) as journal, pytest.raises(InvalidArgument, match="2 names"):
        journal.drop_outdated()

    assert path.samefile(tmp_path / "backup")
    assert path.read_bytes().count(b"\n") == 2


def test_dropping_failures_keeps_mode_link_and_lock(tmp_path: Path) -> None:
    """The whole of it, as `--retry-failed` does it."""
    path, link = tmp_path / "results", tmp_path / "link"
    path.write_bytes(line("a") + line("b", 500))
    path.chmod(0o640)
    link.symlink_to(path)
    with Journal(link) as journal:
        journal.write(line("b"))
        journal.drop_outdated()
        with pytest.raises(InvalidArgument, match="another run"), Journal(path):
            pass

    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [json.loads(raw)["custom_id"] for raw in path.read_bytes().splitlines()] == ["a", "b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from ratelimit.batch import files

real = os.fsync
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
with files.replacement(Path(sys.argv[1])) as descriptor:
    files.write_whole(descriptor, b"new")
"""


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    """Until the new content is on the disk, the old one has the name; what was begun
    is gone after the next replacement.
    """
    path = tmp_path / "results"
    path.write_bytes(b"old")
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)  # ourselves

    assert path.read_bytes() == b"old"
    replace(path, b"newer")
    assert list(tmp_path.iterdir()) == [path]


def test_a_replacement_leaves_alone_what_another_one_has_begun(tmp_path: Path) -> None:
    """Two that are at work at once both come to their end; the last one counts. A file
    of another name, a link or a folder is no leftover.
    """
    path, other = tmp_path / "results", tmp_path / "other"
    with replacement(path) as first, replacement(other) as foreign:
        write_whole(foreign, b"foreign")
        (begun,) = (one for one in tmp_path.iterdir() if one.read_bytes() == b"")
        stem = begun.name.rpartition("-")[0]
        (tmp_path / f"{stem}-link.tmp").symlink_to(path)
        (tmp_path / f"{stem}-folder.tmp").mkdir()
        (tmp_path / f"{stem}-left.tmp").touch()
        replace(path, b"second")
        assert path.read_bytes() == b"second"
        write_whole(first, b"first")

    assert (path.read_bytes(), other.read_bytes()) == (b"first", b"foreign")
    assert {one.name for one in tmp_path.iterdir()} == {
        "results",
        "other",
        f"{stem}-link.tmp",
        f"{stem}-folder.tmp",
    }


def test_a_file_that_another_one_removes_as_a_leftover_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come between the making of a file and its lock."""
    path, opened, made = tmp_path / "results", os.open, list[Path]()

    def removed(name: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(name, flags, mode)
        if flags & os.O_EXCL:
            made.append(name)
            if len(made) == 1:
                replace(path, b"another's")
        return descriptor

    monkeypatch.setattr(os, "open", removed)
    replace(path, b"new")

    assert path.read_bytes() == b"new"
    assert len(set(made)) == 3  # one that was removed, and one of each replacement
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_locks_replaces_files_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures may be written to any disk."""

    def refuse(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    path = tmp_path / "figures"
    monkeypatch.setattr(files, "lock_descriptor", refuse)
    replace(path, b"old")
    replace(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_figures_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of an earlier run are kept until the new ones are whole."""
    path = tmp_path / "figures"
    write_figures(path, {"answered": 1})

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(CommandError, match="No space left"):
            write_figures(path, {"answered": 2})

    assert json.loads(path.read_text()) == {"answered": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_looking_whether_figures_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    """Neither a file nor a missing link, nor the end of a pipe that would wait."""
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "target")
    os.mkfifo(pipe)
    check_writable(link)
    check_writable(pipe)
    check_writable(tmp_path / "new")

    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"link", "pipe"}


def test_figures_overwrite_no_input(tmp_path: Path) -> None:
    """A slip of --json must not cost a file of requests, by whatever name."""
    path, link = tmp_path / "requests", tmp_path / "link"
    path.write_text("{}")
    link.symlink_to(path)
    for other in (path, link, tmp_path / "." / "requests"):
        with pytest.raises(CommandError, match="would overwrite"):
            check_writable(other, path)


def test_one_file_is_known_by_all_its_names(tmp_path: Path) -> None:
    """Also before it is there."""
    path, link = tmp_path / "new", tmp_path / "link"
    link.symlink_to(path)

    assert same_file(path, link)
    assert not same_file(path, tmp_path / "other")


@pytest.mark.parametrize("name", ["loop", "a" * 300, "missing/file", "file/below"])
@pytest.mark.parametrize("role", ["file", "output", "json"])
def test_a_path_that_leads_nowhere_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    role: str,
    name: str,
) -> None:
    """Circles of links, names that are too long, folders that are none."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    paths = {"file": tmp_path / "file", "output": tmp_path / "out", "json": tmp_path / "figures"}
    paths[role] = tmp_path / name
    given = (paths["file"], "-o", paths["output"], "--json", paths["json"])

    assert main(["run", *map(str, given)]) == 2
    assert f"{tmp_path / name}: " in capfd.readouterr().err


def test_a_folder_that_was_removed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As another shell does to the one in which the command is called."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    requests, gone = tmp_path / "requests", tmp_path / "gone"
    requests.touch()
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert main(["run", str(requests), "-o", "out"]) == 2
    assert main(["run", str(requests), "-o", str(tmp_path / "out"), "--json", "figures"]) == 2
    said = capfd.readouterr().err

    assert said.count("No such file or directory") == 2
    assert said.count("\n") == 2
