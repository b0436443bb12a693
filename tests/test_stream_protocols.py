"""What a decorated function returns keeps its protocols, exactly.

For web frameworks, for `isinstance`, `hasattr` and the language.
"""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from ratelimit import RateLimiter
from ratelimit.integrations.bodies import MeteredBody, ReplayedBody
from ratelimit.testing import ThreadClock

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 300,
}
USED: dict[str, Any] = {
    "choices": [],
    "usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40},
}


def limiter() -> RateLimiter:
    """1,000 tokens on a clock that stands still."""
    return RateLimiter(tpm=1_000, arrival_slack=0, clock=ThreadClock())


def spent(of: RateLimiter) -> float:
    """Tokens that are held or used."""
    return round(1_000 - of.statistics().families["*"].levels["tokens/60s"], 6)


def in_flight(of: RateLimiter) -> int:
    """Calls between admission and settlement."""
    return of.statistics().families["*"].in_flight


class Chunks:
    """An iterator that is no generator, with a context manager and a length."""

    def __init__(self) -> None:
        self.left: list[Any] = ["a", USED]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def __len__(self) -> int:
        return len(self.left)

    def __enter__(self) -> Chunks:
        return self

    def __exit__(self, *_: object) -> None:
        self.left.clear()


class AsyncChunks:
    """An async iterator with its context manager."""

    def __init__(self) -> None:
        self.left: list[Any] = ["a", USED]

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await anyio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    async def __aenter__(self) -> AsyncChunks:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left.clear()


class Pending:
    """An awaitable that is a context manager as well, as aiohttp's requests are."""

    async def answer(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return USED

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.answer().__await__()

    async def __aenter__(self) -> Any:
        return await self.answer()

    async def __aexit__(self, *_: object) -> None:
        return None


class Iterable:
    """Awaitable, and iterable once more, as the SDK's pages are."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return Pending().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield "a"
        yield USED


def generator() -> Generator[Any]:
    """A generator."""
    yield "a"
    yield USED


async def async_generator() -> AsyncGenerator[Any]:
    """An async generator."""
    yield "a"
    yield USED


ABSTRACT = [
    getattr(collections.abc, name)
    for name in (
        "Iterable",
        "Iterator",
        "Generator",
        "AsyncIterable",
        "AsyncIterator",
        "AsyncGenerator",
        "Awaitable",
        "Coroutine",
        "Sized",
        "Container",
        "Sequence",
        "Callable",
    )
]
KINDS: list[Callable[[object], bool]] = [
    inspect.isgenerator,
    inspect.isasyncgen,
    inspect.isawaitable,
    inspect.iscoroutine,
]
NAMES = [
    "__iter__ __next__ send throw close gi_frame __aiter__ __anext__ asend athrow aclose ag_frame",
    "__enter__ __exit__ __aenter__ __aexit__ __await__ __len__ __contains__ __getitem__ left",
]


@pytest.mark.parametrize(
    "make", [generator, async_generator, Chunks, AsyncChunks, Pending, Iterable, lambda: iter([1])]
)
def test_a_proxy_has_exactly_the_protocols_of_what_it_stands_for(make: Any) -> None:
    """Every check gives the same answer as for the thing itself, and its class has the
    same special methods.
    """
    inner = make()
    proxy: Any = limiter()(lambda **_: inner)(**BODY)

    assert proxy is not inner
    assert [isinstance(proxy, kind) for kind in ABSTRACT] == [
        isinstance(inner, kind) for kind in ABSTRACT
    ]
    assert [is_kind(proxy) for is_kind in KINDS] == [is_kind(inner) for is_kind in KINDS]
    for name in " ".join(NAMES).split():
        assert hasattr(proxy, name) == hasattr(inner, name), name
        special = name.startswith("__")
        assert not special or hasattr(type(proxy), name) == hasattr(type(inner), name), name
    with_close = inspect.iscoroutinefunction(getattr(inner, "close", None))
    assert inspect.iscoroutinefunction(getattr(proxy, "close", None)) == with_close


@pytest.mark.parametrize("make", [generator, Chunks])
def test_starlette_streams_what_a_decorated_function_returns(make: Any) -> None:
    """A sync stream is iterated in a thread, as without the limiter, and settles."""
    held = limiter()

    def texts(**_: Any) -> Iterator[str]:
        return (str(chunk)[:1] for chunk in make())

    def endpoint(_: Any) -> StreamingResponse:
        return StreamingResponse(held.limit(settle="text")(texts)(**BODY))

    async def main() -> str:
        app = Starlette(routes=[Route("/", endpoint)])
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get("/")).text

    assert anyio.run(main) == "a{"
    assert in_flight(held) == 0


def test_starlette_streams_a_decorated_async_generator() -> None:
    """An async stream is awaited."""
    held = limiter()

    @held.limit(settle="text")
    async def texts(**_: Any) -> AsyncIterator[str]:
        async for chunk in async_generator():
            yield str(chunk)[:1]

    async def endpoint(_: Any) -> StreamingResponse:
        return StreamingResponse(texts(**BODY))

    async def main() -> str:
        app = Starlette(routes=[Route("/", endpoint)])
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get("/")).text

    assert anyio.run(main) == "a{"
    assert in_flight(held) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("way", ["await", "async with", "async for"])
def test_an_awaitable_with_more_protocols_settles_by_each(way: str, backend: str) -> None:
    """Awaited, entered or iterated: the call settles by what comes out."""
    held = limiter()

    async def main() -> Any:
        if way == "async for":
            return [chunk async for chunk in held(lambda **_: Iterable())(**BODY)][-1]
        pending: Any = held(lambda **_: Pending())(**BODY)
        assert in_flight(held) == 1
        if way == "await":
            return await pending
        async with pending as answer:
            return answer

    assert anyio.run(main, backend=backend) == USED
    assert (spent(held), in_flight(held)) == (40, 0)


def test_a_task_stays_the_task_that_it_is() -> None:
    """It can be gathered, cancelled and asked for its result; its call settles when it
    is done.
    """
    held = limiter()

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        returned = held(lambda **_: future)(**BODY)
        assert returned is future
        assert in_flight(held) == 1
        future.set_result(USED)
        assert await returned == USED
        await asyncio.sleep(0)
        assert (spent(held), in_flight(held)) == (40, 0)

        cancelled = held(lambda **_: asyncio.ensure_future(asyncio.sleep(9)))(**BODY)
        cancelled.cancel()
        await asyncio.wait([cancelled])

    asyncio.run(main())

    assert in_flight(held) == 0


def test_a_future_of_a_thread_stays_the_future_that_it_is() -> None:
    """An executor's as well; an error settles it by what is known of it."""
    held = limiter()
    answered: concurrent.futures.Future[Any] = concurrent.futures.Future()
    failed: concurrent.futures.Future[Any] = concurrent.futures.Future()

    assert held(lambda **_: answered)(**BODY) is answered
    answered.set_result(USED)
    assert (spent(held), in_flight(held)) == (40, 0)
    held(lambda **_: failed)(**BODY)
    failed.set_exception(ConnectionRefusedError())
    assert (spent(held), in_flight(held)) == (40, 0)


class SyncBody(httpx2.SyncByteStream):
    """A body that can be read by sync clients alone."""

    def __iter__(self) -> Iterator[bytes]:
        yield b""


@pytest.mark.parametrize("kind", [MeteredBody, ReplayedBody])
def test_a_body_has_the_protocols_of_what_it_replaces(kind: Any) -> None:
    """Never the async one of a sync body: HTTP clients choose by it."""
    body = kind(SyncBody(), *[None] * (2 if kind is ReplayedBody else 1))

    assert isinstance(body, httpx2.SyncByteStream)
    assert isinstance(body, collections.abc.Iterable)
    assert not isinstance(body, collections.abc.AsyncIterable)
