"""How one family of models reports: its name, its clock and the hooks of its limiter.

Owns how a refusal becomes a record, and what helps against it, in words. Must never
look at a bucket or at bytes of an answer: figures are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ratelimit.events.delivery import Hooks
from ratelimit.events.records import (
    Event,
    LimitsChanged,
    Refused,
    Source,
    StoreBack,
    StoreLost,
    masked,
    name_of,
)
from ratelimit.events.sentences import label_of
from ratelimit.feedback import Refusal
from ratelimit.limits import Limit, Limits

_OVERLOADED: Final = "Nothing to do here: calls go on by themselves."
_SLOW_DOWN: Final = (
    "The rate grew faster than this server allows. If it goes on, allow less at once: "
    "burst_share=1/60."
)
_NO_LIMITS: Final = (
    "No limits are known here: give yours, RateLimiter(rpm=..., tpm=...), so that calls wait "
    "before they are refused."
)
_OTHER_LIMIT: Final = (
    "No limit of that kind is known here: add the one that the provider's console names, "
    "limits=Limits(...)."
)
_LOWER: Final = (
    "The server's limit is lower than the one held here; the lower one is held from now on. "
    "Give it to RateLimiter(...), so that it holds from the start."
)
_UNNAMED: Final = (
    "The server does not say which limit. Look whether all calls pass by this limiter, and at "
    "the limits in the provider's console; where they are calls in flight, give concurrency=."
)
_SHARED: Final = (
    "Here there was room, so something else spends the same limit: calls that pass by this "
    "limiter, another process, or another user of the key. Send all by clients of this limiter, "
    "or give it a share of the limit."
)
_USED_UP: Final = (
    "The estimate was too low, or the server still keeps what earlier calls did not use. If it "
    'goes on, lower burst_share=, or say accounting="never_refund".'
)


class Believed(NamedTuple):
    """What was known here of the limit that a refusal is about, before it came."""

    limit: Limit | None
    """None where no such limit is held."""
    level: float | None
    """In the limit's unit, like ``needs``."""
    needs: float
    """What the refused call has taken of it."""
    any_limits: bool
    """Whether any limit at all is held."""
    in_flight: int
    """Calls, the refused one included."""


def remedy(refusal: Refusal, believed: Believed) -> str:
    """Return what helps against a refusal, in one or two sentences of this package."""
    limit, level = believed.limit, believed.level
    if refusal.advice or refusal.overloaded:
        return refusal.advice or _OVERLOADED
    if refusal.slow_down:
        return _SLOW_DOWN
    if not believed.any_limits:
        return _NO_LIMITS
    if limit is None or level is None:
        return _OTHER_LIMIT if refusal.kind else _UNNAMED
    if refusal.limit is not None and refusal.limit < limit.amount:
        return _LOWER
    return _SHARED if level > max(believed.needs, 0.1 * limit.amount) else _USED_UP


def refused_limit(refusal: Refusal, held: Limit | None = None) -> str | None:
    """Return the label of the limit that a refusal is about; None: it does not say.

    :param held: that limit as it is held here: it has a period where none is named.
    """
    kind, period = refusal.kind, refusal.period or (held and held.per)
    return kind and name_of(label_of(kind, period) if period else kind)


class Reports:
    """What one family of models says of itself.

    :param now: the limiter's clock.
    """

    __slots__ = ("_family", "_hooks", "_now", "sources")

    def __init__(self, hooks: Hooks, family: str, now: Callable[[], float]) -> None:
        self.sources: dict[Limit, tuple[Source, float]] = {}
        """Where each limit that holds and was not given comes from, and since when."""
        self._hooks = hooks
        self._family = family
        self._now = now

    def wants(self, kind: type[Event]) -> bool:
        """Return whether anybody has a use for events of this kind now."""
        return self._hooks.wants(kind, self._family)

    def put(self, kind: type[Event], *, model: str = "", **fields: Any) -> None:
        """Report something; see `ratelimit.events.records` for its fields."""
        self._hooks.put(kind(at=self._now(), family=self._family, model=name_of(model), **fields))

    def outage(self, reason: str, seconds: float) -> None:
        """Report that the shared store is lost, or with no reason that it is back."""
        if reason and self.wants(StoreLost):
            self.put(StoreLost, reason=masked(reason))
        elif not reason and self.wants(StoreBack):
            self.put(StoreBack, seconds=seconds)

    def limits(self, before: Limits, after: Limits, source: Source, model: str = "") -> None:
        """Report the limits that hold now, unless they are the same."""
        now, kept, known = self._now(), set(before), self.sources
        fresh = {limit: (source, now) for limit in after if limit not in kept}
        self.sources = {limit: known[limit] for limit in after if limit in known} | fresh
        if before != after and self.wants(LimitsChanged):
            self.put(LimitsChanged, model=model, before=before, after=after, source=source)

    def refusal(
        self,
        refusal: Refusal,
        model: str,
        believed: Believed,
        pause: float | None,
        waiting: int,
        refusals: int,
    ) -> None:
        """Report a refusal; see `Refused` for what is handed in."""
        limit = believed.limit
        self.put(
            Refused,
            model=model,
            limit=refused_limit(refusal, limit),
            code=name_of(refusal.code),
            server_limit=refusal.limit,
            server_used=refusal.used,
            server_wait=refusal.wait,
            believed_level=believed.level,
            believed_limit=limit and limit.amount,
            in_flight=believed.in_flight,
            waiting=waiting,
            pause=pause or 0.0,
            final=refusal.hopeless,
            overloaded=refusal.overloaded,
            slow_down=refusal.slow_down,
            refusals=refusals,
            remedy=remedy(refusal, believed),
        )
