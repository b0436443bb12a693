"""What a run over a file has come to, and how that is shown while it goes on.

Owns counting, rates over the last minute, the estimated end, and the look. Must never
come in: sending, files, deciding anything.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ratelimit.batch import Result
from ratelimit.commands.show import PLAIN_EVERY, duration
from ratelimit.limiter import RateLimiter

MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Prices:
    """Per million tokens of prompt and of output, in whatever currency; None where
    nobody gave any.
    """

    prompt: float | None = None
    output: float | None = None

    def __bool__(self) -> bool:
        return self.prompt is not None or self.output is not None

    def of(self, prompt_tokens: float, output_tokens: float) -> float:
        """What so many tokens cost."""
        return ((self.prompt or 0) * prompt_tokens + (self.output or 0) * output_tokens) / 1e6


@dataclass(frozen=True, slots=True)
class Use:
    """Of one limit: what was used of it in the last minute, and what it allows in one."""

    name: str
    used: float
    allowed: float


class Meter:
    """Counts one run.

    :param left: requests to be sent; `earlier`: results that were there before.
    :param models: whose limits matter.
    """

    def __init__(
        self, limiter: RateLimiter, left: int, earlier: int, models: Iterable[str], prices: Prices
    ) -> None:
        self._limiter = limiter
        self._models = tuple(models)
        self._prices = prices
        self.left, self.earlier = left, earlier
        self.done = self.failed = 0
        self.prompt_tokens = self.output_tokens = self.tokens = 0
        self.started = self._sent_at = time.monotonic()
        self._answered_at: float | None = None
        self._sent = 0
        # time, admitted, tokens, done
        self._samples: deque[tuple[float, int, int, int]] = deque([(self.started, 0, 0, 0)])

    def hear(self, result: Result) -> None:
        """Count one more result."""
        if self._answered_at is None:
            self._answered_at = time.monotonic()
        self.done += 1
        self.failed += not result.ok
        usage = result.usage
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.output_tokens += usage.output_tokens
            self.tokens += usage.total_tokens

    @property
    def refused(self) -> int:
        """429s so far."""
        return self._limiter.statistics().refused

    @property
    def admitted(self) -> int:
        """Attempts that the limiter has let go, the SDK's retries included."""
        return sum(family.admitted for family in self._limiter.statistics().families.values())

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def cost(self) -> float | None:
        """So far; None where no price was given."""
        return self._prices.of(self.prompt_tokens, self.output_tokens) if self._prices else None

    def sample(self) -> None:
        """Note where things stand, a few times a second; the rates of the last minute
        come of it.
        """
        now, sent = time.monotonic(), self.admitted
        if sent > self._sent:
            self._sent, self._sent_at = sent, now
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, sent, self.tokens, self.done))
            while len(self._samples) > 2 and self._samples[1][0] <= now - MINUTE:
                self._samples.popleft()

    def limits(self) -> dict[tuple[str, float], float]:
        """All limits that hold, learned ones too: amount by (name, seconds), summed
        over the models' families.
        """
        families = {id(limits): limits for limits in map(self._limiter.limits, self._models)}
        found: dict[tuple[str, float], float] = {}
        for limits in families.values():
            for limit in limits:
                found[limit.name, limit.per] = (
                    found.get((limit.name, limit.per), 0.0) + limit.amount
                )
        return found

    def uses(self) -> list[Use]:
        """What the last minute used of each limit per minute."""
        _, admitted, tokens, _ = self._samples[0]
        used = {
            "requests": ("RPM", self.admitted - admitted),
            "tokens": ("TPM", self.tokens - tokens),
        }
        return [
            Use(*used[name], allowed)
            for (name, per), allowed in self.limits().items()
            if per == MINUTE and name in used
        ]

    def share(self, *, whole: bool = False) -> dict[tuple[str, float], float]:
        """Of what each limit let through, its full bucket included, the part that was
        used.

        Over the time from the first answer, which tells how full the server's buckets
        are, to the last sending; or over the `whole` run, which begins with the wait
        for that answer and ends with the last one. Empty without an answer: what was
        let go may never have been sent.
        """
        if self._answered_at is None:
            return {}
        used = {"requests": self.admitted, "tokens": self.tokens}
        seconds = self.seconds if whole else max(self._sent_at - self._answered_at, 0.0)
        return {
            (name, per): used[name] / (amount * (1 + seconds / per))
            for (name, per), amount in self.limits().items()
            if name in used
        }

    def remaining(self) -> float | None:
        """Seconds until the end, as far as it can be told: at the rate of the limits,
        at the speed of the last minute at most.
        """
        rest = self.left - self.done
        then, _, _, done = self._samples[0]
        elapsed = time.monotonic() - then
        if not self.done or self.done == done or not elapsed:
            return None
        guesses = [rest * elapsed / (self.done - done)]
        need = {"requests": float(rest), "tokens": rest * self.tokens / self.done}
        levels: dict[str, float] = {}
        for family in self._limiter.statistics().families.values():
            for label, level in family.levels.items():
                levels[label] = levels.get(label, 0.0) + level
        for (name, per), amount in self.limits().items():
            if name in need:
                guesses.append((need[name] - levels.get(f"{name}/{per:g}s", 0.0)) * per / amount)
        return max(guesses)

    def told(self) -> str:
        """All of it but the bar, in one line."""
        parts = [f"{self.failed} failed", f"{self.refused} 429s"]
        parts += [f"{use.used:,.0f}/{use.allowed:,.0f} {use.name}" for use in self.uses()]
        if (cost := self.cost) is not None:
            parts.append(f"cost {cost:,.2f}")
        if (seconds := self.remaining()) is not None:
            parts.append(f"{duration(seconds)} left")
        return ", ".join(parts)


@contextmanager
def display(console: Console, meter: Meter) -> Iterator[Callable[[], None]]:
    """Yield the function to call a few times a second; on a terminal the line lives in
    place, elsewhere there is one every five seconds.
    """
    if console.is_terminal:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=meter.left + meter.earlier, told="")

            def look() -> None:
                meter.sample()
                progress.update(bar, completed=meter.done + meter.earlier, told=meter.told())

            yield look
            look()
    else:
        last = time.monotonic()

        def line() -> None:
            nonlocal last
            meter.sample()
            if time.monotonic() - last >= PLAIN_EVERY:
                last = time.monotonic()
                console.print(
                    f"{meter.done + meter.earlier} of {meter.left + meter.earlier} done, {meter.told()}",
                    highlight=False,
                    markup=False,
                )

        yield line
