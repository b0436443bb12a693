"""The ledger: every admission and every refusal, in the order of their happening.

Owns: what is remembered of a call. What must never come in: deciding anything. Entries
are frozen; a call that ends replaces its entry by one that knows the usage. Safe to
read from any thread while the server runs.
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

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt as the server saw it.

    `time`, `ended`: the loop's seconds when it was admitted or refused and when its
    answer was finished (None: still running). `admitted`: it passed the buckets,
    whatever happened to it later. `requested`: tokens asked of the token bucket;
    `charge`: tokens taken at admission (0 when refused). `status`: the HTTP status, 0
    for a connection that was cut, None while it runs. `reason`: "" for an ordinary
    answer, else what went wrong: "requests", "tokens", "images" (a bucket was empty),
    "too_large", "in_flight", "slow_down", "bad_request", or the kind of an injected
    fault. `headers`: those that tell attempts apart, such as x-stainless-retry-count.
    `levels`: what each bucket had left right after the decision.
    """

    number: int
    time: float
    endpoint: str
    model: str
    key: str
    organisation: str
    project: str
    stream: bool
    admitted: bool
    reason: str
    requested: int
    charge: int
    status: int | None
    request_id: str
    usage: Usage | None = None
    ended: float | None = None
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)


class Ledger:
    """A growing list of entries that one loop writes and any thread reads."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._first = 0  # number of the oldest entry that is remembered
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
        """All entries up to now, oldest first."""
        with self._lock:
            return list(self._entries)

    @property
    def admitted(self) -> list[Entry]:
        """Those that passed the buckets."""
        return [entry for entry in self.entries() if entry.admitted]

    @property
    def refused(self) -> list[Entry]:
        """Those that did not: every one of them answered 429."""
        return [entry for entry in self.entries() if not entry.admitted and entry.status == 429]

    def clear(self) -> None:
        """Forget all entries; calls that still run are not remembered any more."""
        with self._lock:
            self._first += len(self._entries)
            self._entries.clear()

    def next_number(self) -> int:
        """The number that the next entry has to carry."""
        return self._first + len(self._entries)

    def add(self, entry: Entry) -> Entry:
        """Remember one more."""
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
        """Replace `entry` by what is known at its end; one forgotten in the meantime
        stays forgotten.
        """
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
