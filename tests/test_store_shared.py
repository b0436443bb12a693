"""What limiters that share a quota owe each other: their turn, their slots, their news.

Several limiters of one process stand for several processes: each has a row of its own.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import anyio
import httpx2
import openai
import pytest

from ratelimit import LimiterWarning, RateLimiter, WouldBlock
from ratelimit.stores.folder import joined, shared
from ratelimit.stores.folder.processes import this_process
from ratelimit.stores.folder.quota_file import MOST_PROCESSES, QuotaFile, packed_row, row_of
from ratelimit.stores.folder.store import FileStore
from ratelimit.stores.payments import Payment
from ratelimit.testing import FakeOpenAI, ThreadClock, VirtualClock
from tests.quota_files import limiter, store_of


def test_who_does_not_wait_keeps_nobody_back(store: str) -> None:
    """A refused `acquire_nowait` leaves no place in the order of the processes."""
    clock = ThreadClock()
    one, other = limiter(store, rpm=60, clock=clock), limiter(store, rpm=60, clock=clock)
    one.acquire_nowait(requests=59)
    with pytest.raises(WouldBlock):
        one.acquire_nowait(requests=50)
    clock.sleep(0.01)

    other.acquire_nowait(requests=1)


def test_what_comes_during_a_look_is_settled_after_it(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that ends while another thread looks at the levels frees its slot."""
    mine = limiter(store, rpm=60, concurrency=1)
    lease = mine.acquire_nowait(requests=1)
    ending = [lease]
    reap = FileStore._reap

    def end(self: FileStore, now: float, **options: bool) -> None:
        while ending:
            ending.pop().settle(requests=1)
        reap(self, now, **options)

    monkeypatch.setattr(FileStore, "_reap", end)
    store_of(mine).refresh(mine._engine.clock.now())

    assert store_of(mine).in_flight == 0
    assert not store_of(mine)._inbox


def test_without_the_file_each_process_has_its_share_of_the_slots(
    store: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls in flight are shared like the other limits: all processes together stay
    within them.
    """
    clock = ThreadClock()
    mine = limiter(store, concurrency=4, clock=clock)
    monkeypatch.setattr(FileStore, "processes", 2)
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()  # nothing can be made there
    clock.sleep(joined.LOOK_SECONDS)
    with pytest.warns(LimiterWarning, match="1/2 of each limit"):
        leases = [mine.acquire_nowait(requests=1)]
    leases.append(mine.acquire_nowait(requests=1))

    with pytest.raises(WouldBlock):
        mine.acquire_nowait(requests=1)


def test_any_first_answer_ends_the_cold_start_of_all(store: str) -> None:
    """Also where the process that was first never makes a call: the calls of all the
    others do not go one by one until the half minute is over.
    """
    server = FakeOpenAI(rpm=6_000, tpm=1_000_000, latency=1.0, output=5)
    clock = VirtualClock()
    idle, busy = (limiter(store, rpm=6_000, clock=clock) for _ in range(2))

    async def main() -> float:
        def wrapped(one: RateLimiter) -> openai.AsyncOpenAI:
            http = httpx2.AsyncClient(transport=server.transport())
            return one.wrap(
                openai.AsyncOpenAI(base_url="http://fake/v1", api_key="any", http_client=http)
            )

        wrapped(idle)
        client = wrapped(busy)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask, client)
        return clock.now()

    async def ask(client: openai.AsyncOpenAI) -> None:
        await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_tokens=5
        )

    began = clock.now()
    assert clock.run(main) - began < 4
    assert not server.ledger.refused


def foreign_row(path: Path, *, seen: float) -> None:
    """Write the row of a process of another container, with two calls in flight."""
    quota = QuotaFile(path)
    assert quota.lock()
    record = quota.read()
    assert record is not None
    me = this_process()
    name = me._replace(space=me.space + 1).packed() + b"\0\0\0\0"
    row = packed_row(name, 7, 2, 0, 0.0, 0.0, 0.0, seen)
    quota.write(record._replace(rows=(*record.rows, row)))
    quota.close()


def test_a_process_of_another_container_is_gone_after_an_hour(store: str, path: Path) -> None:
    """It cannot be looked up, so that it has not been there tells it: a container that
    is started anew again and again does not use the slots up for good.
    """
    clock = ThreadClock()
    mine = limiter(store, concurrency=2, clock=clock)
    foreign_row(path, seen=clock.now())
    with pytest.raises(WouldBlock):
        mine.acquire_nowait(requests=1)

    clock.sleep(shared.UNSEEN_SECONDS + 1)
    mine.acquire_nowait(requests=1)
    assert mine.statistics().families["*"].processes == 1


def test_limiters_that_are_dropped_leave_nothing_open(store: str, path: Path) -> None:
    """No descriptor, and no row of a limiter that is gone."""
    kept = limiter(store, rpm=60)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2 * MOST_PROCESSES):
        limiter(store, rpm=60).acquire_nowait(requests=0)
    gc.collect()

    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    limiter(store, rpm=60)
    record = QuotaFile(path, only_read=True).read()
    assert record is not None
    assert len(record.rows) <= 3
    kept.acquire_nowait(requests=1)


def test_a_call_that_is_dropped_with_its_limiter_touches_no_file(store: str, path: Path) -> None:
    """The garbage collector may close the file first; its number may be another file's
    by then, which must not be unlocked, and nothing is lost that would be worth a
    warning.
    """
    mine = limiter(store, rpm=60)
    lease, held = mine.acquire_nowait(requests=1), store_of(mine)._file
    assert held is not None
    number = held.fileno()
    held.close()
    another = QuotaFile(path)
    assert another.fileno() == number
    assert another.lock()
    lease.settle(requests=1)

    assert not QuotaFile(path).lock(0.0)


def test_one_process_too_many_goes_alone_and_disturbs_nobody(store: str) -> None:
    """The file has room for so many rows; those that are in it go on."""
    clock = ThreadClock()
    inside = [limiter(store, rpm=60, clock=clock) for _ in range(MOST_PROCESSES)]
    with pytest.warns(LimiterWarning, match="at most 200 can"):
        beyond = limiter(store, rpm=60, clock=clock)

    inside[0].acquire_nowait(requests=59)
    assert store_of(inside[-1]).levels(clock.now())["requests", 60] == pytest.approx(1)
    assert store_of(beyond)._file is None


def test_a_fork_while_another_thread_holds_the_lock_hangs_nobody(store: str, path: Path) -> None:
    """The child shares no lock with its parent: it waits for the file as any process,
    and ends without unlocking it for somebody else.
    """
    mine = limiter(store, rpd=100)
    held = store_of(mine)._file
    assert held is not None
    assert held.lock()
    child = os.fork()
    if not child:
        status = 1
        try:
            mine.acquire_nowait(requests=1)
            status = 0
        finally:
            os._exit(status)
    third = QuotaFile(path)
    assert not third.lock(0.0)
    held.unlock()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert store_of(mine).levels(mine._engine.clock.now())["requests", 86_400] == pytest.approx(
        99, abs=0.1
    )


def test_deferred_output_of_one_limiter_holds_another_one_back(store: str, path: Path) -> None:
    """What calls of one process will be debited at their end is not there for
    another.
    """
    one, other = (store_of(limiter(store, tpm=1_000)) for _ in range(2))
    now = one.admitted_at
    first, second = Payment({"tokens": 600}, 500), Payment({"tokens": 600}, 500)
    assert one.take(first, now) is None
    assert other.take(second, now) is not None
    record = QuotaFile(path, only_read=True).read()
    assert record is not None
    assert sum(row_of(row).deferred for row in record.rows) == 500

    one.settle(first, {"tokens": 100}, now)
    assert other.take(second, now) is None
