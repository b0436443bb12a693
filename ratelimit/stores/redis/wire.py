"""What a process and the script tell each other, as bytes.

Owns the layout of a step, of its reply, and of what a process knows of a quota. Must
never connect or calculate a level. `step.lua` is the other end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from ratelimit.limits import Limits
from ratelimit.stores.bucket import Bucket
from ratelimit.stores.written import text_of

LONGEST_ID: Final = 100
"""Bytes of a process's name, at most."""

_HEAD: Final = struct.Struct("<ddddddddd")
_CHANGE: Final = struct.Struct("<BBdd")
_CALL: Final = struct.Struct("<ddBddB")
_AMOUNT: Final = struct.Struct("<Bd")
_BUCKET: Final = struct.Struct("<Bdddd")
_SIZE: Final = struct.Struct("<I")
_REPLY: Final = struct.Struct("<B14d")
_GRANT: Final = struct.Struct("<ddd")

GIVE, CORRECT, CLOSE, CAP, REVERT, SPEND, OWE, REPLACE = range(1, 9)
"""The kinds of changes, as the script numbers them."""

OTHER: Final = 2
"""The script's answer to a value of another program, or of another version."""
SEEDED, KEEPS_TICKET, ENDS = 1, 2, 4


class Names:
    """The dimensions that one step mentions, by the numbers it gives them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a dimension."""
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def packed(self) -> bytes:
        """Return all names so far, in order."""
        parts = [bytes((len(self._numbers),))]
        for name in self._numbers:
            encoded = name.encode()[:255]
            parts += (bytes((len(encoded),)), encoded)
        return b"".join(parts)


class Change(NamedTuple):
    """One thing that a process changes in the shared numbers."""

    kind: int
    name: str = ""
    """The dimension."""
    first: float = 0.0
    second: float = 0.0
    until: float | None = None
    """A moment of the caller's clock that goes as seconds from now, as the last figure
    but for `CLOSE`, where it is the first.
    """
    limits: Limits | None = None
    """What `REPLACE` holds from now on; with a first figure of 1 they were given."""

    def packed(self, names: Names, now: float) -> bytes:
        """Return the change as the script reads it."""
        first, second = self.first, self.second
        if self.until is not None:
            seconds = self.until - now
            first, second = (seconds, 0.0) if self.kind == CLOSE else (first, seconds)
        head = _CHANGE.pack(self.kind, names.number(self.name) if self.name else 0, first, second)
        return head if self.limits is None else head + packed_limits(self.limits, names)


class Call(NamedTuple):
    """One call that asks to be admitted; times are in seconds from now."""

    rank: float
    latest: float
    lent: bool
    """Whether it uses the concurrency slot of a call around it."""
    deferred: float
    around: float
    """What the calls that it is nested in have deferred."""
    amounts: Mapping[str, float]

    def packed(self, names: Names) -> bytes:
        """Return the call as the script reads it."""
        amounts = self.amounts
        head = _CALL.pack(
            self.rank, self.latest, self.lent, self.deferred, self.around, len(amounts)
        )
        return head + b"".join(
            [_AMOUNT.pack(names.number(name), amount) for name, amount in amounts.items()]
        )


class Own(NamedTuple):
    """What a process tells of itself with each step."""

    id: bytes
    """Of the store in it: the host, the process and what nobody else has."""
    number: int
    """Of the step: one that comes twice is taken once."""
    birth: float
    """When the quota was made that it knows, by the server's clock; 0: none."""
    version: float
    """Of the limits that it knows."""
    elapsed: float
    """Seconds since it asked for the latest reply that it has."""
    slack: float
    first_slack: float
    in_flight: int
    borrowing: int
    deferred: float


class Seed(NamedTuple):
    """What a process knows, for a quota that is new or was emptied."""

    closed: float
    """Seconds for which nobody is admitted."""
    given: bytes
    """The limits that were given, as text."""
    limits: Limits
    owed: Sequence[float]
    """Seconds after which each bucket is full."""


def _sized(text: bytes) -> bytes:
    return _SIZE.pack(len(text)) + text


def packed_limits(limits: Limits, names: Names, owed: Sequence[float] = ()) -> bytes:
    """Return limits as the script reads them."""
    parts = [_sized(text_of(limits)), struct.pack("<dB", limits.concurrency or 0, len(limits))]
    for place, limit in enumerate(limits):
        parts.append(
            _BUCKET.pack(
                names.number(limit.name),
                limit.amount,
                limit.per,
                Bucket(limit).burst,
                owed[place] if owed else 0.0,
            )
        )
    return b"".join(parts)


def packed_step(
    own: Own,
    changes: Iterable[Change],
    calls: Sequence[Call],
    now: float,
    *,
    seed: Seed | None = None,
    keeps_ticket: bool = False,
    ends: bool = False,
) -> bytes:
    """Return one step as the script reads it.

    :param now: the time it is, in seconds of the caller's clock.
    """
    names = Names()
    seeded = b""
    if seed is not None:
        seeded = struct.pack("<d", seed.closed) + _sized(seed.given)
        seeded += packed_limits(seed.limits, names, seed.owed)
    packed = [change.packed(names, now) for change in changes]
    asked = [call.packed(names) for call in calls]
    flags = SEEDED * (seed is not None) + KEEPS_TICKET * keeps_ticket + ENDS * ends
    return b"".join(
        (
            bytes((len(own.id),)),
            own.id,
            _HEAD.pack(*own[1:]),
            bytes((flags,)),
            names.packed(),
            seeded,
            struct.pack("<H", len(packed)),
            *packed,
            bytes((len(asked),)),
            *asked,
        )
    )


class Grant(NamedTuple):
    """One call that was admitted."""

    delay: float
    """Seconds until it may go."""
    serial: int
    in_flight: int
    marks: Sequence[float]
    """When each bucket is full right after it, less what was corrected, by the server's
    clock.
    """


class Reply(NamedTuple):
    """What the script answers; moments are seconds of its clock."""

    now: float
    birth: float
    version: float
    saved: float
    """When somebody was there before; 0: the quota was made now."""
    closed: float
    cap: int
    cap_until: float
    admitted: int
    in_flight: int
    """Of the other processes, like the next two."""
    borrowing: int
    deferred: float
    processes: int
    """With calls in the last seconds, this one included."""
    waiting: int
    """Other processes with a head that waits."""
    wait: float
    """Seconds after which the first call that was not admitted should ask again; below
    zero: all were admitted.
    """
    columns: Sequence[Sequence[float]]
    """``full_at``, ``corrected`` and ``lowered_until`` of each bucket."""
    grants: Sequence[Grant]
    texts: tuple[bytes, bytes] | None
    """The limits that are held and those that were given, if they are new to us."""


def reply_of(data: bytes) -> Reply | None:
    """Return what the script has answered; None: it wants to know what we know.

    Raises `ValueError` where something else stands in the place of the quota.
    """
    if data[0] == OTHER:
        raise ValueError("what stands under its key is no quota of this version")
    if data[0]:
        return None
    _, now, birth, version, saved, closed, cap, cap_until, admitted, *rest = _REPLY.unpack_from(
        data
    )
    in_flight, borrowing, deferred, processes, waiting, wait = rest
    at = _REPLY.size
    buckets = data[at]
    figures = struct.unpack_from(f"<{3 * buckets}d", data, at + 1)
    at += 1 + 24 * buckets
    count, marked = data[at : at + 2]
    at += 2
    grants = []
    for _ in range(count):
        delay, serial, flying = _GRANT.unpack_from(data, at)
        marks = struct.unpack_from(f"<{marked}d", data, at + _GRANT.size)
        grants.append(Grant(delay, int(serial), int(flying), marks))
        at += _GRANT.size + 8 * marked
    texts = None
    if at < len(data):
        (size,) = _SIZE.unpack_from(data, at)
        held = data[at + 4 : at + 4 + size]
        texts = held, data[at + 8 + size :]
    return Reply(
        now,
        birth,
        version,
        saved,
        closed,
        int(cap),
        cap_until if cap > 0 else inf,
        int(admitted),
        int(in_flight),
        int(borrowing),
        deferred,
        int(processes),
        int(waiting),
        wait,
        (figures[::3], figures[1::3], figures[2::3]),
        grants,
        texts,
    )
