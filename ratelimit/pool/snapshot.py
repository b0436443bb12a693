"""What a pool shows of itself: frozen snapshots, and explanations in words.

Owns their shapes. Must never change what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratelimit.events.records import name_of
from ratelimit.pool.core import Core
from ratelimit.pool.members.member import engine_of
from ratelimit.pool.members.standing import Standing
from ratelimit.statistics import Explanation, FamilyStatistics, Statistics
from ratelimit.statistics.explanation import explanation_of as explained
from ratelimit.statistics.snapshot import statistics_of as counted


@dataclass(frozen=True, slots=True)
class MemberStatistics:
    """One member at one moment."""

    limiter: Statistics
    calls: int
    """Attempts that went there."""
    answered: int
    failed: int
    """Attempts that ended in a way for which another member may be asked."""
    parked_for: float
    """Seconds until calls may go there again; 0 where they may."""
    parked_because: str
    """In words; "" where nothing is wrong."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool."""

    members: Mapping[str, MemberStatistics]
    waiting: int
    """Calls in the pool's queues."""
    moved: int
    """Attempts that went on to another member."""

    @property
    def families(self) -> dict[str, FamilyStatistics]:
        """All families of all limiters, by "member: family"."""
        found: dict[int, tuple[str, Statistics]] = {}
        for name, one in self.members.items():
            found.setdefault(id(one.limiter), (name, one.limiter))
        return {
            f"{name}: {family}": figures
            for name, limiter in found.values()
            for family, figures in limiter.families.items()
        }

    @property
    def in_flight(self) -> int:
        """Calls between admission and settlement, over all limiters."""
        return sum(one.in_flight for one in self._limiters())

    @property
    def refused(self) -> int:
        """429s seen, over all limiters."""
        return sum(one.refused for one in self._limiters())

    def _limiters(self) -> list[Statistics]:
        return list({id(one.limiter): one.limiter for one in self.members.values()}.values())

    def __str__(self) -> str:
        lines = [f"{self.waiting} waiting, {self.moved} moved, {self.refused} refused (429)"]
        for name, one in self.members.items():
            parked = (
                f"; {one.parked_because}, {one.parked_for:,.1f} s" if one.parked_because else ""
            )
            lines.append(
                f"{name}: {one.calls} calls, {one.answered} answered, {one.failed} failed{parked}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class MemberExplanation:
    """Why calls go to a member, or do not."""

    parked: str
    """Why it is parked, in words; "" where it is not."""
    limits: Explanation
    """What its limiter shows."""

    def __str__(self) -> str:
        parked = f"parked: {self.parked}; " if self.parked else ""
        limits = "; ".join(str(self.limits).splitlines())
        return parked + limits


@dataclass(frozen=True, slots=True)
class PoolExplanation:
    """Why who waits for what, member by member; it prints readably."""

    waiting: int
    """Calls in the pool's queues."""
    members: Mapping[str, MemberExplanation]

    def __str__(self) -> str:
        head = f"{self.waiting:,} wait" if self.waiting else "nobody waits"
        return "\n".join([head, *(f"{name}: {one}" for name, one in self.members.items())])


def statistics_of(core: Core) -> PoolStatistics:
    """Return the snapshot of a pool."""
    now = core.clock.now()
    shown: dict[int, Statistics] = {}
    members = {}
    for standing in core.standings:
        engine = engine_of(standing.member)
        limiter = shown.setdefault(id(engine), counted(engine))
        parked = standing.parked(now)
        members[standing.member.name] = MemberStatistics(
            limiter=limiter,
            calls=standing.calls,
            answered=standing.answered,
            failed=standing.failed,
            parked_for=max((seconds for _, _, seconds in parked), default=0.0),
            parked_because=_reasons(standing, now),
        )
    return PoolStatistics(members, _waiting(core), core.moved)


def explanation_of(core: Core) -> PoolExplanation:
    """Return the explanation of a pool."""
    now = core.clock.now()
    members = {}
    for standing in core.standings:
        parked = [
            f"{reason}{f' {name_of(model)}' if model else ''}, next try in {seconds:,.1f} s"
            for reason, model, seconds in standing.parked(now)
        ]
        limits = explained(engine_of(standing.member), None)
        members[standing.member.name] = MemberExplanation("; ".join(parked), limits)
    return PoolExplanation(_waiting(core), members)


def _reasons(standing: Standing, now: float) -> str:
    return "; ".join(
        f"{reason}{f' {name_of(model)}' if model else ''}"
        for reason, model, _ in standing.parked(now)
    )


def _waiting(core: Core) -> int:
    for queue in core.queues():
        queue.drop_dead()
    return sum(len(queue) for queue in core.queues())
