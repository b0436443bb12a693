"""Where calls in flight are limited, no slot waits for who cannot end its call."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from openai import AsyncOpenAI, OpenAI

from ratelimit import RateLimiter, WaitTimeout, WouldBlock
from ratelimit.lease.flights import MOST, flights_of
from ratelimit.testing import FakeOpenAI, Latency

pytestmark = pytest.mark.usefixtures("vocabulary")

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 20,
}


def in_time(act: Callable[[], Any]) -> Any:
    """Act in a thread that must end within seconds: a hang is a failure, not a wait."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(act()), daemon=True)
    thread.start()
    thread.join(10)
    assert found, "hangs"
    return found[0]


@pytest.fixture
def url() -> Iterator[str]:
    """A server on loopback that answers at once."""
    with FakeOpenAI(latency=Latency(base=0.0, per_token=0.001)).serve() as served:
        yield served


def test_a_call_inside_the_loop_over_a_stream_uses_its_slot(url: str) -> None:
    """While the call is made nobody reads the stream, so it cannot end before."""
    limiter = RateLimiter(rpm=1_000, concurrency=1)
    client = limiter.wrap(OpenAI(base_url=url, api_key="any", max_retries=0))

    def nested() -> int:
        answers = 0
        for _ in client.chat.completions.create(stream=True, **BODY):
            client.chat.completions.create(**BODY)
            answers += 1
        return answers

    assert in_time(nested) > 1
    assert limiter.statistics().in_flight == 0


def test_a_call_inside_the_loop_over_an_async_stream_uses_its_slot(url: str) -> None:
    """The same in a task, and with the other kinds of client."""
    limiter = RateLimiter(rpm=1_000, concurrency=1)

    async def nested() -> int:
        client = limiter.wrap(AsyncOpenAI(base_url=url, api_key="any", max_retries=0))
        answers = 0
        async with client:
            async for _ in await client.chat.completions.create(stream=True, **BODY):
                await client.chat.completions.create(**BODY)
                answers += 1
        return answers

    assert in_time(lambda: asyncio.run(nested())) > 1


def test_two_decorated_generators_that_are_read_together_share_a_slot() -> None:
    """As `zip` does; and a third call inside the loop, too."""
    limiter = RateLimiter(rpm=1_000, concurrency=1)

    @limiter
    def words(**_body: Any) -> Iterator[str]:
        yield from ["one", "two", "three"]

    def read() -> list[tuple[str, str]]:
        pairs = []
        for pair in zip(words(**BODY), words(**BODY), strict=True):
            limiter.acquire_sync(tokens=1).settle(tokens=1)
            pairs.append(pair)
        return pairs

    assert len(in_time(read)) == 3
    assert limiter.statistics().in_flight == 0


def test_a_stream_that_another_task_reads_keeps_its_slot() -> None:
    """Its reader goes on, so the slot comes back by itself: nothing is shared."""
    limiter = RateLimiter(rpm=1_000, concurrency=1)

    @limiter
    async def words(**_body: Any) -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(0.05)
        yield "two"

    async def main() -> list[str]:
        order: list[str] = []
        stream = words(**BODY)
        order.append(await anext(stream))

        async def read() -> None:
            order.extend([word async for word in stream])

        task = asyncio.ensure_future(read())
        await asyncio.sleep(0.01)
        second = await limiter.acquire(tokens=1, timeout=5)
        order.append("a call")
        second.settle(tokens=1)
        await task
        return order

    assert in_time(lambda: asyncio.run(main()))[:1] == ["one"]
    assert limiter.statistics().in_flight == 0


def test_leases_by_hand_are_nobodys_inside() -> None:
    """A task may take many and give them to its workers: it waits for these."""
    limiter = RateLimiter(rpm=1_000, concurrency=2)

    async def main() -> int:
        most = done = 0

        async def work(lease: Any) -> None:
            nonlocal most, done
            most = max(most, limiter.statistics().in_flight)
            await asyncio.sleep(0.01)
            lease.settle(tokens=1)
            done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(work(await limiter.acquire(tokens=1)))
        assert done == 6
        return most

    assert in_time(lambda: asyncio.run(main())) == 2


def leave(limiter: RateLimiter, door: str) -> list[Any]:
    """Close an event loop around calls in flight, and return what keeps them alive."""

    async def with_reservation() -> None:
        async with limiter.reserve(tokens=1):
            await asyncio.sleep(100)

    async def by_hand() -> None:
        lease = await limiter.acquire(tokens=1)
        await asyncio.sleep(100)
        lease.close()

    async def at_once() -> None:
        lease = limiter.acquire_nowait(tokens=1)
        await asyncio.sleep(100)
        lease.close()

    @limiter
    async def decorated(**_body: Any) -> None:
        await asyncio.sleep(100)

    @limiter
    async def generator(**_body: Any) -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(100)

    async def read() -> None:
        async for _ in generator(**BODY):
            pass

    start: Callable[[], Any] = {
        "with": with_reservation,
        "by hand": by_hand,
        "at once": at_once,
        "decorated": lambda: decorated(**BODY),
        "generator": read,
    }[door]
    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(start()) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    return tasks


@pytest.mark.parametrize("door", ["with", "by hand", "at once", "decorated", "generator"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.filterwarnings("ignore:coroutine")
def test_calls_of_a_closed_event_loop_hold_nobody_up(door: str, kept: bool) -> None:
    """Whether their tasks are still referenced or not."""
    limiter = RateLimiter(rpm=1_000, concurrency=2)
    tasks = leave(limiter, door)
    if not kept:
        del tasks
        gc.collect()

    limiter.acquire_nowait(tokens=1).settle(tokens=1)

    async def in_another_loop() -> None:
        for _ in range(3):
            (await limiter.acquire(tokens=1, timeout=5)).settle(tokens=1)

    asyncio.run(in_another_loop())
    assert limiter.statistics().in_flight == 0


def test_a_call_that_waits_sees_that_an_event_loop_was_closed() -> None:
    """Nobody wakes it then, so it looks by itself."""
    limiter = RateLimiter(rpm=1_000, concurrency=1)
    loop = asyncio.new_event_loop()
    lease = loop.run_until_complete(limiter.acquire(tokens=1))
    with pytest.raises(WouldBlock):
        limiter.acquire_nowait(tokens=1)

    threading.Timer(0.1, loop.close).start()
    in_time(lambda: limiter.acquire_sync(tokens=1)).settle(tokens=1)
    assert lease.cost["requests"] == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_calls_of_a_running_event_loop_keep_their_slots(backend: str) -> None:
    """Another thread waits for them."""
    limiter = RateLimiter(rpm=1_000, concurrency=1)

    async def main() -> None:
        lease = await limiter.acquire(tokens=1)
        with pytest.raises(WaitTimeout):
            await anyio.to_thread.run_sync(lambda: limiter.acquire_sync(tokens=1, timeout=1.5))
        lease.settle(tokens=1)

    in_time(lambda: (anyio.run(main, backend=backend), True))
    assert limiter.statistics().in_flight == 0


@pytest.mark.parametrize("door", ["decorated", "reserved", "by hand", "generator"])
def test_the_cold_start_is_not_held_by_a_call_that_waits_for_another(url: str, door: str) -> None:
    """An attempt brings the headers that the rest waits for; what was taken around it,
    in a thread that knows nothing of that, does not.
    """
    limiter = RateLimiter(rpm=1_000)
    client = limiter.wrap(OpenAI(base_url=url, api_key="any", max_retries=0))

    def ask() -> bool:
        return bool(client.chat.completions.create(**BODY).choices)

    def attempts() -> int:
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask) for _ in range(3)]
            return sum(one.result() for one in asked)

    @limiter
    def decorated(**_body: Any) -> int:
        return attempts()

    @limiter
    def generator(**_body: Any) -> Iterator[str]:
        yield "one"

    def act() -> int:
        if door == "decorated":
            return decorated(**BODY)
        if door == "reserved":
            with limiter.reserve(tokens=1):
                return attempts()
        if door == "generator":
            return sum(attempts() for _ in generator(**BODY))
        lease = limiter.acquire_sync(tokens=1)
        found = attempts()
        lease.settle(tokens=1)
        return found

    assert in_time(act) == 3


def test_attempts_still_wait_for_the_first_headers(url: str) -> None:
    """A server that is almost empty must not get them all at once."""
    limiter = RateLimiter(rpm=1_000)
    client = limiter.wrap(AsyncOpenAI(base_url=url, api_key="any", max_retries=0))
    most = 0

    async def main() -> None:
        nonlocal most
        async with client:
            calls = [client.chat.completions.create(**BODY) for _ in range(5)]
            tasks = [asyncio.ensure_future(call) for call in calls]
            while not all(task.done() for task in tasks):
                store = limiter._engine.families()["*"].admission.store
                if store.concurrency == 1:
                    most = max(most, store.in_flight)
                await asyncio.sleep(0.001)

    in_time(lambda: (asyncio.run(main()), True))
    assert most == 1


def steps_of(act: Callable[[], Any]) -> int:
    """Count the functions that an act calls, of Python's and of C's.

    The least of several times: a collection of garbage may come between.
    """
    steps: list[int] = []

    def count(_frame: Any, event: str, _argument: Any) -> None:
        steps[-1] += event in {"call", "c_call"}

    for _ in range(9):
        steps.append(0)
        sys.setprofile(count)
        try:
            act()
        finally:
            sys.setprofile(None)
    return min(steps)


def test_a_call_takes_as_many_steps_whatever_is_in_flight() -> None:
    """Only the streams that its own task reads are looked at."""
    limiter = RateLimiter(rpm=100_000, concurrency=5_000)

    @limiter
    def words(**_body: Any) -> Iterator[str]:
        yield "one"

    def read(number: int) -> list[Any]:
        streams = [words(**BODY) for _ in range(number)]
        for stream in streams:
            next(stream)
        return streams

    def steps() -> int:
        return steps_of(lambda: limiter.acquire_nowait(tokens=1).settle(tokens=1))

    with ThreadPoolExecutor(1) as pool:
        kept = [pool.submit(read, 10).result()]
        steps()
        few = steps()
        kept.append(pool.submit(read, 500).result())

        assert steps() == few
        assert limiter.statistics().in_flight == sum(map(len, kept))
        for stream in [*kept[0], *kept[1]]:
            stream.close()


def test_a_call_without_a_free_slot_looks_at_event_loops_not_at_calls() -> None:
    """Whether a slot is lost to a closed event loop is seen without a look at each."""
    steps = []
    for slots in (10, 500):
        limiter = RateLimiter(rpm=100_000, concurrency=slots)

        async def main(limiter: RateLimiter, slots: int) -> int:
            held = [limiter.acquire_nowait(tokens=1) for _ in range(slots)]

            def refused() -> None:
                with pytest.raises(WouldBlock):
                    limiter.acquire_nowait(tokens=1)

            refused()
            found = steps_of(refused)
            for lease in held:
                lease.settle(tokens=1)
            return found

        steps.append(asyncio.run(main(limiter, slots)))

    assert steps[0] == steps[1]


def test_event_loops_that_were_closed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may make one for each of its calls; those of calls that are in flight
    stay known, so that these are ended when a slot is wanted.
    """
    monkeypatch.setattr("ratelimit.lease.flights.MOST", 5)
    limiter = RateLimiter(rpm=100_000, concurrency=4)
    kept = []
    for number in range(40):
        loop = asyncio.new_event_loop()
        kept.append((loop, loop.run_until_complete(limiter.acquire(tokens=1))))
        if number >= 3:
            kept[-1][1].settle(tokens=1)
        loop.close()
    noted = flights_of(limiter._engine.families()["*"])._loops
    known = [reference() for reference in noted]

    assert known[:3] == [loop for loop, _ in kept[:3]]
    assert len(known) <= 15
    taken = [limiter.acquire_nowait(tokens=1) for _ in range(4)]
    assert len(noted) == 0
    for lease in taken:
        lease.settle(tokens=1)


def test_what_was_read_is_forgotten() -> None:
    """A task that reads one stream after the other keeps the last ones in mind."""
    limiter = RateLimiter(rpm=1_000_000, concurrency=5)

    @limiter
    def words(**_body: Any) -> Iterator[str]:
        yield "one"

    for _ in range(2 * MOST):
        list(words(**BODY))
    flights = flights_of(limiter._engine.families()["*"])

    assert len(flights._of) <= MOST
    assert [len(streams.numbers) for streams in flights._read_by.values()] == [1]
    flights._of.clear()
    assert len(flights._read_by) == 0
