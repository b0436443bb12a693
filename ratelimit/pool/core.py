"""The inside of a pool: its members' standings, its queues, and how a call is admitted.

Owns the choices of a call, and the queues of calls that fit the same members. Must
never send or read an answer.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ratelimit.admission.admission import Admission
from ratelimit.admission.queue import Queue
from ratelimit.errors import InvalidArgument
from ratelimit.events.records import name_of
from ratelimit.pool.choosing import MemberChoice, Rules
from ratelimit.pool.leases import AdmittedMemberLease, MemberReservation
from ratelimit.pool.members.affinity import Homes
from ratelimit.pool.members.member import engine_of
from ratelimit.pool.members.standing import Standing
from ratelimit.pool.members.state import Stored
from ratelimit.pool.requests import PoolCall

MOST_QUEUES: Final = 1_000
"""Sets of members that have a queue; those without calls are dropped beyond it."""

_living: Final[weakref.WeakSet[Core]] = weakref.WeakSet()


class Core:
    """What all faces of one pool share.

    :param affinity: seconds that a call waits for the member with its prompt cached.
    :param moves: how often an attempt is moved to another member, at most.
    """

    def __init__(self, standings: Sequence[Standing], affinity: float, moves: int) -> None:
        self.standings = standings
        self.clock = engine_of(standings[0].member).clock
        self.affinity = affinity
        self.moves = moves
        self.stored = Stored()
        self.homes = Homes()
        self.virtual = 0.0
        """The turn of the member that was chosen last."""
        self.moved = 0
        """Attempts that went on to another member."""
        self._queues: dict[frozenset[Admission], Queue] = {}
        self._lock = threading.RLock()
        _living.add(self)

    def standing(self, name: str) -> Standing | None:
        """Return the standing of a member by its name."""
        return next((one for one in self.standings if one.member.name == name), None)

    def queue_of(self, choices: Sequence[MemberChoice]) -> Queue:
        """Return the queue of all calls that may go where this one may."""
        key = frozenset(choice.family.admission for choice in choices)
        with self._lock:
            queue = self._queues.get(key)
            if queue is None:
                if len(self._queues) >= MOST_QUEUES:
                    self._queues = {
                        one: before for one, before in self._queues.items() if before.entries
                    }
                queue = self._queues[key] = Queue()
            return queue

    def queues(self) -> list[Queue]:
        """Return the queues of now."""
        with self._lock:
            return list(self._queues.values())

    def wake(self) -> None:
        """Let the heads look again: a member was parked, or is back. Never blocks."""
        for queue in list(self._queues.values()):
            queue.nudge()

    def serving(self, call: PoolCall, excluded: Collection[str] = ()) -> list[tuple[Standing, str]]:
        """Return the members that may take a call, with their names for its model.

        Raises `InvalidArgument` where there is none, in words.
        """
        serving = [
            (standing, own)
            for standing in self.standings
            if (own := standing.member.serves(call.model)) is not None
        ]
        if not serving:
            raise InvalidArgument(self._unserved(call.model))

        keeps = next(filter(None, map(self.stored.member_of, call.names)), None)
        if keeps is not None:
            kept = [(one, own) for one, own in serving if one.member.name == keeps]
            if not kept:
                raise InvalidArgument(
                    f"this call names what is stored with the pool's member {keeps!r}, which does"
                    f" not serve the model {name_of(call.model)!r}: ask a model that it serves, or"
                    " send what is stored again"
                )
            return kept
        return [(one, own) for one, own in serving if one.member.name not in excluded]

    def _unserved(self, model: str) -> str:
        known = sorted({name for one in self.standings for name in one.member.models})
        return (
            f"no member of the pool serves the model {name_of(model)!r}; they serve"
            f" {', '.join(known)}: ask one of these, or add it to a member's models="
        )

    def choices(
        self,
        call: PoolCall,
        rules: Rules,
        *,
        excluded: Collection[str] = (),
        explicit_cost: Mapping[str, float] | None = None,
        endpoint: str | None = None,
        site: str = "",
    ) -> list[MemberChoice]:
        """Return the choices of a call."""
        choices = []
        for standing, own in self.serving(call, excluded):
            member = standing.member
            body = sent = call.body_for(member, own)
            metered = call.metered
            if metered is not None and (call.body is None or metered.endpoint is None):
                body = {**(metered.body or {}), "model": own}
            reservation = MemberReservation(
                member,
                own,
                call.model,
                body,
                sent,
                explicit_cost=explicit_cost,
                endpoint=endpoint,
                site=site,
            )
            choices.append(MemberChoice(standing, own, reservation, rules))
        rules.over(choices)
        return choices

    def chosen(self, choice: MemberChoice, call: PoolCall) -> AdmittedMemberLease:
        """Take note that a call goes to a member; return its lease."""
        standing = choice.standing
        turn = max(standing.turn, self.virtual)
        self.virtual = turn
        standing.turn = turn + 1 / standing.member.weight
        self.homes.served(call.prompt, standing.member.name, moves=self._is_away(call.prompt))
        lease = choice.lease
        assert isinstance(lease, AdmittedMemberLease)  # noqa: S101  # `MemberReservation` makes them
        lease.goes_to(standing, choice.model)
        return lease

    def _is_away(self, prompt: str | None) -> bool:
        """Return whether the member that has a prompt cached is parked."""
        home = self.homes.of(prompt)
        standing = None if home is None else self.standing(home)
        return standing is not None and standing.health.fault is not None

    def reset_after_fork(self) -> None:
        """Start anew in a forked process: the waiters belong to the parent process."""
        self._lock = threading.RLock()
        for queue in self._queues.values():
            queue.reset_after_fork()


def _reset_after_fork() -> None:
    for core in list(_living):
        core.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
