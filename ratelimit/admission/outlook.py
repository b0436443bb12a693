"""What a call waits for, and until when at the earliest: for events and explanations.

Owns that judgement. Must never change a queue or a store.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.admission.admission import Admission, rank_of
from ratelimit.events.records import Outlook, Reason
from ratelimit.stores.payments import NOTHING, Payment


def outlook(
    admission: Admission, payment: Payment, arrival: float, patience: float, tenant: str = ""
) -> Outlook:
    """Return what a call would wait for that joined the queue then."""
    rank = rank_of(payment, arrival, patience)
    position = admission.queue.in_front_of(rank, tenant)
    return outlook_at(admission, payment, position, admission.queue.ahead_of(rank, tenant))


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
    if limit is None:
        return Outlook(reason, None, position, predicted, None, None)
    level = store.levels(now).get((limit.name, limit.per))
    return Outlook(reason, limit, position, predicted, amounts.get(limit.name, 0.0), level)
