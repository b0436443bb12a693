"""What a call waits for, and until when at the earliest: for events and explanations.

Owns that judgement. Must never change a queue or a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ratelimit.admission.admission import Admission, rank_of
from ratelimit.limits import Limit
from ratelimit.stores.payments import NOTHING, Payment

Reason = Literal["limit", "pause", "concurrency", "first_answer", "queue"]


class Outlook(NamedTuple):
    """Why a call waits."""

    reason: Reason
    limit: Limit | None
    """The limit for which it waits longest."""
    position: int
    """Calls in front."""
    predicted: float | None
    """Seconds until it can go at the earliest, if nothing is given back before; None
    where it waits for another call to end.
    """
    needs: float | None
    """What it needs of that limit, in its unit, like ``level``."""
    level: float | None


def outlook(admission: Admission, payment: Payment, arrival: float, patience: float) -> Outlook:
    """Return what a call would wait for that joined the queue then."""
    rank = rank_of(payment, arrival, patience)
    position = admission.queue.in_front_of(rank)
    return outlook_at(admission, payment, position, admission.queue.ahead_of(rank))


def outlook_at(
    admission: Admission,
    payment: Payment,
    position: int = 0,
    ahead: Mapping[str, float] = NOTHING,
) -> Outlook:
    """Return what a call at a position waits for.

    :param ahead: what the calls in front certainly take, summed.
    """
    store, now = admission.store, admission.now()
    amounts, deferred = payment.amounts, payment.deferred
    predicted: float | None = max(store.moment(amounts, deferred, ahead) - now, 0.0)
    limit = store.latest(amounts, deferred, ahead)
    reason: Reason = "limit" if predicted else "queue"
    if store.full:
        reason, predicted = "first_answer" if store.alone else "concurrency", None
    elif store.closed_until > now:
        reason = "pause"
    elif not predicted and not position and deferred:
        predicted = None  # for what calls in flight have deferred
        reason = "limit"
    needs = None if limit is None else amounts.get(limit.name, 0.0)
    levels = {} if limit is None else store.levels(now)
    level = levels.get((limit.name, limit.per)) if limit is not None else None
    return Outlook(reason, limit, position, predicted, needs, level)
