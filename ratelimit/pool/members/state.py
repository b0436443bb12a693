"""What is stored on which server: responses, conversations, files and their like.

Owns the ids that answers have shown, by member, and the ids that a call names. Must
never choose a member, change a body or import an HTTP library.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ratelimit.integrations.metering import Decompressor

MOST: Final = 100_000
"""Ids that are kept, the last used; a call that names another one is tried where it may
go, one member after the other.
"""

_PREFIX: Final = (
    "(?:resp|conv|file|batch|vs|vsfb|cntr|asst|assistant|thread|run|upload|ftjob|eval"
    "|rs|msg|pmpt|chatcmpl|video)[-_]"
)
"""How the ids of what OpenAI and Azure store begin."""

_ID: Final = re.compile(rf'"id"\s*:\s*"({_PREFIX}[A-Za-z0-9_-]{{4,120}})"'.encode())
_FIRST_ID: Final = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_-]{5,120})"')
"""The first id of an answer is the stored object's, whatever it begins with."""

_IN_PATH: Final = re.compile(_PREFIX + r"[\w-]{4,120}|[0-9a-f]{8}-[0-9a-f-]{27}")

_BORDER: Final = 200
"""Bytes of a piece that are read once more with the next: an id may be cut in two."""

STORING: Final = frozenset(
    {
        "responses",
        "conversations",
        "files",
        "uploads",
        "batches",
        "vector_stores",
        "containers",
        "assistants",
        "threads",
        "fine_tuning",
        "evals",
        "videos",
    }
)
"""Collections of which the server keeps what is made in them."""

_NAMING: Final = frozenset(
    {
        "previous_response_id",
        "conversation",
        "file_id",
        "file_ids",
        "input_file_id",
        "training_file",
        "validation_file",
        "vector_store_ids",
        "container",
        "container_id",
        "assistant_id",
        "thread_id",
        "batch_id",
        "prompt",
    }
)
"""Fields of a body that name what is stored, by its id or by an object with one."""

_DEEPEST: Final = 8
_MOST_LOOKED_AT: Final = 10_000


class Stored:
    """Which member keeps what, by id."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, found: str, member: str) -> None:
        """Take note that a member has shown this id."""
        with self._lock:
            self._of[found] = member
            self._of.move_to_end(found)
            while len(self._of) > MOST:
                self._of.popitem(last=False)

    def member_of(self, named: str) -> str | None:
        """Return the name of the member that keeps it; None: not known."""
        with self._lock:
            member = self._of.get(named)
            if member is not None:
                self._of.move_to_end(named)
            return member


def ids_in_path(path: str) -> list[str]:
    """Return the ids that a path below the base URL names."""
    return [part for part in path.split("/") if _IN_PATH.fullmatch(part)]


def stores(path: str) -> bool:
    """Return whether answers below this path, below the base URL, show such ids."""
    return path.strip("/").partition("/")[0] in STORING


def ids_in_body(body: Mapping[str, Any]) -> list[str]:
    """Return the ids of what a body names instead of holding it."""
    return list(dict.fromkeys(_ids(body, 0, [0])))


def _ids(value: object, depth: int, looked: list[int]) -> Iterator[str]:
    looked[0] += 1
    if depth > _DEEPEST or looked[0] > _MOST_LOOKED_AT:
        return
    if isinstance(value, Mapping):
        kind = value.get("type")
        refers = kind == "item_reference" or (kind == "reasoning" and "id" in value)
        if refers and isinstance(value.get("id"), str):
            yield value["id"]
        for name, inner in value.items():
            if name in _NAMING and (name != "prompt" or isinstance(inner, Mapping)):
                yield from _named(inner)
            if isinstance(inner, (Mapping, list)):
                yield from _ids(inner, depth + 1, looked)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, (Mapping, list)):
                yield from _ids(inner, depth + 1, looked)


def _named(value: object) -> Iterator[str]:
    """Yield the id, or ids, that the value of such a field is."""
    if isinstance(value, Mapping):
        value = value.get("id")
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str) and re.fullmatch(r"[\w-]{5,120}", each):
            yield each


class IdMeter:
    """Reads the ids in an answer while it passes.

    :param coding: the answer's content-encoding.
    """

    def __init__(self, stored: Stored, member: str, coding: str) -> None:
        self._stored = stored
        self._member = member
        readable = coding.strip().lower() in {"gzip", "x-gzip", "deflate"}
        self._inflate = Decompressor() if readable else None
        self._rest = b""
        self._has_first = False

    def pass_on(self, piece: bytes) -> None:
        """Read a piece on its way."""
        plain = bytes(piece) if self._inflate is None else self._inflate.feed(bytes(piece))
        text = self._rest + plain
        if not self._has_first:
            first = _FIRST_ID.search(text)
            if first is not None:
                self._has_first = True
                self._stored.keep(first[1].decode("ascii"), self._member)
        for found in _ID.finditer(text):
            self._stored.keep(found[1].decode("ascii"), self._member)
        self._rest = text[-_BORDER:]

    def end(self, *, complete: bool = False) -> None:
        """Nothing is settled at the end of a body here."""

    def break_off(self) -> None:
        """Nothing is settled where a body broke off either."""
