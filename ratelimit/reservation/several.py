"""A call that may go to several members of a pool, on its way to one lease.

Owns the order: at once where a member can pay now, else wait for the first that can.
Must never know what makes one member better than another: choices have an order, and
tell from when on they may be taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import inf
from typing import Any

from ratelimit.admission.admission import Terms
from ratelimit.admission.clock import Clock
from ratelimit.admission.queue import Queue
from ratelimit.admission.several import Place, Several
from ratelimit.control.family import ModelFamily
from ratelimit.errors import LimiterError, ReentrantUse, RequestTooLarge, WouldBlock
from ratelimit.lease import AdmittedLease
from ratelimit.lease.crossing import Inside
from ratelimit.lease.watch import Watch, count
from ratelimit.reservation.waiting import CallReservation


class Choice:
    """One member that may take a call.

    :param reservation: the call as this member's limiter admits it.
    """

    def __init__(self, reservation: CallReservation) -> None:
        self.reservation = reservation
        self._lease: AdmittedLease | None = None
        self._place: Place | None = None
        self._error: LimiterError | None = None

    def order(self) -> Any:
        """Return what choices are looked at by, the lowest first."""
        raise NotImplementedError

    def opens(self, now: float) -> float:
        """Return from when on the call may go there: in the past, or later than now."""
        raise NotImplementedError

    @property
    def family(self) -> ModelFamily:
        """The family of models that the call belongs to there."""
        raise NotImplementedError

    @property
    def error(self) -> LimiterError | None:
        """Why this member can never take the call, if so."""
        return self._error or (None if self._place is None else self._place.error)

    @property
    def is_estimated(self) -> bool:
        """Whether the call's lease there was made."""
        return self._lease is not None

    @property
    def lease(self) -> AdmittedLease:
        """The call's lease there, unpaid until it goes there."""
        if self._lease is None:
            self._lease = self.reservation.unpaid()
        return self._lease

    async def estimate(self) -> None:
        """Make the lease; a big prompt is counted in a worker thread."""
        if self._lease is None:
            self._lease = await self.reservation.unpaid_async()

    def pays_now(self) -> bool:
        """Pay if nobody has to be waited for."""
        try:
            return self.reservation.try_admit(self.lease, waits=True) is None
        except RequestTooLarge as error:
            self._error = error
            return False

    def place(self, block: ExitStack) -> Place:
        """Return where the call waits for this member.

        :param block: is left when the wait is over.
        """
        lease = self.lease
        inside = Inside(lease)
        family = lease.family
        before = family.preparing(self.reservation.terms(lease, inside))

        def prepare() -> float:
            try:
                return before()
            except ReentrantUse as error:
                place.error = error
                return inf

        place = self._place = Place(
            family.admission,
            lease.payment,
            order=self.order,
            opens=self.opens,
            prepare=prepare,
            retracts=family.retracts,
        )
        try:
            block.enter_context(inside)
        except ReentrantUse as error:
            place.error = error
        return place


class FirstOf:
    """A call that goes to the first of its choices that can pay.

    :param choices: at least one.
    :param queue: of all calls with the same choices.
    :param terms: by what it waits.
    """

    def __init__(self, choices: Sequence[Choice], queue: Queue, clock: Clock, terms: Terms) -> None:
        self._choices = choices
        self._queue = queue
        self._clock = clock
        self._terms = terms

    def admit(self) -> Choice:
        """Wait in the calling thread; return the choice that was paid."""
        try:
            found = next((choice for choice in self._open() if self._pays(choice)), None)
            if found is None:
                self._refuse_if_hopeless()
                with ExitStack() as block:
                    several, watch = self._several(block)
                    found = self._paid(several.admit(self._terms), watch)
        except BaseException as error:
            self._refused(error)
            raise
        return self._handed_out(found)

    async def admit_async(self) -> Choice:
        """Wait in the calling task; return the choice that was paid."""
        found = None
        try:
            for choice in self._open():
                await choice.estimate()
                if self._pays(choice):
                    found = choice
                    break
            if found is None:
                self._refuse_if_hopeless()
                for choice in self._choices:
                    await choice.estimate()
                with ExitStack() as block:
                    several, watch = self._several(block)
                    found = self._paid(await several.admit_async(self._terms), watch)
        except BaseException as error:
            self._refused(error)
            raise
        return self._handed_out(found)

    def admit_now(self) -> Choice:
        """Return the choice that can pay at once, or raise `WouldBlock`."""
        found = next((choice for choice in self._open() if self._pays(choice)), None)
        if found is None:
            self._refuse_if_hopeless()
            raise WouldBlock("no member of the pool has capacity now")
        return self._handed_out(found)

    def _open(self) -> Iterator[Choice]:
        """Yield the choices that the call may take now."""
        for choice in sorted(self._choices, key=lambda choice: choice.order()):
            now = self._clock.now()
            if choice.opens(now) <= now:
                yield choice

    def _pays(self, choice: Choice) -> bool:
        """Pay there, unless calls with the same choices wait in front."""
        queue = self._queue
        if queue.entries:
            queue.drop_dead()
            if not queue.admits(self._terms.arrival + self._terms.patience):
                return False
        return choice.pays_now()

    def _refuse_if_hopeless(self) -> None:
        """Raise where no member can ever take the call."""
        errors = [choice.error for choice in self._choices]
        last = errors[-1]
        if last is not None and all(errors):
            raise last

    def _several(self, block: ExitStack) -> tuple[Several, Watch]:
        watch = block.enter_context(Watch(self._choices[0].lease, self._terms))
        places = [choice.place(block) for choice in self._choices]
        return Several(self._queue, places, self._clock), watch

    def _paid(self, place: Place, watch: Watch) -> Choice:
        """Return the choice of a place; what was paid elsewhere besides goes back.

        A store that answers later may have admitted the call in the meantime.
        """
        found = self._choices[0]
        for choice in self._choices:
            if choice.lease.payment is place.payment:
                found = choice
        for choice in self._choices:
            if choice is not found and choice.lease.payment.paid:
                choice.lease.cancel()
        watch.goes_by(found.lease)
        return found

    def _handed_out(self, choice: Choice) -> Choice:
        if self._counts(choice.lease):
            count(choice.lease, None)
        choice.reservation.hand_out(choice.lease)
        return choice

    def _refused(self, error: BaseException) -> None:
        """Report that the call goes nowhere; what was paid all the same goes back."""
        for choice in self._choices:
            if choice.is_estimated and choice.lease.payment.paid and not choice.lease.ended:
                choice.lease.cancel()
        first = self._choices[0]
        if first.is_estimated and self._counts(first.lease):
            count(first.lease, error)

    @staticmethod
    def _counts(lease: AdmittedLease) -> bool:
        return lease.family.hooks.per_call
