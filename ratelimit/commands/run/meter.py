"""What a run over a file has come to.

Owns counting, rates over the last minute, the use of limits and the estimated end. Must
never send, show or decide anything.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from ratelimit import Pool, Prices, RateLimiter
from ratelimit.batch import Result
from ratelimit.commands.families import one_of_each_family
from ratelimit.events.sentences import label_of

MINUTE: Final = 60.0

SAMPLE_EVERY: Final = 1.0
"""Seconds between two samples; the last minute is known that exactly."""

FEWEST_ANSWERS: Final = 5
"""Results from which the time of the rest can be estimated."""

SHORTEST_TIME: Final = 5.0
"""Seconds from which it can."""

_NAMES: Final = {"requests": "RPM", "tokens": "TPM"}
"""Limits that are shown with their use, by their dimension."""


@dataclass(frozen=True, slots=True)
class Use:
    """Of one limit per minute: what the last minute used, and what it refills.

    More may be used than is refilled: a bucket that was full gives its content besides.
    """

    name: str
    used: float
    allowed: float


class _Sample(NamedTuple):
    """Where things stood at one moment."""

    time: float
    answered: int
    tokens: int
    done: int


@dataclass(slots=True)
class _Allowance:
    """What one limit has let through since it was known, whatever it was changed to."""

    refilled: float
    """A full bucket, and its refill since the first answer."""
    while_sending: float
    """The same, until the last sending."""
    before: float
    """What had been used when the limit became known, beyond a full bucket."""


class Meter:
    """Counts one run.

    :param left: requests to be sent.
    :param earlier: results that were there before.
    :param models: of the requests; their limits matter.
    """

    def __init__(
        self,
        limiter: RateLimiter | Pool,
        left: int,
        earlier: int,
        models: Iterable[str],
        prices: Prices | None,
    ) -> None:
        self._limiter = limiter
        self._models = tuple(models)
        self._prices = prices
        self.left = left
        self.earlier = earlier
        self.done = 0
        self.failed = 0
        self.answered = 0
        """Attempts that the server has answered, retries and 429s included."""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        """Those of the prompts that came from a cache."""
        self.output_tokens = 0
        self.tokens = 0
        self.started = time.monotonic()
        self._answered_at: float | None = None
        self._sent = 0
        self._looked_at = self.started
        self._allowances: dict[tuple[str, float], _Allowance] = {}
        self._samples = deque([_Sample(self.started, 0, 0, 0)])

    def on_response(self) -> None:
        """Count an answer of the server, of whatever status.

        Attempts that reached no server are none of its limits' business.
        """
        self.answered += 1

    def record(self, result: Result) -> None:
        """Count one more result."""
        if self._answered_at is None:
            self._answered_at = self._looked_at = time.monotonic()
        self.done += 1
        if not result.ok:
            self.failed += 1
        usage = result.usage
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.cached_tokens += usage.cached_tokens
            self.output_tokens += usage.output_tokens
            self.tokens += usage.total_tokens

    @property
    def refused(self) -> int:
        """429s so far."""
        return self._limiter.statistics().refused

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def cost(self) -> float | None:
        """So far; None where no prices were given."""
        if self._prices is None:
            return None

        return self._prices.of(self.prompt_tokens, self.output_tokens, self.cached_tokens)

    def sample(self) -> None:
        """Note where things stand; called a few times a second, and at the end."""
        now = time.monotonic()
        self._refill(now)
        if now - self._samples[-1].time >= SAMPLE_EVERY:
            self._samples.append(_Sample(now, self.answered, self.tokens, self.done))
            while len(self._samples) > 2 and self._samples[1].time <= now - MINUTE:
                self._samples.popleft()

    def _refill(self, now: float) -> None:
        """Add to each allowance what its limit has refilled since the last look."""
        sent = sum(family.admitted for family in self._limiter.statistics().families.values())
        is_sending = sent > self._sent
        self._sent = sent
        passed = now - self._looked_at if self._answered_at is not None else 0.0
        self._looked_at = now
        used = self._used()
        for (name, per), amount in self.limits().items():
            found = self._allowances.get((name, per))
            if found is None:
                before = max(used.get(name, 0.0) - amount, 0.0)
                found = self._allowances[name, per] = _Allowance(amount, amount, before)
            else:
                found.refilled += amount * passed / per
            if is_sending:
                found.while_sending = found.refilled

    def _used(self) -> dict[str, float]:
        return {"requests": float(self.answered), "tokens": float(self.tokens)}

    def limits(self) -> dict[tuple[str, float], float]:
        """Return all limits that hold, learned ones too: amounts by (name, seconds).

        They are summed over the families of the run's models.
        """
        if isinstance(self._limiter, Pool):
            held = self._limiter.limits(*self._models)
            return {(limit.name, limit.per): limit.amount for limit in held}
        found: dict[tuple[str, float], float] = {}
        for model in one_of_each_family(self._limiter, self._models):
            for limit in self._limiter.limits(model):
                key = (limit.name, limit.per)
                found[key] = found.get(key, 0.0) + limit.amount
        return found

    def uses(self) -> list[Use]:
        """Return what the last minute used of each limit per minute."""
        then = self._samples[0]
        # samples are a second apart, so the first may be older than a minute
        part = min(MINUTE / max(time.monotonic() - then.time, MINUTE), 1.0)
        used = {
            "requests": (self.answered - then.answered) * part,
            "tokens": (self.tokens - then.tokens) * part,
        }
        return [
            Use(_NAMES[name], used[name], amount)
            for (name, per), amount in self.limits().items()
            if per == MINUTE and name in _NAMES
        ]

    def share(self, *, whole: bool = False) -> dict[tuple[str, float], float]:
        """Return which part was used of what each limit let through.

        A full bucket is part of that. The time is that from the first answer, which
        shows how full the server's buckets are, to the last sending; or that of the
        `whole` run, which begins with the wait for that answer and ends with the last
        one. Empty without an answer: what was let go may never have been sent.
        """
        if self._answered_at is None:
            return {}

        self._refill(time.monotonic())
        used = self._used()
        limits = self.limits()
        found = {}
        for (name, per), allowance in self._allowances.items():
            if name not in used:
                continue
            allowed = allowance.while_sending
            if whole:
                until_answer = self._answered_at - self.started
                amount = limits.get((name, per), 0.0)
                allowed = allowance.refilled + amount * until_answer / per
            found[name, per] = max(used[name] - allowance.before, 0.0) / allowed
        return found

    def remaining(self) -> float | None:
        """Return the seconds until the end; None until there is enough to go by.

        The rest goes at the rate of the limits, and no faster than in the last minute.
        """
        rest = self.left - self.done
        then = self._samples[0]
        elapsed = time.monotonic() - then.time
        done = self.done - then.done
        if not done:
            return None

        if done < FEWEST_ANSWERS:  # in the last minute
            done, elapsed = self.done, self.seconds
        if done < FEWEST_ANSWERS or elapsed < SHORTEST_TIME:
            return None

        guesses = [rest * elapsed / done]
        need = {"requests": float(rest), "tokens": rest * self.tokens / self.done}
        levels: dict[str, float] = {}
        for family in self._limiter.statistics().families.values():
            for label, level in family.levels.items():
                levels[label] = levels.get(label, 0.0) + level
        for (name, per), amount in self.limits().items():
            if name in need:
                level = levels.get(label_of(name, per), 0.0)
                guesses.append((need[name] - level) * per / amount)
        return max(guesses)
