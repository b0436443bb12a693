"""Who waits for what, which limits hold, and where they come from.

Owns the shapes of an explanation and its words. Must never change what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ratelimit.admission.outlook import outlook_at
from ratelimit.control.engine import Engine
from ratelimit.control.family import ModelFamily
from ratelimit.events.records import Source, name_of
from ratelimit.events.sentences import waits
from ratelimit.limits import Limit, whole

TENANTS: Final = 10
"""Tenants that an explanation names, those with the most calls that wait."""


@dataclass(frozen=True, slots=True)
class KnownLimit:
    """One limit that holds, and how it is known."""

    limit: Limit
    level: float
    """What is there of it now, in its unit; below zero in debt."""
    source: Source | Literal["given"]
    """"given" by the user; shown by a "header" or named by a "refusal"; or what was
    left when such a word counted no more ("expiry"), or while the server is asked anew
    ("asking").
    """
    age: float | None
    """Seconds since it was shown last; None where it was given."""

    def __str__(self) -> str:
        ago = "" if self.age is None else f", {self.age:,.0f} s ago"
        level = whole(round(self.level))
        return f"{self.limit} ({self.source}{ago}; {level} left)"


@dataclass(frozen=True, slots=True)
class FamilyExplanation:
    """What the calls of one family of models wait for."""

    at: float
    """When, in seconds of the limiter's clock."""
    waiting: int
    """Calls in the queue."""
    head: str
    """What the head waits for, in words; "" where nobody waits."""
    next_in: float | None
    """Seconds until the head can go at the earliest; None where nobody waits, and where
    it waits for a call to end.
    """
    limits: tuple[KnownLimit, ...]
    in_flight: int
    concurrency: int | None
    """How many calls may be in flight at once, given or learned; None: any number."""
    refused: int
    """429s so far."""
    refused_ago: float | None
    """Seconds since the last one, or None."""
    refused_for: str
    """Its limit by its label, or its code, or ""."""
    closed_for: float
    """Seconds for which a refusal still pauses the queue."""
    waiting_by_tenant: Mapping[str, int] = field(default_factory=dict)
    """Calls in the queue by tenant; empty where tenants have no shares."""

    def __str__(self) -> str:
        parts = [f"{self.waiting:,} wait" if self.waiting else "nobody waits"]
        if self.waiting_by_tenant:
            rows = sorted(self.waiting_by_tenant.items(), key=lambda row: -row[1])
            shown = [f"{name_of(name) or 'no tenant'}: {count:,}" for name, count in rows[:TENANTS]]
            rest = ["..."] if len(rows) > TENANTS else []
            parts[0] += f" ({', '.join(shown + rest)})"
        if self.head:
            parts.append(f"the head: {self.head}")
        most = "" if self.concurrency is None else f" of at most {self.concurrency:,}"
        parts.append(f"{self.in_flight:,}{most} in flight")
        held = ", ".join(str(limit) for limit in self.limits)
        parts.append(f"limits: {held or 'none known'}")
        if self.closed_for:
            parts.append(f"paused for {self.closed_for:,.1f} s by a refusal")
        if self.refused_ago is not None:
            cause = f" for {self.refused_for}" if self.refused_for else ""
            parts.append(f"{self.refused:,} 429s, the last {self.refused_ago:,.0f} s ago{cause}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """Why who waits for what: one entry per family of models.

    It prints readably, and no key that came in the place of a name.
    """

    families: Mapping[str, FamilyExplanation]
    budget: str = ""
    """What is spent of the limiter's budget, in words; "" where it has none."""

    def __str__(self) -> str:
        lines = [f"{name_of(name)}: {family}" for name, family in self.families.items()]
        return "\n".join(lines + [f"budget: {self.budget}"] * bool(self.budget))

    def __repr__(self) -> str:
        families = "; ".join(f"{name_of(name)}: {family}" for name, family in self.families.items())
        return f"<Explanation {families}>"


def explanation_of(engine: Engine, model: str | None) -> Explanation:
    """Return the explanation of a limiter.

    :param model: explain only the family of this model.
    """
    now, families = engine.clock.now(), engine.families()
    if model is not None:
        family = engine.family(model)
        families = {family.name: family}
    budget = "" if engine.budget is None else str(engine.budget)
    return Explanation({name: _explained(family, now) for name, family in families.items()}, budget)


def _explained(family: ModelFamily, now: float) -> FamilyExplanation:
    """Return what the calls of one family wait for at ``now``."""
    admission, controller = family.admission, family.controller
    store, queue = admission.store, admission.queue
    queue.drop_dead()
    head, levels = queue.head, store.levels(now)
    seen = None if head is None else outlook_at(admission, head.payment)
    known = []
    source: Source | Literal["given"]
    for limit in store.limits:
        source, since = family.reports.sources.get(limit, ("given", now))
        if source == "header":
            since = max(since, controller.headers_at)
        given = source == "given" or limit in family.given
        age = None if given else max(now - since, 0.0)
        level = levels.get((limit.name, limit.per), limit.amount)
        known.append(KnownLimit(limit, level, "given" if given else source, age))
    last = controller.last_refusal
    return FamilyExplanation(
        at=now,
        waiting=len(queue),
        head="" if seen is None else waits(seen),
        next_in=None if seen is None else seen.predicted,
        limits=tuple(known),
        in_flight=store.in_flight,
        concurrency=store.concurrency,
        refused=controller.refused,
        refused_ago=None if last is None else max(now - last[0], 0.0),
        refused_for="" if last is None else last[1],
        closed_for=max(store.closed_until - now, 0.0),
        waiting_by_tenant=queue.waiting_by_tenant(),
    )
