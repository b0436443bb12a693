"""The ledger: every admission and every refusal, in the order in which they happen.

Owns the record of each call. Must never decide anything. Entries are frozen; when a
call ends, its entry is replaced by one with its usage. Safe to read from any thread
while the server runs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Entry", "Ledger", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call is billed, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Those of the prompt that were read from the cache."""
    cache_write_tokens: int = 0
    """Those of the prompt that were written to the cache."""
    reasoning_tokens: int = 0
    """Those of the completion that the answer does not show."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt as the server saw it."""

    number: int
    time: float
    """The loop's seconds when it was admitted or refused."""
    endpoint: str
    model: str
    key: str
    organisation: str
    project: str
    stream: bool
    admitted: bool
    """Whether it passed the buckets, whatever happened to it later."""
    reason: str
    """"" for an ordinary answer, else what went wrong: "requests", "tokens", "images"
    (a bucket was empty), "too_large", "in_flight", "slow_down", "bad_request",
    "aborted", or the kind of an injected fault.
    """
    requested: int
    """Tokens that it asked of the token bucket."""
    charge: int
    """Tokens taken at admission, 0 when it was refused."""
    status: int | None
    """The HTTP status, 0 for a connection that was cut, None while it runs."""
    request_id: str
    usage: Usage | None = None
    """As billed, whatever a fault has shown instead."""
    ended: float | None = None
    """The loop's seconds when its answer was finished, None while it runs."""
    message: str = ""
    """The sentence of a refusal or failure."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that distinguish attempts, such as x-stainless-retry-count."""
    levels: Mapping[str, float] = field(default_factory=dict)
    """What each bucket had left right after the decision."""


class Ledger:
    """A growing list of entries that one loop writes and any thread reads."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._first = 0  # number of the oldest entry in the list
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries())

    def __getitem__(self, index: int) -> Entry:
        with self._lock:
            return self._entries[index]

    def __repr__(self) -> str:
        entries = self.entries()
        admitted = sum(entry.admitted for entry in entries)
        return f"<Ledger: {admitted} admitted, {len(entries) - admitted} refused>"

    def entries(self) -> list[Entry]:
        """Return all entries up to now, oldest first."""
        with self._lock:
            return list(self._entries)

    @property
    def admitted(self) -> list[Entry]:
        """The entries of calls that passed the buckets."""
        return [entry for entry in self.entries() if entry.admitted]

    @property
    def refused(self) -> list[Entry]:
        """The entries of calls that did not pass and were answered with a 429."""
        return [entry for entry in self.entries() if not entry.admitted and entry.status == 429]

    def clear(self) -> None:
        """Drop all entries, those of calls that still run included."""
        with self._lock:
            self._first += len(self._entries)
            self._entries.clear()

    def next_number(self) -> int:
        """Return the number that the next entry has to carry."""
        return self._first + len(self._entries)

    def add(self, entry: Entry) -> Entry:
        """Append an entry and return it."""
        with self._lock:
            self._entries.append(entry)

        return entry

    def finish(
        self,
        entry: Entry,
        *,
        status: int,
        usage: Usage | None,
        ended: float,
        reason: str = "",
        message: str = "",
    ) -> None:
        """Replace `entry` by what is known at its end, unless it was dropped since."""
        known = replace(
            entry,
            status=status,
            usage=usage,
            ended=ended,
            reason=reason or entry.reason,
            message=message,
        )
        with self._lock:
            index = entry.number - self._first
            if index >= 0:
                self._entries[index] = known
