"""Lines of JSON out of a file of any size, plain or gzip.

Owns reading, and the words for what cannot be read. Must never give the lines a
meaning.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from ratelimit.errors import InvalidArgument

LONGEST_LINE: Final = 100_000_000
"""Bytes. Bodies with pictures are long; a line beyond this is a disk image."""

_KINDS: Final = {list: "list", str: "string", bool: "boolean", type(None): "null"}
"""JSON's names for what is no object and no number."""


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, bytes) of every line that is not blank.

    Reads no further than asked. Raises `InvalidArgument` in words that name the file,
    and the line where there is one.
    """
    number = 0
    try:
        with ExitStack() as stack:
            file = _open(path, stack)
            while raw := file.readline(LONGEST_LINE):
                number += 1
                if len(raw) == LONGEST_LINE:
                    raise InvalidArgument(
                        f"line {number} of {path} is longer than {LONGEST_LINE:,} bytes; is this"
                        " a file with one request a line?"
                    )
                if raw.strip(b" \t\r\n\xef\xbb\xbf"):
                    yield number, raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidArgument(
            f"{path} is a broken gzip file after line {number}: {error}"
        ) from None
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror or error}") from None


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    """Open a file or a pipe until the stack ends; gzip is known by its first bytes."""
    file = stack.enter_context(path.open("rb"))
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file

    packed: Any = gzip.GzipFile(fileobj=file)  # it reads bytes like any file
    stack.callback(packed.close)
    return packed  # type: ignore[no-any-return]


def _refuse(constant: str) -> NoReturn:
    """Refuse what Python reads and writes as a number, and no server takes."""
    raise ValueError(f"{constant} is no number there")


def parse_line(raw: bytes, where: str) -> dict[str, Any]:
    """Read one line as a JSON object.

    Raises `InvalidArgument` that says what the line is instead.
    """
    try:
        line = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"{where} is not UTF-8 text; a file of requests has one JSON object a line"
        ) from None
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InvalidArgument(f"{where} is not JSON: {reason}") from None
    except RecursionError:
        raise InvalidArgument(f"{where} is nested too deeply to be a request") from None

    if not isinstance(line, dict):
        kind = _KINDS.get(type(line), "number")
        raise InvalidArgument(
            f"{where} is a JSON {kind}; it should be an object with a request body"
        )

    return line
