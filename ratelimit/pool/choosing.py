"""Which members a call may go to, in which order, and from when on.

Owns preference, affinity and turns. Must never send or wait: `reservation/several.py`
takes the first choice that is open and can pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ratelimit.control.family import ModelFamily
from ratelimit.pool.leases import MemberReservation
from ratelimit.pool.members.standing import Standing
from ratelimit.reservation.several import Choice


class MemberChoice(Choice):
    """One member that may take a call."""

    def __init__(
        self, standing: Standing, model: str, reservation: MemberReservation, rules: Rules
    ) -> None:
        super().__init__(reservation)
        self.standing = standing
        self.member = standing.member
        self.model = model
        """The member's name for the model."""
        self._family = reservation.family
        self._rules = rules

    @property
    def family(self) -> ModelFamily:
        """The family of models that the call belongs to there."""
        return self._family

    def order(self) -> tuple[float, bool, float, float]:
        """Return what it is looked at by, the lowest first."""
        return self._rules.order(self)

    def opens(self, now: float) -> float:
        """Return from when on the call may go there."""
        return self._rules.opens(self, now)

    def is_usable(self, now: float) -> bool:
        """Return whether the call may go there now, but for the rank among members."""
        return self.error is None and self.standing.opens(self.model, now) <= now

    def is_better(self, than: MemberChoice) -> bool:
        """Return whether a call waits for this member before it takes the other one."""
        mine, other = self.member, than.member
        return (mine.prefer, mine.after) < (other.prefer, other.after)

    def ready_at(self, rank: float, now: float) -> float:
        """Return when the member can probably pay, at the earliest."""
        admission, payment = self.family.admission, self.lease.payment
        if admission.store.full:
            return now
        ahead = admission.queue.ahead_of(rank)
        return max(admission.store.moment(payment.amounts, payment.deferred, ahead), now)


class Rules:
    """From when on each choice of one call may be taken.

    :param arrival: of the call, in seconds of the pool's clock.
    :param home: the member that has its prompt cached, by name, if any.
    :param affinity: seconds that the call waits for that one.
    :param virtual: returns the turn of the member that was chosen last.
    """

    def __init__(
        self,
        arrival: float,
        patience: float,
        home: str | None,
        affinity: float,
        virtual: Callable[[], float],
    ) -> None:
        self._virtual = virtual
        self._arrival = arrival
        self._rank = arrival + patience
        self._home_name = home
        self._affinity = affinity
        self._choices: Sequence[MemberChoice] = ()
        self._home: MemberChoice | None = None

    def over(self, choices: Sequence[MemberChoice]) -> None:
        """Set the choices that these rules are of."""
        self._choices = choices
        self._home = next(
            (choice for choice in choices if choice.member.name == self._home_name), None
        )

    def order(self, choice: MemberChoice) -> tuple[float, bool, float, float]:
        """Return what choices are looked at by: preference first, and turns last.

        A member that has not been chosen for long does not catch up.
        """
        member = choice.member
        turn = max(choice.standing.turn, self._virtual())
        return member.prefer, choice is not self._home, member.after, turn

    def opens(self, choice: MemberChoice, now: float) -> float:
        """Return from when on a choice may be taken: in the past, or later than now."""
        opens = choice.standing.opens(choice.model, now)
        if opens > now and self._waits_in_vain():
            opens = now
        after = choice.member.after
        if after and now < self._arrival + after and self._has_better(choice, now):
            opens = max(opens, self._arrival + after)
        home = self._home
        if (
            home is not None
            and home is not choice
            and home.member.prefer <= choice.member.prefer
            and now < self._arrival + self._affinity
            and home.is_usable(now)
            and home.ready_at(self._rank, now) <= self._arrival + self._affinity
        ):
            opens = max(opens, self._arrival + self._affinity)
        return opens

    def _has_better(self, choice: MemberChoice, now: float) -> bool:
        return any(
            one.is_better(choice) and one.is_usable(now)
            for one in self._choices
            if one is not choice
        )

    def _waits_in_vain(self) -> bool:
        """Return whether every member is parked for what no waiting mends.

        Then calls go all the same, and users are shown what the servers say.
        """
        return all(one.standing.is_out(one.model) for one in self._choices)
