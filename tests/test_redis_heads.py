"""Steps that the head of a queue takes itself: in its event loop, or in its thread."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from benchmarks.sharing.redis_server import RedisServer
from ratelimit import LimiterWarning, RateLimiter
from ratelimit.stores.redis.store import RedisStore

_numbers = itertools.count()

BACKENDS = ["asyncio", "trio"]
REQUESTS = 1_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may hold up."""
    made = RedisServer(tmp_path)
    yield made
    made.signal(signal.SIGCONT)
    made.kill()


def made_limiter(server: RedisServer) -> tuple[RateLimiter, RedisStore]:
    """A limiter whose heads can take their steps themselves, and its store."""
    store = f"{server.url}?quota=heads-{next(_numbers)}"
    mine = RateLimiter(rpd=REQUESTS, arrival_slack=0, store=store)
    shared = mine._engine.families()["*"].admission.store
    assert isinstance(shared, RedisStore)
    while shared._line is None:
        mine.acquire_sync(requests=1).settle(requests=0)
    return mine, shared


def left(shared: RedisStore) -> float:
    """What is left of the requests, by the server's word."""
    shared.step()
    (level,) = shared.levels(shared._time()).values()
    return level


async def departed(shared: RedisStore) -> None:
    """Wait until a head is on its way."""
    while shared._trip is None:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", [*BACKENDS, "thread"])
def test_a_head_takes_its_step_itself(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """No other thread is in between; what ends is sent with the next step."""
    mine, shared = made_limiter(server)
    handed: list[str] = []
    step = shared._link.step

    def noted(key: str, ask: bytes) -> bytes:
        handed.append(key)
        return step(key, ask)

    monkeypatch.setattr(shared._link, "step", noted)

    async def main() -> None:
        for _ in range(50):
            (await mine.acquire(requests=1)).settle(requests=0)

    if kind == "thread":
        for _ in range(50):
            mine.acquire_sync(requests=1).settle(requests=0)
    else:
        anyio.run(main, backend=kind)

    assert len(handed) < 10  # a process tells now and then that it is alive
    assert left(shared) == pytest.approx(REQUESTS, abs=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_head_that_is_cancelled_on_its_way_costs_nothing(
    server: RedisServer, backend: str
) -> None:
    """Its step was sent: somebody else gets the answer, and gives back the grant."""
    mine, shared = made_limiter(server)
    server.client.client_pause(100)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(mine.acquire, {"model": "gpt-4o", "messages": []})
            await departed(shared)
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    shared.step()

    assert left(shared) == pytest.approx(REQUESTS, abs=0.1)
    assert mine.statistics().in_flight == 0
    mine.acquire_sync(requests=1).settle(requests=0)


def test_a_loop_that_is_held_up_holds_up_no_thread(server: RedisServer) -> None:
    """The answer to its head's step stays unread meanwhile; the step is sent again."""
    mine, shared = made_limiter(server)
    admitted = threading.Event()
    waited: list[bool] = []

    def thread() -> None:
        mine.acquire_sync(requests=1)
        admitted.set()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(head)
            await departed(shared)
            threading.Thread(target=thread).start()
            waited.append(admitted.wait(10))  # in the event loop, on purpose

    async def head() -> None:
        await mine.acquire(requests=1)

    anyio.run(main)

    assert waited == [True]
    assert left(shared) == pytest.approx(REQUESTS - 2, abs=0.1)


def test_who_does_not_wait_goes_while_a_head_is_on_its_way(server: RedisServer) -> None:
    """In the same event loop, where the answer to the head's step could not be read."""
    mine, shared = made_limiter(server)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(head)
            await departed(shared)
            shared.step()
            await anyio.lowlevel.checkpoint()

    async def head() -> None:
        await mine.acquire(requests=1)

    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(main)

    assert left(shared) == pytest.approx(REQUESTS - 1, abs=0.1)


@pytest.mark.parametrize("kind", [*BACKENDS, "thread"])
def test_a_frozen_server_holds_no_head_up(server: RedisServer, kind: str) -> None:
    """A head on its way goes on alone, and nothing is taken twice when all is back."""
    mine, shared = made_limiter(server)
    server.signal(signal.SIGSTOP)

    async def main() -> None:
        with anyio.fail_after(20):
            await mine.acquire(requests=1)

    def call() -> None:
        if kind == "thread":
            mine.acquire_sync(requests=1)
        else:
            anyio.run(main, backend=kind)

    with pytest.warns(LimiterWarning, match="the shared store is lost"):
        call()
    server.signal(signal.SIGCONT)
    while shared.is_lost:
        shared.step()

    assert left(shared) == pytest.approx(REQUESTS - 1, abs=0.1)


def test_a_connection_that_was_cut_is_made_again(server: RedisServer) -> None:
    """Each head that meets a cut one is admitted once, and the next have a new one."""
    mine, shared = made_limiter(server)
    for _ in range(3):
        before = shared._line
        server.client.client_kill_filter(_type="normal", skipme=True)
        mine.acquire_sync(requests=1)
        while shared._line in {None, before}:
            mine.acquire_sync(requests=1).settle(requests=0)
    assert left(shared) == pytest.approx(REQUESTS - 3, abs=0.1)
    assert not shared.is_lost
