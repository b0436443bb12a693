"""Three ways of sending the same calls: a semaphore, exponential back-off, and the
limiter.

Owns what each client does and what is counted of it. Must never come in: tables, files,
the server. All three use the same real client of the openai library, and each may have
`IN_FLIGHT` calls in flight, so that they differ in one thing only: what they do about
the limit.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import tenacity
from openai import AsyncOpenAI, RateLimitError
from openai.resources.chat.completions import AsyncCompletions

from ratelimit.commands.calls import Call
from ratelimit.limiter import RateLimiter

IN_FLIGHT: Final = 50
# of the back-off, as the OpenAI cookbook recommends; likewise its waits of 1 to 60 s
ATTEMPTS: Final = 6
# seconds after which the back-off waits no more; the cookbook's six attempts take up to
# 31 s
PATIENCE: Final = 25.0

Send = Callable[[Call], Awaitable[Any]]

# of the method, not of the request
_OURS = frozenset({"self", "extra_headers", "extra_query", "extra_body", "timeout"})
_PARAMETERS = frozenset(inspect.signature(AsyncCompletions.create).parameters) - _OURS


@dataclass(slots=True)
class Tally:
    """What one client has come to. `rejected`: the 429s it saw; `longest_wait`: seconds
    from the start to the last sending of a call.
    """

    name: str
    calls: int
    answered: int = 0
    rejected: int = 0
    failed: int = 0
    longest_wait: float = 0.0
    started: float = 0.0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def sent(self) -> None:
        """A call goes out, for the first time or again."""
        self.longest_wait = max(self.longest_wait, asyncio.get_running_loop().time() - self.started)


async def warm_up(call: Call, client: AsyncOpenAI) -> None:
    """Send one call that nobody counts: the first of a process builds the client's
    types, and no client's clock should run for that.
    """
    nobody = Tally("", 1)
    await _one(_sender(client, nobody, nobody), call, nobody)


async def run_client(
    tally: Tally, calls: Sequence[Call], client: AsyncOpenAI, limiter: RateLimiter
) -> None:
    """Send all calls in the way that the tally's name says, all of them handed over at
    once; count.
    """
    # a call is handed to the wrapped client at once, and sent when its turn has come
    waits_inside = tally.name == "limiter"
    if waits_inside:
        client = limiter.wrap(client)
    send = CLIENTS[tally.name](_sender(client, Tally("", 0) if waits_inside else tally, tally))
    now = asyncio.get_running_loop().time
    tally.started = now()
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(_one(send, call, tally))
    finally:
        tally.seconds = now() - tally.started
        if waits_inside:
            tally.longest_wait = max(
                family.longest_wait for family in limiter.statistics().families.values()
            )


async def _one(send: Send, call: Call, tally: Tally) -> None:
    try:
        answer = await send(call)
        if isinstance(answer, AsyncIterator):
            async for _ in answer:
                pass
    except Exception as error:  # noqa: BLE001  # whatever becomes of one call, it is counted, with its reason, and the race goes on
        tally.failed += 1
        tally.reasons[_reason(error)] += 1
    else:
        tally.answered += 1


def _reason(error: Exception) -> str:
    return "429" if isinstance(error, RateLimitError) else f"{type(error).__name__}: {error}"


def _sender(client: AsyncOpenAI, sending: Tally, tally: Tally) -> Send:
    async def send(call: Call) -> Any:
        """One HTTP request; the bill, where it is known, goes with it for the server."""
        known = {name: value for name, value in call.body.items() if name in _PARAMETERS}
        other = {name: value for name, value in call.body.items() if name not in _PARAMETERS}
        headers = {"x-fake-usage": json.dumps(call.usage)} if call.usage else None
        sending.sent()
        try:
            return await client.chat.completions.create(
                **known, extra_body=other or None, extra_headers=headers
            )
        except RateLimitError:
            tally.rejected += 1
            raise

    return send


def semaphore(send: Send) -> Send:
    """So many at once, and no more: what is refused is lost."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def ask(call: Call) -> Any:
        async with slots:
            return await _whole(send, call)

    return ask


def backoff(send: Send) -> Send:
    """The semaphore, and each refused call tries again after a random, doubling time:
    six attempts within 25 s.
    """
    retry = tenacity.retry(
        retry=tenacity.retry_if_exception_type(RateLimitError),
        wait=tenacity.wait_random_exponential(min=1, max=60),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(ATTEMPTS), tenacity.stop_before_delay(PATIENCE)
        ),
        reraise=True,
    )
    retried: Send = retry(semaphore(send))
    return retried


def limited(send: Send) -> Send:
    """The wrapped client: each attempt waits inside it until the limits allow it; there
    is nothing to do around it.
    """
    return send


CLIENTS: Final[dict[str, Callable[[Send], Send]]] = {
    "semaphore": semaphore,
    "backoff": backoff,
    "limiter": limited,
}


async def _whole(send: Send, call: Call) -> Any:
    """Send and read to the end, so that a stream keeps its slot as long as it runs."""
    answer = await send(call)
    if isinstance(answer, AsyncIterator):
        return [chunk async for chunk in answer]
    return answer
