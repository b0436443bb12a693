"""Ways to make calls through a limiter: threads, tasks, decorator and wrapped client.

Owns how the calls are made. Must never contain counting or servers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

import anyio
import openai

from benchmarks.wrapped.cost import request
from ratelimit import RateLimiter


def ask_threads(limiter: RateLimiter, url: str, calls: int, **options: Any) -> int:
    """Make the calls from as many threads; return how many were answered."""
    answered: list[object] = []
    client = limiter.wrap(openai.OpenAI(api_key="none", base_url=url, **options))

    def one() -> None:
        # what the SDK gave up after its retries; the ledger knows each attempt
        with contextlib.suppress(openai.APIError):
            answered.append(client.chat.completions.create(**request()))

    threads = [threading.Thread(target=one) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    return len(answered)


def ask_tasks(backend: str) -> Callable[..., int]:
    """Make the calls from as many tasks of this event loop."""

    def ask(limiter: RateLimiter, url: str, calls: int, **options: Any) -> int:
        answered: list[object] = []

        async def main() -> None:
            async with limiter.wrap(
                openai.AsyncOpenAI(api_key="none", base_url=url, **options)
            ) as client:

                async def one() -> None:
                    with contextlib.suppress(openai.APIError):
                        answered.append(await client.chat.completions.create(**request()))

                async with anyio.create_task_group() as group:
                    for _ in range(calls):
                        group.start_soon(one)

        anyio.run(main, backend=backend)
        return len(answered)

    return ask


def ask_decorated(limiter: RateLimiter, url: str, calls: int, **options: Any) -> int:
    """Make the calls through decorator and wrapped client at once, from threads."""
    answered: list[object] = []
    client = limiter.wrap(openai.OpenAI(api_key="none", base_url=url, **options))

    @limiter
    def ask(**body: Any) -> object:
        return client.chat.completions.create(**body)

    def one() -> None:
        with contextlib.suppress(openai.APIError):
            answered.append(ask(**request()))

    threads = [threading.Thread(target=one) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    return len(answered)


ENTRY_POINTS: Final[dict[str, Callable[..., int]]] = {
    "threads": ask_threads,
    "asyncio": ask_tasks("asyncio"),
    "trio": ask_tasks("trio"),
    "decorator + wrap": ask_decorated,
}
"""By name, what takes a limiter, a URL and a number of calls."""
