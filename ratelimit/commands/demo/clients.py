"""Three ways of sending the same calls: a semaphore, back-off, and the limiter.

Owns what each client does and what is counted of it. Must never show, read files or
serve. All three use the same real client of the openai library, and each may have
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

from ratelimit import RateLimiter
from ratelimit.commands.calls import Call

IN_FLIGHT: Final = 50
"""Calls that each client may have in flight."""

ATTEMPTS: Final = 6
"""Of the back-off, as the OpenAI cookbook recommends; its waits are 1 to 60 s, too."""

LONGEST_BACKOFF: Final = 25.0
"""Seconds after which the back-off gives up; the cookbook has no such bound."""

Send = Callable[[Call], Awaitable[Any]]

_NO_FIELDS: Final = frozenset({"self", "extra_headers", "extra_query", "extra_body", "timeout"})
"""Parameters of the SDK's method that are no fields of the request body."""

_FIELDS: Final = frozenset(inspect.signature(AsyncCompletions.create).parameters) - _NO_FIELDS


@dataclass(slots=True)
class ClientFigures:
    """What one client has come to."""

    name: str
    calls: int
    answered: int = 0
    rejected: int = 0
    """The 429s that it saw."""
    failed: int = 0
    longest_wait: float = 0.0
    """Seconds from the start to the last sending of a call."""
    started: float = 0.0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why calls failed, and how many."""

    def on_sending(self) -> None:
        """Note that a call is sent, for the first time or again."""
        self.longest_wait = max(self.longest_wait, asyncio.get_running_loop().time() - self.started)


async def warm_up(call: Call, client: AsyncOpenAI) -> None:
    """Send one call that does not count.

    The first call of a process builds the client's types, which takes a while.
    """
    uncounted = ClientFigures("", 1)
    await _one(_sender(client, uncounted, uncounted), call, uncounted)


async def run_client(
    figures: ClientFigures, calls: Sequence[Call], client: AsyncOpenAI, limiter: RateLimiter
) -> None:
    """Hand over all calls at once, in the way that the figures name; count."""
    # A call is handed to the wrapped client at once, and sent when its turn has come.
    waits_inside = figures.name == "limiter"
    if waits_inside:
        client = limiter.wrap(client)
    send = CLIENTS[figures.name](
        _sender(client, ClientFigures("", 0) if waits_inside else figures, figures)
    )
    now = asyncio.get_running_loop().time
    figures.started = now()
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(_one(send, call, figures))
    finally:
        figures.seconds = now() - figures.started
        if waits_inside:
            figures.longest_wait = max(
                family.longest_wait for family in limiter.statistics().families.values()
            )


async def _one(send: Send, call: Call, figures: ClientFigures) -> None:
    try:
        answer = await send(call)
        if isinstance(answer, AsyncIterator):
            async for _ in answer:
                pass
    except Exception as error:  # noqa: BLE001  # whatever becomes of one call is counted, with its reason
        figures.failed += 1
        figures.reasons[_reason(error)] += 1
    else:
        figures.answered += 1


def _reason(error: Exception) -> str:
    return "429" if isinstance(error, RateLimitError) else f"{type(error).__name__}: {error}"


def _sender(client: AsyncOpenAI, sending: ClientFigures, figures: ClientFigures) -> Send:
    async def send(call: Call) -> Any:
        """Send one HTTP request; a known bill goes with it for the server."""
        known = {name: value for name, value in call.body.items() if name in _FIELDS}
        other = {name: value for name, value in call.body.items() if name not in _FIELDS}
        headers = {"x-fake-usage": json.dumps(call.usage)} if call.usage else None
        sending.on_sending()
        try:
            return await client.chat.completions.create(
                **known, extra_body=other or None, extra_headers=headers
            )
        except RateLimitError:
            figures.rejected += 1
            raise

    return send


def semaphore(send: Send) -> Send:
    """Bound the calls in flight; what is refused is lost."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def ask(call: Call) -> Any:
        async with slots:
            return await _whole(send, call)

    return ask


def backoff(send: Send) -> Send:
    """Add to the semaphore that a refused call is sent again, after a doubling wait."""
    retry = tenacity.retry(
        retry=tenacity.retry_if_exception_type(RateLimitError),
        wait=tenacity.wait_random_exponential(min=1, max=60),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(ATTEMPTS), tenacity.stop_before_delay(LONGEST_BACKOFF)
        ),
        reraise=True,
    )
    retried: Send = retry(semaphore(send))
    return retried


def limited(send: Send) -> Send:
    """Add nothing: each attempt waits inside the wrapped client for the limits."""
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
