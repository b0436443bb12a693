"""A limiter on a real server as its callers see it: tasks, threads, forks, clients."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
import redis
import redis.asyncio

from benchmarks import linearize
from benchmarks.sharing.redis_server import RedisServer
from benchmarks.sharing.steps import record_steps
from ratelimit import (
    InvalidArgument,
    Limit,
    LimiterWarning,
    Limits,
    RateLimiter,
    RequestTooLarge,
    StoreUnavailable,
    WaitTimeout,
    WouldBlock,
    events,
)
from ratelimit.events import delivery
from ratelimit.stores.redis.store import RedisStore
from ratelimit.testing import FakeOpenAI, ThreadClock

_numbers = itertools.count()


@pytest.fixture
def store(redis_server: RedisServer) -> str:
    """The address of a quota of this test's own."""
    return f"{redis_server.url}?quota=callers-{next(_numbers)}"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may break."""
    server = RedisServer(tmp_path, requirepass="hunter2")
    yield server
    server.kill()


def limiter(store: Any, **options: Any) -> RateLimiter:
    """A limiter on the quota."""
    return RateLimiter(arrival_slack=0, store=store, **options)


def store_of(a_limiter: RateLimiter) -> RedisStore:
    """The store of its one family."""
    found = a_limiter._engine.families()["*"].admission.store
    assert isinstance(found, RedisStore)
    return found


def left(a_limiter: RateLimiter, name: str) -> float:
    """What is left of a limit, by the server's word."""
    shared = store_of(a_limiter)
    shared.step()
    return {key: level for (key, _), level in shared.levels(time.monotonic()).items()}[name]


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_threads_asyncio_and_trio_share_one_limiter(store: str, tmp_path: Path, kind: str) -> None:
    """All at once, under a limit of calls in flight: everybody goes, and no slot is
    lost.
    """
    if kind == "file":
        store = f"file:{tmp_path}/quota"
    mine = limiter(store, limits=Limits(Limit("requests", 1e6), concurrency=2))
    done: list[str] = []

    async def tasks(name: str) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(task, name)

    async def task(name: str) -> None:
        async with mine.reserve(requests=1, timeout=60):
            await anyio.lowlevel.checkpoint()
        done.append(name)

    def thread() -> None:
        for _ in range(5):
            with mine.reserve(requests=1, timeout=60):
                pass
            done.append("thread")

    threads = [threading.Thread(target=thread) for _ in range(2)]
    threads += [
        threading.Thread(target=anyio.run, args=(tasks, name), kwargs={"backend": name})
        for name in ("asyncio", "trio")
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert sorted(done) == ["asyncio"] * 5 + ["thread"] * 10 + ["trio"] * 5
    assert mine.statistics().in_flight == 0


def test_one_step_admits_a_whole_queue(store: str) -> None:
    """A hundred tasks that come together do not ask a hundred times."""
    mine = limiter(store, rpm=10_000)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(one)

    async def one() -> None:
        async with mine.reserve(requests=1):
            pass

    before = store_of(mine).round_trips
    anyio.run(main)

    assert store_of(mine).round_trips - before < 20
    assert left(mine, "requests") == pytest.approx(9_900, abs=100)


def test_a_call_inside_a_call_shares_its_slot(store: str) -> None:
    """With one slot in all: the inner call uses it, and gives it back."""
    mine = limiter(store, limits=Limits(Limit("requests", 1e6), concurrency=1))

    async def main() -> None:
        with anyio.fail_after(20):
            async with mine.reserve(requests=1), mine.reserve(requests=1):
                pass
            async with mine.reserve(requests=1):
                pass

    anyio.run(main)
    store_of(mine).step()
    assert store_of(mine).in_flight == 0


def test_a_cancelled_call_costs_nothing(store: str) -> None:
    """Whenever it is cancelled: before its answer, with it, or while it waits."""
    mine = limiter(store, rpd=1_000)

    async def one(delay: float) -> None:
        with anyio.move_on_after(delay):
            async with mine.reserve(requests=100):
                await anyio.sleep_forever()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for step in range(40):
                group.start_soon(one, step * 2e-4)

    anyio.run(main)
    shared = store_of(mine)
    shared.step()
    shared.step()
    assert shared.in_flight == 0
    assert left(mine, "requests") % 100 == pytest.approx(0, abs=1)


def test_timeouts_hold(store: str) -> None:
    """None at all: what fits goes at once, and what does not is refused at once, with
    the time that it would take.
    """
    mine = limiter(store, rpm=60)
    with mine.reserve(requests=60, timeout=0):
        pass
    with pytest.raises(WaitTimeout, match="the wait would be"), mine.reserve(timeout=0, requests=9):
        pass
    with pytest.raises(WaitTimeout), mine.reserve(requests=50, timeout=0.05):
        pass
    with pytest.raises(WouldBlock, match="try again in"):
        mine.acquire_nowait(requests=30)
    with pytest.raises(RequestTooLarge), mine.reserve(requests=61):
        pass


def test_who_may_not_wait_is_admitted_at_once_where_there_is_room(store: str) -> None:
    """Also while calls of this process wait for more than there is."""
    mine = limiter(store, rpm=60)
    assert mine.acquire_nowait(requests=1) is not None
    assert left(mine, "requests") == pytest.approx(59, abs=1)


def test_a_forked_worker_goes_on_with_the_quota(store: str) -> None:
    """Nothing is spent twice, and both are admitted."""
    mine = limiter(store, rpd=100)
    with mine.reserve(requests=10):
        pass
    child = os.fork()
    if not child:
        status = 1
        try:
            with mine.reserve(requests=20, timeout=20):
                status = 0
            store_of(mine).leave(time.monotonic() + 5)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with mine.reserve(requests=30, timeout=20):
        pass

    assert left(mine, "requests") == pytest.approx(40, abs=1)


def spend_and_end(store: str) -> None:
    """Make one call, and end the process at once."""
    mine = limiter(store, rpd=1_000)
    with mine.reserve(requests=100) as lease:
        lease.settle(requests=10)


def test_a_worker_that_ends_gives_back_what_it_did_not_use(store: str) -> None:
    """Also one of multiprocessing, which runs no exit handlers; it is gone at once."""
    worker = multiprocessing.get_context("forkserver").Process(target=spend_and_end, args=(store,))
    worker.start()
    worker.join()

    mine = limiter(store, rpd=1_000)
    assert left(mine, "requests") == pytest.approx(990, abs=1)
    assert store_of(mine).processes == 1


def test_wrapped_clients_of_two_processes_get_no_429(store: str) -> None:
    """Limits are learned by one and known to the other; over real HTTP."""
    server = FakeOpenAI(rpm=None, rps=20, tpm=1_000_000, latency=0.01, output=5)
    with server.serve() as url:

        async def main() -> None:
            clients = [
                RateLimiter(rps=20, store=store, arrival_slack=0.4).wrap(
                    openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0)
                )
                for _ in range(2)
            ]
            async with anyio.create_task_group() as group:
                for client in clients * 15:
                    group.start_soon(ask, client)
            for client in clients:
                await client.close()

        async def ask(client: openai.AsyncOpenAI) -> None:
            await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=5
            )

        anyio.run(main)

    assert len(server.ledger) == 30
    assert not server.ledger.refused


def test_a_client_of_redis_py_is_a_store(redis_server: RedisServer) -> None:
    """Also one that decodes its replies; one of asyncio is refused in words."""
    client = redis.Redis(port=redis_server.port, decode_responses=True)
    mine = limiter(client, rpd=500)
    with mine.reserve(requests=100):
        pass
    assert left(limiter(client, rpd=500), "requests") == pytest.approx(400, abs=1)
    client.delete("ratelimit:default:*")

    asynchronous = redis.asyncio.Redis(port=redis_server.port)
    with pytest.raises(InvalidArgument, match=r"not of redis\.asyncio"):
        limiter(asynchronous, rpd=500)


@pytest.mark.parametrize("topology", ["socket", "cluster"])
def test_other_ways_to_a_server_work(topology: str, tmp_path: Path) -> None:
    """A Unix socket, or a client of a cluster; all of one quota is in one slot."""
    path = tmp_path / "redis.sock"
    options = {"unixsocket": str(path)}
    if topology == "cluster":
        options = {"cluster_enabled": "yes", "cluster_config_file": str(tmp_path / "nodes.conf")}
    server = RedisServer(tmp_path, **options)
    store: Any = f"unix://{path}?quota=socket"
    try:
        if topology == "cluster":
            server.client.cluster("addslots", *range(16_384))
            while server.client.cluster("info")["cluster_state"] != "ok":
                time.sleep(0.01)  # it has no other sign that it serves
            store = redis.RedisCluster(host="127.0.0.1", port=server.port)
        mine = limiter(store, rpd=100, on_store_error="raise")
        with mine.reserve(requests=30):
            pass

        assert left(mine, "requests") == pytest.approx(70, abs=1)
    finally:
        server.kill()


def test_a_clock_of_the_users_is_refused(store: str) -> None:
    """The server has a clock of its own."""
    with pytest.raises(InvalidArgument, match="leave clock= out"):
        limiter(store, rpm=60, clock=ThreadClock())


def test_a_wrong_password_is_said_without_it(own_server: RedisServer) -> None:
    """And without the right one, where the address holds that."""
    address = f"redis://:wrong-secret@127.0.0.1:{own_server.port}/0"
    mine = limiter(address, rpm=60, on_store_error="raise")
    with (
        pytest.warns(LimiterWarning, match="shared store is lost") as warned,
        pytest.raises(StoreUnavailable) as raised,
    ):
        mine.acquire_nowait(requests=1)

    for text in (str(raised.value), str(warned[0].message), repr(mine)):
        assert "wrong-secret" not in text
    right = limiter(f"redis://:hunter2@127.0.0.1:{own_server.port}/0", rpm=60)
    assert right.acquire_nowait(requests=1) is not None


@pytest.mark.parametrize("fault", ["full", "read only"])
def test_a_server_that_takes_nothing_more_is_lost_and_comes_back(
    own_server: RedisServer, fault: str
) -> None:
    """Out of memory, or a replica after a failover: calls go on with a share, and with
    the quota when it is over.
    """
    address = f"redis://:hunter2@127.0.0.1:{own_server.port}/0"
    mine, client = limiter(address, rpd=100), own_server.client
    if fault == "full":
        client.config_set("maxmemory", "1kb")
    else:
        client.replicaof("127.0.0.1", "1")
    with pytest.warns(LimiterWarning, match="shared store is lost"):
        mine.acquire_nowait(requests=10)
    client.config_set("maxmemory", "0")
    client.replicaof("no", "one")
    store_of(mine).step()

    assert not store_of(mine).is_lost
    assert left(mine, "requests") == pytest.approx(90, abs=1)


def test_the_loss_of_a_server_and_its_return_are_reported(own_server: RedisServer) -> None:
    """To who subscribes: what was met, and how long it lasted; no password."""
    mine = limiter(f"redis://:hunter2@127.0.0.1:{own_server.port}/0", rpm=60)
    seen: list[events.Event] = []
    mine.subscribe(seen.append, events.StoreLost, events.StoreBack)
    own_server.kill()
    with pytest.warns(LimiterWarning, match="shared store is lost"):
        mine.acquire_nowait(requests=1)
    own_server.start()
    store_of(mine).step()
    delivery.flush()

    lost, back = seen
    assert isinstance(lost, events.StoreLost)
    assert "refused" in lost.reason
    assert "hunter2" not in lost.reason
    assert isinstance(back, events.StoreBack)
    assert 0 < back.seconds < 60


def test_a_server_that_dies_in_the_middle_holds_nobody_up(own_server: RedisServer) -> None:
    """Tasks that wait for their turn go on without it, and nothing hangs."""
    mine = limiter(f"redis://:hunter2@127.0.0.1:{own_server.port}/0", rpm=6_000)

    async def main() -> int:
        done = 0

        async def one() -> None:
            nonlocal done
            async with mine.reserve(requests=1, timeout=60):
                done += 1

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(one)
                if number == 30:
                    await anyio.sleep(0.001)
                    own_server.kill()
        return done

    with pytest.warns(LimiterWarning, match="shared store is lost"):
        assert anyio.run(main) == 60


def test_the_judge_finds_a_script_that_is_not_atomic(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """And finds nothing in the history of the one that is used."""
    client = redis_server.client
    path, url = tmp_path / "history.jsonl", redis_server.url
    found = {}
    for torn in (False, True):
        client.delete("ratelimit:history:*")
        record_steps(path, url, 2, 1_000, torn=torn)
        found[torn] = linearize.check(path)["violations"]
    client.delete("ratelimit:history:*")

    assert not found[False]
    assert found[True]


@pytest.mark.parametrize("kind", ["file", "redis"])
@pytest.mark.parametrize("first", ["given", "none"])
def test_a_limiter_without_limits_takes_those_that_are_there(
    store: str, tmp_path: Path, kind: str, first: str
) -> None:
    """None given is no opinion: it neither removes nor raises what others have given,
    whatever its own server's headers show, and nothing is warned of.
    """
    if kind == "file":
        store = f"file:{tmp_path}/quota"
    order: list[dict[str, Any]] = [{"rpm": 60}, {}]
    one, other = (limiter(store, **given) for given in (order if first == "given" else order[::-1]))
    for each in (one, other):
        with each.reserve(requests=1):
            pass
    server = FakeOpenAI(rpm=6_000, tpm=1_000_000, latency=0, output=5)
    with server.serve() as url:
        wrapped = (other if first == "given" else one).wrap(
            openai.OpenAI(base_url=url, api_key="any")
        )
        wrapped.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=5
        )

    for each in (one, other):
        with each.reserve(requests=1):
            pass
        limits = {limit.name: limit.amount for limit in each.limits()}
        assert limits["requests"] == 60


def test_what_a_limiter_has_to_say_is_sent_when_it_is_dropped(store: str) -> None:
    """A limiter of a function: what its last call did not use comes back."""

    def work() -> None:
        with limiter(store, tpd=1_000).reserve(tokens=900) as lease:
            lease.settle(tokens=10)

    work()
    gc.collect()
    with limiter(store, tpd=1_000).reserve(tokens=900, timeout=20):
        pass


@pytest.mark.parametrize(
    "given",
    [
        "redis://localhost/0?qouta=x",
        "redis://localhost/0?quota=",
        "redis://localhost/abc",
        redis.Redis,
        redis.Redis().pipeline(),
        "file://tmp/q",
        "file:/tmp/q?quota=x",
        "file:/tmp/a\0b",
        "file:" + "x" * 300,
    ],
    ids=lambda given: given[:20] if isinstance(given, str) else type(given).__name__,
)
def test_an_address_that_means_nothing_is_refused_at_once(given: Any) -> None:
    """In words, and before anything is asked."""
    with pytest.raises(InvalidArgument, match="store="):
        limiter(given, rpm=60)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("redis://localhost:hunter2/0", "host or port is none"),
        ("redis://:hunter2/x@localhost/0", "host or port is none"),
        ("redis://localhost/hunter2", "the number of a database"),
        ("redis://localhost/0?quota=", "?quota= names none"),
        ("redis://localhost/0?socket_timeout=hunter2", "value of another kind"),
        ("redis://localhost/0?qouta=hunter2", "no option qouta"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_without_it(given: str, fault: str) -> None:
    """A misplaced part of it may be a password, so no part of it is shown."""
    with pytest.raises(InvalidArgument, match=re.escape(fault)) as raised:
        limiter(given, rpm=60)

    assert "hunter2" not in str(raised.value)


def test_a_family_of_any_name_has_a_quota(store: str, tmp_path: Path) -> None:
    """Also one that is no text in UTF-8."""
    for place in (store, f"file:{tmp_path}/quota"):
        mine = RateLimiter(limits={"gpt-\ud800*": Limits(rpm=60)}, store=place)
        with mine.reserve(requests=1, model="gpt-\ud800"):
            pass


def test_levels_keep_their_names_while_the_server_is_lost(own_server: RedisServer) -> None:
    """A dashboard goes on: what is left is that of this process's share."""
    address = f"redis://:hunter2@127.0.0.1:{own_server.port}/0"
    mine, other = limiter(address, rpm=600), limiter(address, rpm=600)
    other.acquire_nowait(requests=1)
    own_server.kill()
    with pytest.warns(LimiterWarning, match="shared store is lost"):
        mine.acquire_nowait(requests=1)

    assert list(mine.statistics().families["*"].levels) == ["requests/60s"]
    assert "600 left" not in str(mine.explain())
