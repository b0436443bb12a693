"""The figures that ``--json`` asks for: looked at before the work, written after it.

Owns the two, and the refusal of a file that the command reads or writes otherwise. Must
never know what the figures mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratelimit.batch.files import place_of, replacement, same_file, write_whole
from ratelimit.commands import CommandError


def check_writable(path: Path | None, *used: Path | None) -> None:
    """Find out before the work whether figures can be written; leave no trace.

    :param used: files that the command reads or writes, none of which may be `path`.
    """
    if path is None:
        return

    for other in used:
        if other is not None and same_file(path, other):
            raise CommandError(
                f"--json {path} would overwrite {other}; give the figures a file of their own"
            )

    try:
        place = place_of(path)
        existed = place.exists()
        if existed and not place.is_file() and not place.is_dir():
            return  # a device or a pipe, such as /dev/stdout: opening it may wait or consume

        with place.open("a", encoding="utf-8"):
            pass
        if not existed:
            place.unlink()
    except OSError as error:
        raise _refused(path, error) from None


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON; a file that was there is replaced in one step.

    Raises `CommandError` where the disk refuses.
    """
    if path is None:
        return

    text = json.dumps(figures, indent=2) + "\n"
    try:
        if _is_replaceable(path):
            with replacement(path) as descriptor:
                write_whole(descriptor, text.encode())
        else:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _refused(path, error) from None


def _is_replaceable(path: Path) -> bool:
    """Return whether `path` is nothing yet, or a file of one name."""
    if not path.exists():
        return True

    return path.is_file() and path.stat().st_nlink == 1


def _refused(path: Path, error: OSError) -> CommandError:
    return CommandError(f"cannot write {path}: {error.strerror or error}")
