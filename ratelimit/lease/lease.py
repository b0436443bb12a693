"""What a call holds from its admission to its settlement.

Owns the translation of answers, refusals and exceptions into amounts, by the accounting
of the call's family. Must never wait: a lease may be settled from any thread, task,
finalizer or signal handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Never, Self

from ratelimit.control.admitted import Admitted
from ratelimit.control.family import ModelFamily
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimate
from ratelimit.events.records import Settled
from ratelimit.feedback import (
    Outcome,
    Refusal,
    Usage,
    read_exception,
    read_headers,
    read_refusal,
    read_usage,
)
from ratelimit.lease.counted import is_marked, mark
from ratelimit.limits import LARGEST, amount_of
from ratelimit.stores.payments import Payment


class Notes:
    """What is noted of a call besides its payment, made with the first note."""

    __slots__ = ("abandoned", "around", "claimed", "headers_at", "record", "waited")

    def __init__(self) -> None:
        self.claimed = False
        """Whether an HTTP attempt was sent: a retry has to be admitted by itself."""
        self.abandoned = False
        """Whether it failed, so that the call's answer belongs to another one."""
        self.headers_at: float | None = None
        """When its headers came, in seconds of the clock."""
        self.record: Admitted | None = None
        """Its admission with what was charged shortly before, for its headers."""
        self.waited = 0.0
        """For how many seconds the call has waited for its turn."""
        self.around: Any = None
        """The lease around this one, see `AdmittedLease.around`."""


class Lease:
    """One admitted call: what was paid for it, and how that is settled.

    A call ends at its first `settle`, `cancel`, `fail` or `close`, which frees its
    concurrency slot. Later figures still correct the buckets: the newest counts. A
    lease that is dropped without any of them is closed.
    """

    __slots__ = (
        "__weakref__",
        "_estimate",
        "_family",
        "_notes",
        "_over",
        "_payment",
        "_store",
    )

    def __init__(
        self, family: ModelFamily, payment: Payment, estimate: Estimate | None = None
    ) -> None:
        self._payment = payment
        self._family = family
        self._store = family.admission.store  # after a fork the family has another one
        self._estimate = estimate
        self._over = False
        self._notes: Notes | None = None

    def __del__(self) -> None:
        try:
            payment = self._payment
        except AttributeError:  # Ctrl-C came while it was made
            return
        if payment.ended or not payment.paid:
            return
        # Not delivered: Ctrl-C came after the payment, and nothing was sent.
        end = self.close if payment.delivered else self.cancel
        try:
            end()
        finally:
            if not payment.ended:  # Ctrl-C came once more: nothing else would end the call
                end()

    @property
    def cost(self) -> dict[str, float]:
        """What the call holds now, by dimension.

        What was reserved until the call is settled, then what was used.
        """
        return dict(self._payment.held)

    @property
    def waited(self) -> float:
        """For how many seconds the call has waited for its turn."""
        return 0.0 if self._notes is None else self._notes.waited

    def __repr__(self) -> str:
        held = ", ".join(f"{name}={amount:,.12g}" for name, amount in self.cost.items())
        return f"<Lease {held}, {'ended' if self._over else 'in flight'}>"

    def __copy__(self) -> Self:
        return self  # a copy would settle the same call once more

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Never:
        raise InvalidArgument(
            "a lease cannot be pickled: its call is settled in the process that has admitted it; "
            "send the usage there instead"
        )

    def settle(
        self, answer: object = None, /, *, tokens: float | None = None, **amounts: float
    ) -> None:
        """Replace the reserve by what was used; the difference goes back.

        Or is debited late, where more was used than reserved. With
        ``accounting="reconcile"`` a known admission charge is the least that stays
        debited: a server that takes a charge and does not settle keeps it. With
        "never_refund" and "charge" the reserve stays, as on such a server. Settling
        twice is allowed; the newest figure counts.

        :param answer: what carries usage: an SDK response, its ``usage``, a dict of
            either, the JSON text; or the tokens as a number.
        :param tokens: the tokens used, given by hand; other dimensions likewise by
            their names.

        Raises `InvalidArgument` on what carries no usage and on amounts that cannot be;
        then nothing has changed.
        """
        if answer is None and type(tokens) is int and 0 <= tokens <= LARGEST and not amounts:
            used: dict[str, float] = {"tokens": tokens}  # the common case of a cost by hand
        elif isinstance(answer, Usage) and tokens is None and not amounts:
            used = self._billed(answer)
        else:
            used = self._amounts(answer, tokens, amounts)
        if self._notes is not None and self._notes.abandoned:
            return
        family, admission = self._family, self._family.admission
        if family.controller.awaits_answers:
            self._note_answer()
        # As `_end`, in this frame (benchmarks/overhead.py, row "uncontended").
        self._over = True
        self._store.settle(self._payment, used if family.pricing.settles else {}, admission.now())
        if admission.queue.entries:
            admission.queue.nudge()

    def close(self) -> None:
        """End the call and keep the reserve: nothing is known of what it used."""
        if self._over and self._payment.ended:
            return
        self._end({})
        if self._payment.evidence is not None and self._estimate is not None:
            beyond = self._payment.amounts.get("tokens", 0) - self._estimate.charge
            self._family.controller.on_unsettled(max(beyond, 0))

    def cancel(self) -> None:
        """Give everything back: nothing was sent."""
        self._end(dict.fromkeys(self._payment.amounts, 0))

    def fail(self, error: BaseException) -> None:
        """End the call by an exception.

        If nothing was sent, everything goes back. A 429 pauses the queue and is
        counted. Anything else keeps the reserve, and so does a connection that could
        not be made after this call's headers were observed: it was another one. A call
        that has ended before stays as it is: the error came after it, or its headers
        have shown it already.
        """
        self._fail(error, begun=self._has_headers)

    def observe(
        self, headers: Mapping[str, str], *, status: int = 200, body: object = None
    ) -> None:
        """Take an answer's headers as soon as they are there.

        They show limits and levels, and with a status of 429 or the like a refusal.

        :param status: the answer's HTTP status.
        :param body: of a refusal: its text, bytes or decoded JSON.
        """
        if not self._family.admission.store.marking:
            self._family.controller.listen()
        refusal = read_refusal(status, headers, body)
        if refusal is not None:
            self._refuse(refusal)
        elif self._noted.headers_at is None:
            now = self._time_headers()
            self._family.controller.on_headers(self._record, read_headers(headers), now)

    def _note_answer(self) -> None:
        """Let an answer without headers tell, like any, that a refusal is over."""
        if not self._over and not self._has_headers:
            self._family.controller.on_answer(self._family.admission.now())

    @property
    def _has_headers(self) -> bool:
        """Whether headers of an answer were observed."""
        return self._notes is not None and self._notes.headers_at is not None

    @property
    def _noted(self) -> Notes:
        """The notes, made when they are first asked for."""
        if self._notes is None:
            self._notes = Notes()
        return self._notes

    def _abandon(self) -> None:
        """Leave the call's answer, if any, to another attempt; one was sent by this."""
        if self._notes is not None and self._notes.claimed:
            self._notes.abandoned = True

    @property
    def _record(self) -> Admitted:
        record = None if self._notes is None else self._notes.record
        return record or Admitted(self._payment, self._estimate)

    def _time_headers(self) -> float:
        now = self._noted.headers_at = self._family.admission.now()
        self._family.controller.on_time_to_headers(now - self._payment.admitted_at)
        return now

    def _end(self, used: dict[str, float]) -> None:
        self._over = True
        admission = self._family.admission
        self._store.settle(self._payment, used, admission.now())
        if admission.queue.entries:
            admission.queue.nudge()

    def _fail(
        self,
        error: BaseException,
        *,
        begun: bool,
        read: Callable[[BaseException], Outcome] = read_exception,
    ) -> None:
        """End the call by an exception that came before or after its answer began."""
        if self._over:
            return
        self._abandon()
        outcome = read(error)
        if outcome.kind == "nothing_sent" and not begun:
            self.cancel()
        elif outcome.refusal is not None and not self._is_counted(error, outcome.source):
            now = self._family.admission.now()
            mark(error, self._family.estimator, now)
            mark(outcome.source, self._family.estimator, now)
            self._refuse(outcome.refusal)
        else:
            self.close()

    def _is_counted(self, *errors: BaseException | None) -> bool:
        limiter, admitted_at = self._family.estimator, self._payment.admitted_at
        return any(is_marked(error, limiter, admitted_at) for error in errors)

    def _refuse(self, refusal: Refusal) -> Refusal:
        """End the call by a refusal; see `AdmittedLease.refuse`."""
        self._abandon()
        family, payment = self._family, self._payment
        refusal = family.controller.on_refusal(refusal, self._record)
        limit, used = refusal.limit, refusal.used
        kind = refusal.kind
        if limit is not None and used is not None and kind is not None and kind in payment.amounts:
            self._end({name: 0 for name in payment.amounts if name != "requests"})
            family.admission.cap_level(kind, refusal.period, limit - used)
        else:
            self.close()
        return refusal

    def _amounts(
        self, answer: object, tokens: float | None, amounts: dict[str, float]
    ) -> dict[str, float]:
        used = amounts if answer is None else {**self._read(answer), **amounts}
        if tokens is not None:
            used["tokens"] = tokens
        for name, amount in used.items():
            if type(amount) is not int or not 0 <= amount <= LARGEST:  # a usage's all are
                amount_of(amount, f"settle({name}=)")
        if not used:
            raise InvalidArgument(
                "settle() needs the answer, its usage, or amounts such as tokens=1200; to keep "
                "the reserve call close()"
            )
        return used

    def _read(self, answer: object) -> dict[str, float]:
        if isinstance(answer, (int, float)) and not isinstance(answer, bool):
            return {"tokens": answer}
        usage = read_usage(answer)
        if usage is None:
            raise InvalidArgument(
                f"settle() found no usage in a {type(answer).__name__}; pass the response, its "
                "usage, or tokens=...; the reserve is kept"
            )
        return self._billed(usage)

    def _billed(self, usage: Usage) -> dict[str, float]:
        """Return what a call took, and learn from its bill.

        A bill that cannot be says nothing of prompts, nor of what a server keeps of
        them. Of the answer's length it teaches what is debited for it.
        """
        estimate = self._estimate
        if estimate is not None and self._family.hooks.per_call:
            self._family.reports.put(
                Settled,
                model=estimate.model,
                estimated=estimate.prompt_tokens + estimate.output_tokens,
                used=usage.total_tokens,
                operation=estimate.endpoint,
            )
        if self._estimate is not None:
            most, prompt = int(self._most("tokens")), usage.prompt_tokens
            can_be = usage.total_tokens <= most and prompt <= self._most("input_tokens")
            self._family.estimator.learn(
                self._estimate,
                prompt_tokens=prompt if can_be else None,
                output_tokens=min(usage.output_tokens, most),
                response_id=usage.response_id,
                reasoning_tokens=usage.reasoning_tokens,
            )
        return self._taken(usage)

    def _taken(self, usage: Usage) -> dict[str, float]:
        """Return what the server has taken for a call of this usage."""
        prompt, output, tokens = usage.prompt_tokens, usage.output_tokens, usage.total_tokens
        estimate = self._estimate
        # A Response is settled to its usage: 80 of 80 recorded ones.
        if estimate is not None and estimate.endpoint != "responses":
            if self._payment.evidence is not None:
                self._family.controller.on_bill(tokens - estimate.charge)
            tokens = self._family.pricing.settled(prompt, output, estimate.charge)
        return {
            "tokens": min(tokens, self._most("tokens")),
            "input_tokens": min(prompt, self._most("input_tokens")),
            "output_tokens": min(output, self._most("output_tokens")),
        }

    def _most(self, name: str) -> float:
        """Return the most that is debited for one call on an answer's word.

        What was reserved, or the limit of two periods: a bill that cannot be delays the
        next calls by two periods, not for good.

        :param name: the dimension; the amount is in its unit.
        """
        limit = self._store.smallest.get(name)
        return LARGEST if limit is None else max(self._payment.amounts.get(name, 0), 2 * limit)
