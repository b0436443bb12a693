"""A pool's call on its way to the first member that can pay.

Owns what ``with`` and ``async with`` do around it, and what an error says of parked
members. Must never choose a member or send.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf

from ratelimit.admission.admission import Terms
from ratelimit.errors import WaitTimeout, WouldBlock
from ratelimit.pool.choosing import MemberChoice, Rules
from ratelimit.pool.core import Core
from ratelimit.pool.leases import AdmittedMemberLease, MemberLease
from ratelimit.pool.requests import PoolCall
from ratelimit.reservation import Reservation, deadline_of
from ratelimit.reservation.several import Choice, FirstOf


class PoolReservation(Reservation):
    """A call that is about to be admitted by the first member that can pay.

    ``with`` and ``async with`` hand out a `MemberLease`.

    :param arrival: when the call came, in seconds of the pool's clock.
    :param excluded: members that it does not go to, by name.
    """

    def __init__(
        self,
        core: Core,
        call: PoolCall,
        *,
        explicit_cost: Mapping[str, float] | None = None,
        timeout: float | None = None,
        patience: float = 0.0,
        endpoint: str | None = None,
        site: str = "",
        arrival: float | None = None,
        excluded: Collection[str] = (),
        is_attempt: bool = False,
    ) -> None:
        self._core = core
        self._call = call
        self._explicit_cost = explicit_cost
        self._timeout = timeout
        self._patience = patience
        self._endpoint = endpoint
        self._site = site
        self._arrival = arrival
        self._excluded = excluded
        self._is_attempt = is_attempt
        deadline_of(timeout, 0.0)  # what is wrong with it is said before anything waits

    def _first(self) -> FirstOf:
        core, call = self._core, self._call
        arrival = core.clock.now() if self._arrival is None else self._arrival
        rules = Rules(
            arrival,
            self._patience,
            core.homes.of(call.prompt),
            core.affinity,
            lambda: core.virtual,
        )
        choices = core.choices(
            call,
            rules,
            excluded=self._excluded,
            explicit_cost=self._explicit_cost,
            endpoint=self._endpoint,
            site=self._site,
        )
        if self._is_attempt:
            for choice in choices:
                choice.reservation.for_attempt()
        terms = Terms(arrival, self._patience, deadline_of(self._timeout, arrival))
        return FirstOf(choices, core.queue_of(choices), core.clock, terms)

    def _chosen(self, choice: Choice) -> AdmittedMemberLease:
        assert isinstance(choice, MemberChoice)  # noqa: S101  # all choices here are
        return self._core.chosen(choice, self._call)

    def _admit(self) -> AdmittedMemberLease:
        """Wait in the calling thread."""
        try:
            return self._chosen(self._first().admit())
        except (WaitTimeout, WouldBlock) as error:
            raise self._explained(error)  # noqa: B904  # it is the same error

    async def _admit_async(self) -> AdmittedMemberLease:
        """Wait in the calling task."""
        try:
            return self._chosen(await self._first().admit_async())
        except (WaitTimeout, WouldBlock) as error:
            raise self._explained(error)  # noqa: B904  # it is the same error

    def _admit_now(self) -> AdmittedMemberLease:
        """Admit at once or raise `WouldBlock`."""
        try:
            return self._chosen(self._first().admit_now())
        except WouldBlock as error:
            raise self._explained(error)  # noqa: B904  # it is the same error

    def _explained(self, error: WaitTimeout | WouldBlock) -> WaitTimeout | WouldBlock:
        """Add to an error which members are parked, and why."""
        now = self._core.clock.now()
        soonest = inf
        parts = []
        for standing, own in self._core.serving(self._call):
            for reason, model, seconds in standing.parked(now):
                if model in {"", own}:
                    parts.append(f"{standing.member.name} {reason}, next try in {seconds:,.1f} s")
                    soonest = min(soonest, seconds)
        if parts and len(error.args) == 1:
            error.args = (f"{error.args[0]}; parked members of the pool: {'; '.join(parts)}",)
            if error.retry_after is None and soonest < inf:
                error.retry_after = soonest
        return error

    def __enter__(self) -> MemberLease:
        self._refuse_reentry()
        lease = self._admit()
        self._enter(lease)
        return lease

    async def __aenter__(self) -> MemberLease:
        self._refuse_reentry()
        lease = await self._admit_async()
        self._enter(lease)
        return lease


class PoolCallReservation(PoolReservation):
    """A pool's reservation, and how the doors of this package enter it."""

    admit = PoolReservation._admit  # noqa: SLF001  # of this file
    admit_async = PoolReservation._admit_async  # noqa: SLF001
    admit_now = PoolReservation._admit_now  # noqa: SLF001
