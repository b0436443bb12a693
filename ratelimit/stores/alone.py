"""What a process does while the store that it shares is lost.

Owns that choice and what the outage has cost. Must never open or read a store.

* "local": it goes on with its fair share of each limit, by the number of processes that
  were seen last: all of them together stay within the limits. What it spends meanwhile
  is debited when the store is back.
* "raise": each call raises `StoreUnavailable`.
* "open": each call goes, without limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

from ratelimit.errors import InvalidArgument, StoreUnavailable, caution
from ratelimit.limits import Limit, Limits
from ratelimit.stores.payments import Payment, Wait

OnStoreError = Literal["local", "raise", "open"]

OnOutage = Callable[[str, float], object]
"""Takes why the store was lost, or "" when it is back, and after how many seconds."""

ASK_SECONDS: Final = 1.0
"""Seconds after which a lost store is looked for again."""


class Alone:
    """What one process does without its store.

    :param policy: as ``on_store_error=`` names it. Raises `InvalidArgument` for any
        other.
    """

    def __init__(self, policy: OnStoreError) -> None:
        if policy not in get_args(OnStoreError):
            names = ", ".join(map(repr, get_args(OnStoreError)))
            raise InvalidArgument(f"on_store_error= is one of {names}, not {policy!r}")
        self._policy = policy
        self._reason = ""
        self._warned = False
        self._full_at: list[float] = []
        self.processes = 1
        """How many processes shared the quota when the store was lost."""
        self._lost_at = 0.0
        self.on_change: OnOutage = lambda _, __: None
        self.again_at = 0.0
        """When to look for the store again, in seconds of the caller's clock."""

    def begin(self, error: Exception, full_at: list[float], processes: int, now: float) -> None:
        """Go on without the store.

        :param full_at: when each bucket is next full, as the store and this process
            know it; like ``now`` in seconds of the caller's clock.
        :param processes: how many share the quota, this one included.
        """
        self._reason = str(error)
        self._full_at = full_at
        self.processes = processes
        self.again_at = now + ASK_SECONDS
        self._lost_at = now
        self.on_change(self._reason, 0.0)

    def end(self, now: float) -> None:
        """Go on with the store again."""
        self.on_change("", now - self._lost_at)

    def warn(self) -> None:
        """Say once that the store is lost, and what follows."""
        if not self._warned:
            self._warned = True
            reason = self._reason
            caution(f"the shared store is lost ({reason}): {self._consequence()}", stacklevel=2)

    def _consequence(self) -> str:
        if self._policy == "raise":
            return "calls raise StoreUnavailable until it is back"
        if self._policy == "open":
            return "calls go without limits until it is back"
        return f"this process goes on with 1/{self.processes} of each limit until it is back"

    def take(
        self, payment: Payment, now: float, take: Callable[[Payment, float], Wait | None]
    ) -> Wait | None:
        """Admit a call without the store; ``take`` uses this process's buckets."""
        if self._policy == "raise":
            raise StoreUnavailable(
                f"the shared store is lost: {self._reason}; mend it, or give "
                'on_store_error="local" to go on with a share of the limits'
            )
        if self._policy == "open":
            payment.amounts, payment.deferred = {}, 0.0
        return take(payment, now)

    def share(self, limits: Limits) -> Limits:
        """Return the limits of one process: as large a call fits, at a lower rate.

        A bucket of them is next full at the same moment as the shared one.
        """
        count = self.processes
        shares = [
            Limit(one.name, one.amount, one.per * count, (one.burst or one.amount) / count)
            for one in limits
        ]
        return Limits(*shares, concurrency=limits.concurrency)

    def slots(self, concurrency: int) -> int | None:
        """Return how many calls one process may have in flight; None: any number."""
        return None if self._policy == "open" else max(concurrency // self.processes, 1)

    def spent(self, full_at: list[float], now: float) -> list[float]:
        """Return the seconds by which calls of the outage move each shared bucket."""
        pairs = zip(full_at, self._full_at, strict=False)
        return [max(after - max(before, now), 0.0) / self.processes for after, before in pairs]
