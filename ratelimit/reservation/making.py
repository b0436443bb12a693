"""What the arguments of a limiter's four ways to admit a call make.

Owns the reading of a request, a cost and options together, and the short way of a cost
given by hand. Must never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ratelimit.arguments import OPTIONS, body_of, cost_by_hand, similar
from ratelimit.control.engine import Engine
from ratelimit.errors import InvalidArgument, RequestTooLarge
from ratelimit.lease import AdmittedLease
from ratelimit.limits import LARGEST
from ratelimit.reservation.waiting import CallReservation, deadline_of
from ratelimit.stores.payments import Payment


def admit_by_hand(engine: Engine, tokens: object) -> AdmittedLease | None:
    """Admit one request of ``tokens`` at once, if nothing else has to be looked at.

    None: another way has to be gone. The common case without a detour
    (benchmarks/overhead.py, row "uncontended").
    """
    family = engine.unwatched
    if family is None or type(tokens) is not int or not 0 <= tokens <= LARGEST:
        return None
    admission = family.admission
    store = admission.store
    if admission.queue.entries or not store.buckets_only:
        return None
    payment = Payment({"requests": 1, "tokens": tokens}, 0.0, not family.pricing.settles)
    lease = AdmittedLease(family, payment)
    try:
        if store.take(payment, admission.now()) is not None:
            return None
    except RequestTooLarge:  # the long way finds out whether that is sure
        return None
    if payment.evidence is not None:
        return lease.deliver()
    payment.delivered = True
    return lease


def reservation_of(
    engine: Engine,
    request: Mapping[str, Any] | None,
    body: dict[str, Any],
    price: tuple[float | None, float | None, Mapping[str, float] | None],
    timeout: float | None,
    priority: str | float,
    endpoint: str | None,
    tenant: str | None = None,
) -> CallReservation:
    """Return what `reserve` makes of its arguments.

    :param price: ``tokens``, ``requests`` and ``cost``.
    """
    for name in body:
        meant = similar(name, OPTIONS)
        if meant is not None:
            raise InvalidArgument(
                f"there is no option {name}=; did you mean {meant}=? A field of the request "
                "body that is really called so goes into the body's mapping"
            )
    nothing = request is None and not body  # no body and no cost: one request, no tokens
    explicit = price != (None, None, None)
    if explicit and (request is not None or body.keys() - {"model"}):
        raise InvalidArgument(
            "give the request body or its cost (tokens=, requests=, cost=), not both"
        )
    deadline_of(timeout, 0.0)  # what is wrong with it is said before anything waits
    by_hand = explicit or nothing
    made = CallReservation(
        engine,
        body if by_hand else body_of(request, body),
        explicit_cost=cost_by_hand(*price) if by_hand else None,
        timeout=timeout,
        patience=engine.patience(priority),
        endpoint=endpoint,
    )
    return made if tenant is None else made.of(engine.tenant(tenant))


def calls_of(
    engine: Engine, timeout: float | None, priority: str | float, tenant: str | None
) -> Callable[[Mapping[str, Any], str], CallReservation]:
    """Return what makes the reservation of a body, for a decorated function's name."""
    deadline_of(timeout, 0.0)
    patience, tenant = engine.patience(priority), engine.tenant(tenant)

    def reserving(body: Mapping[str, Any], site: str) -> CallReservation:
        call = CallReservation(engine, body, timeout=timeout, patience=patience, site=site)
        return call.of(tenant) if tenant else call

    return reserving
