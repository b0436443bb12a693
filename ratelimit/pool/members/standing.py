"""What a pool knows of each of its members while it runs.

Owns health, turns and counts, by member. Must never know a request or wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from ratelimit.pool.members.health import Health
from ratelimit.pool.members.member import Member
from ratelimit.pool.members.verdict import Verdict

MOST_MODELS: Final = 1_000
"""Models of a member that are parked apart, the last ones."""


class Standing:
    """One member: whether it works, whether it is its turn, what it has served.

    :param sender: the member's client, which meters by its limiter.
    :param on_change: called when calls may go there again, or may go there no longer.
    """

    def __init__(self, member: Member, sender: Any, on_change: Callable[[], object]) -> None:
        self.member = member
        self.sender = sender
        self.health = Health()
        self.turn = 0.0
        """Calls so far by its weight; the lowest is next."""
        self.calls = 0
        """Attempts that went there."""
        self.answered = 0
        self.failed = 0
        """Attempts that were moved to another member, or would have been."""
        self._models: OrderedDict[str, Health] = OrderedDict()
        self._on_change = on_change

    def healths(self, model: str) -> list[Health]:
        """Return what must be well for a call: the member, and its model."""
        of_model = self._models.get(model)
        return [self.health] if of_model is None else [self.health, of_model]

    def opens(self, model: str, now: float) -> float:
        """Return from when on calls may go there: past, unless it is parked."""
        return max(health.opens(now) for health in self.healths(model))

    def is_out(self, model: str) -> bool:
        """Return whether it is parked for what waiting does not mend."""
        faults = [health.fault for health in self.healths(model)]
        return any(fault is not None and not fault.is_outage for fault in faults)

    def begin(self, model: str, now: float) -> None:
        """Take note that an attempt goes there."""
        self.calls += 1
        for health in self.healths(model):
            health.begin(now)

    def end(self, model: str, verdict: Verdict, sent_at: float, now: float) -> None:
        """Take note of how an attempt has ended."""
        if verdict.says_nothing:
            for health in self.healths(model):
                health.end()
            self._on_change()
            return

        if verdict.moves:
            self.failed += 1
        else:
            self.answered += 1
        fault = verdict.fault
        changed = False
        for health in self.healths(model):
            if fault is None or (verdict.of_model and health is self.health):
                changed |= health.answered(sent_at)
        if fault is not None:
            health = self._health_of(model) if verdict.of_model else self.health
            changed |= health.failed(fault, sent_at, now)
        if changed:
            self._on_change()

    def _health_of(self, model: str) -> Health:
        health = self._models.setdefault(model, Health())
        self._models.move_to_end(model)
        while len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        return health

    def parked(self, now: float) -> list[tuple[str, str, float]]:
        """Return why it is parked, the model or "", and for how many seconds more."""
        healths = [("", self.health), *list(self._models.items())]
        return [
            (health.fault.reason, model, max(health.opens(now) - now, 0.0))
            for model, health in healths
            if health.fault is not None
        ]
