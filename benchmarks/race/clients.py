"""The clients of the race, and what each of them was given.

Owns how a client sends one job, ours and the simple ones that people write themselves;
`peers.py` has the packages. Must never contain workloads, measuring, knowledge of
a job's bill. A client sees the body, the limits, and what comes back.

Everybody gets the same limits and the same fresh SDK client. A limiter that waits
before it sends keeps the SDK's usual two retries, since that is how people use it.
Limiters without an estimator of their own reserve the prompt, counted by tiktoken, and
`max_tokens` (ABSENT without one).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import openai
import tenacity
from aiolimiter import AsyncLimiter

from benchmarks.race.workloads import Job
from ratelimit import RateLimiter
from ratelimit.admission.clock import Clock
from ratelimit.testing.prompts import count_prompt

AT_ONCE: Final = 20
"""Calls in flight of the client that only bounds their number."""
ATTEMPTS: Final = 6
"""Retries of the client that leaves everything to the SDK; its default of two fails
most calls of a saturated limit.
"""
ABSENT: Final = 256
"""Tokens that simple clients reserve for an answer whose body sets no bound."""

Body = Mapping[str, Any]
Send = Callable[[Job], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Ground:
    """What every client is given: limits, a clock, an SDK client, a stack that closes.

    `level`: how full the server's buckets are at the start; only the decorator, which
    sees no headers, has a setting for it.
    """

    variant: str
    limits: Mapping[str, float]
    level: float
    clock: Clock
    connect: Callable[[int], openai.AsyncOpenAI]
    """`connect(retries)` makes a fresh SDK client"""
    closing: AsyncExitStack
    base_url: str


class Unavailable(Exception):
    """A client cannot run here; the text says what brings it."""


def asking(client: openai.AsyncOpenAI) -> Send:
    """Send a job as everybody does."""

    async def ask(job: Job) -> object:
        return await client.chat.completions.create(**job.body, extra_headers=job.headers)

    return ask


def reserve(body: Body, absent: int = ABSENT) -> int:
    """Return prompt tokens and the longest answer: the reserve of simple clients."""
    most = next(
        (
            body[name]
            for name in ("max_tokens", "max_completion_tokens")
            if body.get(name) is not None
        ),
        absent,
    )
    return prompt_of(body) + int(most) * int(body.get("n") or 1)


def prompt_of(body: Body) -> int:
    """Prompt tokens as tiktoken counts them, the envelope included."""
    return count_prompt("chat.completions", body)


# ours

ACCOUNTING: Final[Mapping[str, str]] = {"I": "charge", "A": "never_refund", "C": "refund"}
"""What a user of the decorator tells it of the server; headers do not reach a decorated
function, so it cannot find out.
"""


def accounting_of(variant: str) -> str:
    """Return the decorator's accounting for a variant, "reconcile" by default."""
    return next(
        (ACCOUNTING[letter] for letter in variant.split("+") if letter in ACCOUNTING), "reconcile"
    )


def decorator(ground: Ground) -> Send:
    """`@limiter`: limits, accounting and the first level are given, headers unseen."""
    accounting: Any = accounting_of(ground.variant)
    limiter = RateLimiter(
        **_limits(ground), accounting=accounting, initial_level=ground.level, clock=ground.clock
    )
    return limiter.limit(request=lambda job: job.body)(asking(ground.connect(2)))


def wrapped(ground: Ground) -> Send:
    """Send through `limiter.wrap(client)` ; limits are given."""
    return asking(RateLimiter(**_limits(ground), clock=ground.clock).wrap(ground.connect(2)))


def learned(ground: Ground) -> Send:
    """`limiter.wrap(client)` with nothing given: limits too are found out."""
    return asking(RateLimiter(clock=ground.clock).wrap(ground.connect(2)))


def _limits(ground: Ground) -> dict[str, Any]:
    return dict(ground.limits)


# what people write themselves


def semaphore(ground: Ground) -> Send:
    """Nothing but a bound on the calls in flight; a 429 is a failure."""
    ask, room = asking(ground.connect(0)), asyncio.Semaphore(AT_ONCE)

    async def bounded(job: Job) -> object:
        async with room:
            return await ask(job)

    return bounded


def sdk(ground: Ground) -> Send:
    """The SDK's own retries, which obey `retry-after`."""
    return asking(ground.connect(ATTEMPTS))


def backoff(ground: Ground) -> Send:
    """Back off exponentially with jitter, as OpenAI's guide shows it with tenacity.

    The wait is 1 to 60 s, there are six attempts.
    """
    patient = tenacity.retry(
        retry=tenacity.retry_if_exception_type(openai.RateLimitError),
        wait=tenacity.wait_random_exponential(min=1, max=60),
        stop=tenacity.stop_after_attempt(6),
        reraise=True,
    )
    return patient(asking(ground.connect(0)))


def pair(ground: Ground) -> Send:
    """One aiolimiter for each limit, taken one after the other."""
    ask = asking(ground.connect(2))
    periods = {"rpm": 60, "rpd": 86_400, "tpm": 60, "tpd": 86_400}
    limiters = {name: AsyncLimiter(limit, periods[name]) for name, limit in ground.limits.items()}

    async def limited(job: Job) -> object:
        tokens = reserve(job.body)
        for name, limiter in limiters.items():
            await limiter.acquire(1 if name.startswith("r") else tokens)
        return await ask(job)

    return limited


class Cookbook:
    """The loop of the cookbook's parallel request processor, written anew.

    One loop hands out capacity that refills by elapsed time; the oldest job goes first
    and waits for both limits; a failed call joins the queue again, five attempts in
    all; after a 429 nothing is sent for 15 s. It never gives back what was not used.
    The original looks every millisecond; this one does not look where it would find
    nothing: while the queue is empty, and until the oldest job fits.
    """

    LOOK = 0.001
    PAUSE = 15.0
    TRIES = 5
    OUTPUT = 15
    """Tokens it reserves for an answer without `max_tokens`."""

    def __init__(self, ground: Ground) -> None:
        self._ask = asking(ground.connect(0))
        self._line: list[tuple[Job, int, asyncio.Future[object]]] = []
        self._limits = ground.limits["rpm"], ground.limits["tpm"]
        self._left = list(self._limits)
        self._now = asyncio.get_running_loop().time
        self._seen, self._paused_until = self._now(), 0.0
        self._calls: set[asyncio.Task[None]] = set()
        self._joined = asyncio.Event()
        loop = asyncio.ensure_future(self._run())
        ground.closing.callback(loop.cancel)

    async def __call__(self, job: Job) -> object:
        """Join the queue and wait for the answer.

        The original never ends for a job that never fits; here that job fails, so that
        the race ends.
        """
        if reserve(job.body, self.OUTPUT) > self._limits[1]:
            raise ValueError("this call never fits")
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._join(job, self.TRIES, answer)
        return await answer

    def _join(self, job: Job, tries: int, answer: asyncio.Future[object]) -> None:
        self._line.append((job, tries, answer))
        self._joined.set()

    async def _run(self) -> None:
        while True:
            now = self._now()
            self._left = [
                min(limit, left + limit * (now - self._seen) / 60)
                for limit, left in zip(self._limits, self._left, strict=True)
            ]
            self._seen = now
            if not self._line:
                self._joined.clear()
                await self._joined.wait()
                continue
            await asyncio.sleep(max(self._paused_until - now, self._step(), self.LOOK))

    def _step(self) -> float:
        """Send the oldest job if it fits; answer the seconds until it does."""
        job, tries, answer = self._line[0]
        needed = 1, reserve(job.body, self.OUTPUT)
        lacking = max(
            (need - left) * 60 / limit
            for need, left, limit in zip(needed, self._left, self._limits, strict=True)
        )
        if lacking <= 0 and self._now() >= self._paused_until:
            del self._line[0]
            self._left = [left - need for left, need in zip(self._left, needed, strict=True)]
            call = asyncio.ensure_future(self._send(job, tries - 1, answer))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        return lacking

    async def _send(self, job: Job, tries: int, answer: asyncio.Future[object]) -> None:
        try:
            answer.set_result(await self._ask(job))
        except openai.OpenAIError as error:
            if isinstance(error, openai.RateLimitError):
                self._paused_until = self._now() + self.PAUSE
            if tries:
                self._join(job, tries, answer)
            else:
                answer.set_exception(error)


CLIENTS: Final[Mapping[str, Callable[[Ground], Send]]] = {
    "limiter/decorator": decorator,
    "limiter/wrapped": wrapped,
    "limiter/learned": learned,
    "semaphore": semaphore,
    "sdk retries": sdk,
    "tenacity": backoff,
    "aiolimiter pair": pair,
    "cookbook": Cookbook,
}
OURS: Final = frozenset({"limiter/decorator", "limiter/wrapped", "limiter/learned"})
