"""The state of one running server: calls are admitted, settled and recorded here.

Owns the buckets, their sharing, and the order "check, debit, read the headers,
record" in one step under one lock. Must never touch HTTP or wait. A state belongs to
one event loop and has no other clock.
"""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from ratelimit.testing.admission import Admission, FamilyBuckets, RampGuard, Reading, Refusal
from ratelimit.testing.charges import Charge, charge
from ratelimit.testing.contents import Content
from ratelimit.testing.figures import wrong_readings, wrong_refusal
from ratelimit.testing.headers import Headers, HeaderWriter
from ratelimit.testing.ledger import Entry, Ledger, Usage
from ratelimit.testing.prompts import PromptCache
from ratelimit.testing.replies import MODELS
from ratelimit.testing.turns import Turns

if TYPE_CHECKING:
    from ratelimit.testing.faults import Fault
    from ratelimit.testing.requests import Call
    from ratelimit.testing.settings import Setup

__all__ = ["Attempt", "ServerState"]


@dataclass(slots=True)
class Attempt:
    """One attempt, from its decision to its end."""

    admission: Admission
    entry: Entry
    charge: Charge
    refusal: Refusal | None
    headers: Headers
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    content: Content = field(default_factory=Content)
    ended: bool = False


class BucketKey(NamedTuple):
    """The tenant; its calls share buckets."""

    organisation: str
    project: str
    """"" for the organisation's own."""
    family: str
    """"" for the default."""


class ServerState:
    """State of one server on one event loop."""

    def __init__(self, setup: Setup, ledger: Ledger) -> None:
        self.loop = asyncio.get_running_loop()
        self.random = random.Random(setup.seed)
        self._turns = Turns()
        self._setup, self._ledger = setup, ledger
        self._lock = threading.Lock()
        self._buckets: dict[BucketKey, FamilyBuckets] = {}
        self._admissions: dict[BucketKey, Admission] = {}
        self._writer = HeaderWriter(
            setup.rules.style, setup.rules.header_faults, random.Random(f"headers {setup.seed}")
        )
        self._cache = PromptCache()
        self._models: dict[str, None] = {}
        self._last: dict[str, float] = {}

    def admit(self, call: Call, shown: Fault | None = None) -> Attempt:
        """Decide on a call and record it; its headers show the state right after.

        :param shown: a fault; the headers show its wrong figures.
        """
        setup = self._setup
        cost = self._charge(call)
        amounts = _amounts(cost)
        with self._lock:
            now = self.loop.time()
            self._models[call.model] = None
            admission = self._admission(call, now)
            refusal = admission.admit(amounts, now)
            readings = admission.readings(now)
            reason = refusal.reason if refusal else ""
            entry = self._record(call, cost.tokens, reason, now, readings, admitted=refusal is None)
            visible = wrong_readings(readings, shown) if shown else readings
            headers = self._writer.write(visible, 0 if refusal else cost.tokens, now)

        attempt = Attempt(admission, entry, cost, refusal, headers)
        if not (refusal or call.problem):
            attempt.content = setup.answers.content(call)
            attempt.usage = self._usage(call, attempt.content, now)

        return attempt

    async def turn(self, call: Call) -> None:
        """Let the call wait until it would be admitted; not longer than `queue`."""
        await self._turns.wait(
            self._setup.quotas.family(call.model),
            lambda: self._would_refuse(call),
            patience=self._setup.rules.queue,
        )

    def _would_refuse(self, call: Call) -> Refusal | None:
        amounts = _amounts(self._charge(call))
        with self._lock:
            now = self.loop.time()
            return self._admission(call, now).check(amounts, now)

    def turn_away(self, call: Call, status: int, reason: str, message: str) -> None:
        """Record a call that never reached the buckets."""
        with self._lock:
            now = self.loop.time()
            entry = self._record(call, 0, reason, now, [], admitted=False)
            self._ledger.finish(entry, status=status, usage=None, ended=now, message=message)

    def refuse_wrongly(self, call: Call, fault: Fault) -> tuple[Refusal, Headers]:
        """Return a refusal that names the fault's limit, and headers with the truth."""
        cost = self._charge(call)
        with self._lock:
            now = self.loop.time()
            readings = self._admission(call, now).readings(now)
            return wrong_refusal(readings, fault, cost.tokens), self._writer.write(readings, 0, now)

    def end(
        self,
        attempt: Attempt,
        status: int,
        usage: Usage | None,
        reason: str = "",
        message: str = "",
    ) -> None:
        """End an attempt: settle it by `usage` and complete its entry, the first time.

        Without a usage the charge stays.
        """
        if attempt.ended:
            return

        attempt.ended = True
        with self._lock:
            now = self.loop.time()
            if attempt.refusal is None:
                attempt.admission.end(self._difference(attempt, usage), now)
                self._turns.ended()

            self._ledger.finish(
                attempt.entry, status=status, usage=usage, ended=now, reason=reason, message=message
            )
            if self._setup.headers_at == "settle" and attempt.refusal is None:
                readings = attempt.admission.readings(now)
                attempt.headers = self._writer.write(readings, attempt.charge.tokens, now)

    def levels(self) -> dict[str, float]:
        """Return what every bucket has left now.

        Names are like "org-fake/tpm" or "org-fake/proj_a/gpt-4o*/rpm".
        """
        if self.loop.is_closed():
            return dict(self._last)

        with self._lock:
            now = self.loop.time()
            for key, buckets in self._buckets.items():
                buckets.advance(now)
                for reading in buckets.readings(now):
                    name = "/".join([*filter(None, key), reading.dimension.name])
                    self._last[name] = reading.left

            return dict(self._last)

    def model_names(self) -> list[str]:
        """Return the models that are configured, were called, or are listed anyway."""
        names = [*self._setup.quotas.model_names(), *MODELS, *self._models]
        return [name for name in dict.fromkeys(names) if name]

    def serves(self, model: str) -> bool:
        """Return whether `model` is in the list, or a configured pattern names it."""
        return model in self.model_names() or self._setup.quotas.family(model) != ""

    def _prompt(self, call: Call) -> int:
        """Return the billed prompt tokens; count them once a call."""
        if call.problem:
            return 0

        if call.prompt_tokens is None:
            call.prompt_tokens = self._setup.answers.prompt(call)

        return call.prompt_tokens

    def _charge(self, call: Call) -> Charge:
        """Return what the call takes when it arrives."""
        rules = self._setup.rules
        cost = charge(call.endpoint, call.body, rules.charge, lambda: self._prompt(call))
        if rules.cache_reads != "free" or call.problem:
            return cost

        read, _ = self._cached(call, self.loop.time(), write=False)
        return replace(cost, tokens=max(0, cost.tokens - read))

    def _usage(self, call: Call, content: Content, now: float) -> Usage:
        """Return the bill, with what the prompt cache had and has of the prompt."""
        usage = self._setup.answers.usage(call, content, self._prompt(call))
        read, written = self._cached(call, now)
        return replace(usage, cached_tokens=read, cache_write_tokens=written)

    def _cached(self, call: Call, now: float, *, write: bool = True) -> tuple[int, int]:
        """Return the prompt's tokens that the cache has, and those that it takes up."""
        prompt = self._prompt(call)
        if "cached_tokens" in call.known:
            return min(int(call.known["cached_tokens"]), prompt), 0

        if call.endpoint not in {"chat.completions", "responses"}:
            return 0, 0

        owner = f"{call.organisation} {call.model}"
        return self._cache.look_up(owner, call.body, prompt, now, write=write)

    def _difference(self, attempt: Attempt, usage: Usage | None) -> float:
        """Return the tokens to debit at the end, beyond the charge."""
        if usage is None:
            return 0

        rules = self._setup.rules
        free = 0 if rules.cache_reads == "counted" else usage.cached_tokens
        if rules.settle == "usage":
            output = usage.completion_tokens * rules.output_weight
            return usage.prompt_tokens - free + output - attempt.charge.tokens

        unused = min(0, usage.completion_tokens - attempt.charge.output)
        given_back = -free if rules.cache_reads == "refunded" else 0
        return given_back + (unused if rules.settle == "refund" else 0)

    def _record(
        self,
        call: Call,
        requested: int,
        reason: str,
        now: float,
        readings: list[Reading],
        *,
        admitted: bool,
    ) -> Entry:
        levels = {reading.dimension.name: reading.left for reading in readings}
        number = self._ledger.next_number()
        return self._ledger.add(
            Entry(
                number=number,
                time=now,
                endpoint=call.endpoint,
                model=call.model,
                key=call.key,
                organisation=call.organisation,
                project=call.project,
                stream=call.stream,
                admitted=admitted,
                reason=reason,
                requested=requested,
                charge=requested if admitted else 0,
                status=None,
                request_id=f"req_{number:032x}",
                headers=call.headers,
                levels=levels,
            )
        )

    def _admission(self, call: Call, now: float) -> Admission:
        quotas, rules = self._setup.quotas, self._setup.rules
        project = call.project if quotas.project(call.project) else ""
        key = BucketKey(call.organisation, project, quotas.family(call.model))
        if key not in self._admissions:
            families = [self._family_buckets(key._replace(project=""), now)]
            if project:
                families.append(self._family_buckets(key, now))

            self._admissions[key] = Admission(
                families,
                in_flight=rules.in_flight,
                ramp=RampGuard(self._setup.ramp_from) if rules.ramp else None,
                refusals_cost_requests=self._setup.refusals_cost_requests,
            )

        return self._admissions[key]

    def _family_buckets(self, key: BucketKey, now: float) -> FamilyBuckets:
        if key not in self._buckets:
            setup, quotas = self._setup, self._setup.quotas
            self._buckets[key] = FamilyBuckets(
                quotas.project(key.project) if key.project else quotas.dimensions(key.family),
                setup.rules,
                level=setup.level,
                hidden=setup.hidden_changes,
                seed=f"neighbour {setup.seed} {tuple(key)}",
                now=now,
            )

        return self._buckets[key]


def _amounts(cost: Charge) -> dict[str, float]:
    """Return the cost by unit."""
    return {"requests": 1, "tokens": cost.tokens, "images": cost.images}
