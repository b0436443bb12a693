"""What a reservation, a decorator and a transport need of a limiter.

Owns the families of one limiter: which models they hold, what a body costs in them, how
patient a priority is, and what a fork does to them. Must never know who asks.

Families of models that no limit was given for are made when they are met. Their names
come from requests and may be any text, so they are never taken for patterns, and a
family without calls may be dropped.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import inf
from types import MappingProxyType
from typing import Any, Final, Literal

from ratelimit.admission.clock import Clock
from ratelimit.budget import Budget
from ratelimit.control.family import ModelFamily
from ratelimit.control.pricing import Accounting
from ratelimit.errors import InvalidArgument, caution
from ratelimit.estimate import Estimate, Estimator
from ratelimit.events.delivery import Hooks
from ratelimit.events.log import Log
from ratelimit.events.records import Degraded, name_of
from ratelimit.families import LONGEST_NAME, Patterns, base_model
from ratelimit.limits import Limits, amount_of
from ratelimit.stores.opening import OpenStore
from ratelimit.stores.payments import Payment

PATIENCE: Final = MappingProxyType({"interactive": 0.0, "normal": 10.0, "batch": 60.0})
"""Seconds by which later calls of less patience may overtake a call of each priority.
"""

MOST: Final = 500
"""Idle families kept, the last used; a model met again later starts with full buckets.

OpenRouter, the largest shop, sells about 400 models.
"""

NAMES_KEPT: Final = 1_000
"""Model names that are looked up without matching patterns again."""

_living: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


class Engine:
    """The families of one limiter.

    :param limits: by pattern of model names.
    :param level: how full the buckets are at the start, 0 to 1.
    :param slack: the first guess of it, in seconds; see `ratelimit.stores.bucket`.
    :param priorities: patience in seconds, by name.
    :param open_store: makes the store of each family.
    :param shares: by tenant; None: tenants take turns from the first one on.
    :param budget: what all calls together may cost.
    """

    def __init__(
        self,
        limits: Mapping[str, Limits],
        *,
        clock: Clock,
        slack: float,
        level: float,
        accounting: Accounting,
        output: Literal["max", "learned"] | int | None,
        priorities: Mapping[str, float],
        open_store: OpenStore,
        shares: Mapping[str, float] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.clock = clock
        self.hooks = Hooks(Log())
        self._open_store = open_store
        self.estimator = Estimator(output=output)
        self.priorities = priorities
        self._shares = shares
        self.budget = budget
        self._slack = slack
        self._level = level
        self._accounting = accounting
        self._listens = False
        self._families = {name: self._make(name, given) for name, given in limits.items()}
        self.only = self._families["*"] if list(self._families) == ["*"] else None
        """The one family of a limiter with limits for all models together."""
        self.forked = False
        """Whether this is a copy in a forked process that has not been used yet."""
        self.unwatched = self.only if budget is None else None
        """The same, unless every admission is reported, or a fork has to be: the
        shortest way reports nothing.
        """
        self.hooks.on_change = self._hooks_changed
        self.estimator.on_degraded = self._estimate_degraded
        self._unlisted = UnlistedModels(self._make)
        self._pattern_of: Callable[[str], str | None]
        self._pattern_of = lru_cache(NAMES_KEPT)(Patterns(self._families).of)
        self._shared = any(one.admission.store.shared for one in self._families.values())
        _living.add(self)

    def _make(self, name: str, limits: Limits) -> ModelFamily:
        family = ModelFamily(
            name,
            limits,
            self.clock,
            slack=self._slack,
            accounting=self._accounting,
            estimator=self.estimator,
            hooks=self.hooks,
            open_store=self._open_store,
        )
        if not family.admission.store.remembers:
            family.admission.store.spend(1 - self._level, self.clock.now())
        if self._listens:
            family.controller.listen()
        if self._shares is not None:
            family.admission.share(self._shares)
        return family

    def _hooks_changed(self) -> None:
        watched = self.forked or self.hooks.per_call or self.budget is not None
        self.unwatched = None if watched else self.only

    def _estimate_degraded(self, kind: str) -> None:
        reason = f"the tokens of a body, or of a part of it, are guessed ({name_of(kind)})"
        self.hooks.put(Degraded(at=self.clock.now(), family="", reason=reason))

    def family(self, model: str) -> ModelFamily:
        """Return the family of a model: if unlisted, one without limits."""
        if self.only is not None:
            return self.only
        model = model[:LONGEST_NAME]
        pattern = self._pattern_of(model)
        return self._unlisted.family(model) if pattern is None else self._families[pattern]

    def families(self) -> dict[str, ModelFamily]:
        """Return all families of now, by name."""
        return self._unlisted.families() | self._families

    @property
    def dropped_refusals(self) -> int:
        """Return the 429s of unlisted families that are no longer kept."""
        return self._unlisted.refused

    def estimate(
        self, request: Mapping[str, Any], *, endpoint: str | None = None, site: str = ""
    ) -> Estimate:
        """Return what a request will cost; see `Estimator.estimate`."""
        return self.estimator.estimate(request, endpoint=endpoint, site=site)

    def payment(self, estimate: Estimate, family: ModelFamily) -> Payment:
        """Return what an estimated call has to pay, as far as its server is known."""
        payment = Payment({})
        self.price(payment, estimate, family)
        return payment

    def price(self, payment: Payment, estimate: Estimate, family: ModelFamily) -> None:
        """Set what an unpaid call costs: more is known of the server by now."""
        output, weighing = estimate.output_tokens, family.weighing
        if family.pricing.charges_input_only:
            output = self.estimator.typical_output(estimate)
        smallest, pricing = family.admission.store.smallest, family.pricing
        weighed: dict[str, float] = {}
        if weighing is not None:
            now = self.clock.now()
            weighed = weighing.amounts(estimate, output, now, smallest)
            estimate, output = weighing.expected(estimate, output, now, smallest.get("tokens", inf))
        prompt = estimate.prompt_tokens
        room = smallest.get("tokens", inf) - max(prompt, estimate.charge)
        room = min(room, smallest.get("output_tokens", inf))
        if output > room and output != estimate.max_output_tokens:
            # What is only expected refuses no call: it goes from a full bucket.
            output = max(int(room), 0)
        price = pricing.price(prompt, output, estimate.charge, smallest.get("tokens", inf))
        amounts: dict[str, float] = {
            "requests": pricing.repetition.weight,
            "tokens": price.tokens,
            "input_tokens": prompt,
            "output_tokens": output,
            "images": estimate.images,
            **weighed,
        }
        least: dict[str, float] = amounts
        keeps = not pricing.settles
        if not keeps:
            # A Response is settled to its usage, which may be below its charge.
            by_usage = estimate.endpoint == "responses" or weighing is not None
            certain = 0 if by_usage else price.least
            least = {"requests": 1, "tokens": certain}
            by_usage = "input_tokens" in smallest or "output_tokens" in smallest
            keeps = price.tokens - price.deferred == certain and not by_usage
        payment.reprice(amounts, price.deferred, least, keeps=keeps)

    def by_hand(self, amounts: Mapping[str, float], family: ModelFamily) -> Payment:
        """Return what a call has to pay if its cost was given by hand."""
        payment = Payment(amounts)
        payment.keeps = not family.pricing.settles
        return payment

    def patience(self, priority: str | float) -> float:
        """Return the seconds that a priority stands for.

        Raises `InvalidArgument` for a name that is not known or an amount that cannot
        be.
        """
        if not isinstance(priority, str):
            return amount_of(priority, "priority=, the patience in seconds,")
        if priority not in self.priorities:
            names = ", ".join(self.priorities)
            raise InvalidArgument(
                f"priority= is one of {names}, or the patience in seconds, not {priority!r}"
            )
        return self.priorities[priority]

    def tenant(self, name: object) -> str:
        """Return the tenant that is named, if any; from the first on they take turns.

        Raises `InvalidArgument` for what is no name.
        """
        if name is None:
            return ""
        if not isinstance(name, str):
            raise InvalidArgument(
                f"tenant= is a text, the name of the one that calls are for, not {name!r}"
            )
        if self._shares is None and name:
            self._shares = {}
            for family in self.families().values():
                family.admission.share(self._shares)
        return name

    def replace(self, limits: Mapping[str, Limits], *, by_model: bool) -> None:
        """Hold other limits; those of families that are not named stay.

        :param by_model: whether the limits are of families by name, not of all.

        Raises `InvalidArgument` for families that no limits were given for.
        """
        names = ", ".join(map(name_of, self._families))
        if not by_model and self.only is None:
            raise InvalidArgument(
                "this limiter has limits by model, so replace(limits={...}) names those that "
                f"change: any of {names}"
            )
        unknown = [name_of(name) for name in limits if name not in self._families]
        if unknown:
            raise InvalidArgument(
                f"replace() changes limits that were given, of {names}, not those of "
                f"{', '.join(unknown)}: make a limiter with that pattern in its limits="
            )
        for name, one in limits.items():
            self._families[name].replace(one)

    def listen(self) -> None:
        """Expect headers of every answer from now on.

        Each family starts with one call and goes on from the level that its headers
        show.
        """
        self._listens = True
        for family in self.families().values():
            family.controller.listen()

    def warn_if_forked(self) -> None:
        """Say once, in a process that was forked, what that means."""
        if self.forked:
            self.forked = False
            self._hooks_changed()
            caution(
                f"this limiter was copied into process {os.getpid()} by a fork: each process now "
                "spends the whole limit; create one limiter per process with its share of the "
                'limit, or share one quota: store="file:..."',
                stacklevel=5,
            )

    def reset_after_fork(self) -> None:
        """Start anew in a forked process."""
        self.forked = not self._shared
        self.hooks.reset_after_fork()
        self._hooks_changed()
        self.estimator.reset_after_fork()
        if self.budget is not None:
            self.budget.reset_after_fork()
        self._unlisted.reset_after_fork()
        for family in self.families().values():
            family.reset_after_fork()


class UnlistedModels:
    """One family for each base model, made when a model of it is first met.

    :param make: makes a family of that name with these limits.
    """

    def __init__(self, make: Callable[[str, Limits], ModelFamily]) -> None:
        self._make = make
        self._families: dict[str, ModelFamily] = {}  # the last used stands last
        self._warned = 0
        # Reentrant: a signal handler that interrupts the holder may come in, and every
        # step leaves the families in order.
        self._lock = threading.RLock()
        self.refused = 0
        """429s of the families that were dropped."""

    def family(self, model: str) -> ModelFamily:
        """Return the family of a model; a new one is made with a warning."""
        name = base_model(model)
        with self._lock:
            family = self._families.pop(name, None)
            new = family is None and self._warned < MOST  # Python keeps every warning
            if family is None:
                self._make_room()
                family = self._make(name, Limits())
                self._warned += 1
            self._families[name] = family
        if new:
            caution(
                f"no limit is given for model {name_of(model)!r}: it passes without waiting, until "
                'a wrapped client has learned limits from an answer; add it, or "*", to limits=',
                stacklevel=6,
            )
        return family

    def _make_room(self) -> None:
        """Drop the longest unused idle families beyond `MOST`."""
        for name, family in list(self._families.items()):
            if len(self._families) < MOST:
                return
            if family.admission.idle:
                self._families.pop(name, None)
                self.refused += family.controller.refused

    def families(self) -> dict[str, ModelFamily]:
        """Return the families of now, by name."""
        with self._lock:
            return dict(self._families)

    def reset_after_fork(self) -> None:
        """Take a new lock: the holder of the old one belongs to the parent process."""
        self._lock = threading.RLock()


def _reset_after_fork() -> None:
    for engine in list(_living):
        engine.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
