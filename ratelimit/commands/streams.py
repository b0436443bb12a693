"""Standard output and standard error: what they cannot take, and what they must not.

Owns what becomes of output that cannot be written (full disk, closed reader) and of
signs that cannot be shown or would command a terminal. Must never import what a bare
installation lacks, or decide the exit status.
"""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO


class OutputLost(Exception):
    """Standard output cannot be written; the message is the sentence that says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write the output: {error.strerror or error}")
        self.is_unread = isinstance(error, BrokenPipeError)
        """Whether its reader has gone, as with `| head`."""


def abandon(stream: TextIO) -> None:
    """Drop what the stream holds and will be given, so that no later flush can fail."""
    # a stream of a test's or a notebook's has no descriptor, and nothing to drop
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def accept_any_text() -> None:
    """Let both streams escape what their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Escape line breaks, and what no screen shows or a terminal would obey."""
    if text.isprintable():
        return text

    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else repr(sign)[1:-1]
        for sign in text
    )


def print_output(text: str) -> None:
    """Print a line on standard output at once; raise `OutputLost` where that fails."""
    try:
        print(printable(text), flush=True)
    except OSError as error:
        abandon(sys.stdout)
        raise OutputLost(error) from None


def flush_output() -> None:
    """Write what standard output still holds; raise `OutputLost` where that fails."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        abandon(sys.stdout)
        raise OutputLost(error) from None


def print_note(text: str) -> None:
    """Print a line on standard error, as far as anyone can read it."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:  # there is no third place to complain at
        abandon(sys.stderr)
