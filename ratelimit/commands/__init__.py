"""The commands behind `ratelimit`: one file each, and what they share.

Owns `CommandError`, the one way for a command to say that its input will not do, and
the look at an output file before the work. Must never come in: anything the library
itself needs.
"""

from __future__ import annotations

from pathlib import Path


class CommandError(Exception):
    """What was given cannot be used; the message is the one sentence the user sees. The
    exit status is 2.
    """


def check_writable(path: Path | None) -> None:
    """Say now, not after a minute of work, that a file cannot be written; leave behind
    no file that was not there.
    """
    if path is None:
        return
    existed = path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from None
