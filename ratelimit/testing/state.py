"""The desk: one running server's state, where calls are admitted, settled and written
into the ledger.

Owns: the pools of meters, who shares which, and the order "look, debit, read the
headers, write down" in one step under one lock. What must never come in: HTTP, waiting.
A desk belongs to one event loop, whose clock is its only time.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ratelimit.testing.admission import Gate, Pool, Ramp, Reading, Refusal
from ratelimit.testing.charges import Charge, charge
from ratelimit.testing.headers import Headers, HeaderWriter
from ratelimit.testing.ledger import Entry, Ledger, Usage

if TYPE_CHECKING:
    from ratelimit.testing.answers import Answers, Latency
    from ratelimit.testing.quotas import Quotas
    from ratelimit.testing.requests import Call
    from ratelimit.testing.variants import Rules

__all__ = ["Desk", "Setup", "Visit"]


@dataclass(frozen=True, slots=True)
class Setup:
    """All a server was told, checked; see FakeOpenAI for what each means."""

    rules: Rules
    quotas: Quotas
    answers: Answers
    latency: Latency
    level: Mapping[str, float]
    headers_at: Literal["admission", "settle"]
    refusals_cost_requests: bool
    hidden_changes: bool
    ramp_from: float
    pieces: int
    seed: int


@dataclass(slots=True)
class Visit:
    """One call at the desk, from its decision to its end."""

    call: Call
    gate: Gate
    entry: Entry
    usage: Usage
    charge: Charge
    refusal: Refusal | None
    headers: Headers
    ended: bool = False


class Desk:
    """State of one server on one event loop."""

    def __init__(self, setup: Setup, ledger: Ledger) -> None:
        self.loop = asyncio.get_running_loop()
        self.random = random.Random(setup.seed)
        self._setup, self._ledger = setup, ledger
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, str, str], Pool] = {}
        self._gates: dict[tuple[str, str, str], Gate] = {}
        self._writer = HeaderWriter(
            setup.rules.style, setup.rules.header_faults, random.Random(f"headers {setup.seed}")
        )
        self._last: dict[str, float] = {}

    def admit(self, call: Call) -> Visit:
        """Decide on a call and write it down; its headers tell the state right after."""
        setup = self._setup
        cost = charge(call.endpoint, call.body, setup.rules.charge, lambda: self._prompt(call))
        with self._lock:
            now = self.loop.time()
            gate = self._gate(call, now)
            refusal = gate.admit({"requests": 1, "tokens": cost.tokens, "images": cost.images}, now)
            readings = gate.readings(now)
            entry = self._write(
                call,
                cost.tokens,
                refusal.reason if refusal else "",
                now,
                readings,
                admitted=refusal is None,
            )
            headers = self._writer.write(readings, 0 if refusal else cost.tokens)
        visit = Visit(call, gate, entry, Usage(0, 0), cost, refusal, headers)
        if not (refusal or call.problem):
            visit.usage = Usage(
                self._prompt(call),
                setup.answers.output(call.endpoint, call.body, call.raw, call.known),
            )
        return visit

    def turn_away(self, call: Call, status: int, reason: str, message: str) -> None:
        """Write down a call that never came to the buckets."""
        with self._lock:
            now = self.loop.time()
            entry = self._write(call, 0, reason, now, [], admitted=False)
            self._ledger.finish(entry, status=status, usage=None, ended=now, message=message)

    def leave(
        self, visit: Visit, status: int, usage: Usage | None, reason: str = "", message: str = ""
    ) -> None:
        """The end of an admitted call: settle it by `usage` (None: the charge stays)
        and complete its entry; a second end is none.
        """
        if visit.ended:
            return
        visit.ended = True
        with self._lock:
            now = self.loop.time()
            if visit.refusal is None:
                visit.gate.leave(self._difference(visit, usage), now)
            self._ledger.finish(
                visit.entry, status=status, usage=usage, ended=now, reason=reason, message=message
            )
            if self._setup.headers_at == "settle" and visit.refusal is None:
                visit.headers = self._writer.write(visit.gate.readings(now), visit.charge.tokens)

    def levels(self) -> dict[str, float]:
        """What every bucket has left now, under a name like "org-fake/tpm" or
        "org-fake/proj_a/gpt-4o*/rpm".
        """
        if self.loop.is_closed():
            return dict(self._last)
        with self._lock:
            now = self.loop.time()
            for key, pool in self._pools.items():
                pool.advance(now)
                for reading in pool.readings(now):
                    self._last["/".join([*filter(None, key), reading.dimension.name])] = (
                        reading.left
                    )
            return dict(self._last)

    def _prompt(self, call: Call) -> int:
        """Billed prompt tokens, counted once a call."""
        if call.problem:
            return 0
        if call.prompt_tokens is None:
            call.prompt_tokens = self._setup.answers.prompt(call.endpoint, call.body, call.known)
        return call.prompt_tokens

    def _difference(self, visit: Visit, usage: Usage | None) -> float:
        """Tokens to debit at the end, beyond the charge."""
        if usage is None or self._setup.rules.settle == "never":
            return 0
        if self._setup.rules.settle == "refund":
            return min(0, usage.completion_tokens - visit.charge.output)
        return usage.total_tokens - visit.charge.tokens

    def _write(
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

    def _gate(self, call: Call, now: float) -> Gate:
        family = self._setup.quotas.family(call.model)
        key = (
            call.organisation,
            call.project if self._setup.quotas.project(call.project) else "",
            family,
        )
        if key not in self._gates:
            rules = self._setup.rules
            pools = [self._pool((call.organisation, "", family), now)]
            if key[1]:
                pools.append(self._pool(key, now))
            ramp = Ramp(self._setup.ramp_from) if rules.ramp else None
            self._gates[key] = Gate(
                pools,
                in_flight=rules.in_flight,
                ramp=ramp,
                refusals_cost_requests=self._setup.refusals_cost_requests,
            )
        return self._gates[key]

    def _pool(self, key: tuple[str, str, str], now: float) -> Pool:
        if key not in self._pools:
            _, project, family = key
            quotas, setup = self._setup.quotas, self._setup
            dimensions = quotas.project(project) if project else quotas.dimensions(family)
            seed = f"neighbour {setup.seed} {key}"
            self._pools[key] = Pool(
                dimensions,
                setup.rules,
                level=setup.level,
                hidden=setup.hidden_changes,
                seed=seed,
                now=now,
            )
        return self._pools[key]
