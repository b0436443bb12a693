"""Processes that share a quota in a server that is killed, emptied, frozen, cut off.

Owns the accidents, and the count of what they cost. Must never look into a process:
admissions stand in a log that each writes, the rest in the quota.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.sharing.chaos import BURST, LIMITS, PAUSE, RATE, TIME, Worker, work
from benchmarks.sharing.redis_server import RedisServer
from benchmarks.sharing.workers import SPAWN, Start, excess, together
from ratelimit import Limit, LimiterWarning, Limits, RateLimiter
from ratelimit.stores.redis.link import Link, LinkError
from ratelimit.stores.redis.look import look

FROZEN_SECONDS: Final = 5.0
RECOVERED_SECONDS: Final = 20.0
"""Seconds after which a recovery is given up."""
CALLS: Final = 500
"""Calls of each process while connections are cut."""
RESERVED, USED = 1_000, 900
"""Tokens of such a call."""
MONTHLY: Final = Limits(Limit("tokens", 10**9, 30 * 86_400))
"""So slow a limit that what is owed can be counted."""


class Crew:
    """The processes, their server and their log."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.log = folder / "admissions"
        self.living: list[Worker] = []

    def start(self) -> None:
        """Start one process more."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=work, args=(theirs, self.server.url, self.log), daemon=True)
        process.start()
        theirs.close()
        ours.recv()  # it has made its limiter
        self.living.append(Worker(process, ours))

    def kill_process(self) -> None:
        """Kill one process in the middle of whatever it does, and start another one."""
        victim = self.living.pop(0)
        victim.process.kill()
        victim.process.join()
        self.start()

    def kill_server(self) -> None:
        """Kill the server; a new one, which is empty, comes two seconds later."""
        self.server.kill()
        time.sleep(2)
        self.server.start()

    def empty_server(self) -> None:
        """Drop all that the server holds."""
        self.server.client.flushall()

    def freeze_server(self) -> None:
        """Stop the server in the middle of whatever it does, for a while."""
        self.server.signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        self.server.signal(signal.SIGCONT)

    def cut_connections(self) -> None:
        """Close all connections again and again, also between question and answer."""
        cut(self.server.client, 1.0)

    def recovery(self) -> float:
        """Wait until all processes that run share the quota; return the seconds."""
        begin = time.monotonic()
        wanted = {str(worker.process.pid) for worker in self.living}
        while time.monotonic() < begin + RECOVERED_SECONDS:
            if set(self._at_work(begin)) == wanted:
                break
            time.sleep(0.05)
        return time.monotonic() - begin

    def _at_work(self, since: float) -> Iterator[str]:
        """Yield the processes of the quota; "" for one that was not there since."""
        with suppress(LinkError):
            for seen in look(Link(self.server.client, "default")):
                for process in seen.processes:
                    ago = time.monotonic() - since
                    yield process.name.split()[1] if process.seen_ago < ago else ""


def cut(client: redis.Redis, seconds: float) -> None:
    """Close all connections of a server again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(redis.RedisError):
            client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.005)


def lost_and_found(server: RedisServer, folder: Path, processes: int) -> dict[str, Any]:
    """Let accidents happen in turns; return what they have cost."""
    charges = charged_twice(server, processes)
    crew = Crew(server, folder)
    for _ in range(processes):
        crew.start()
    recoveries: dict[str, float] = {}
    accidents = (
        crew.kill_process,
        crew.kill_server,
        crew.empty_server,
        crew.freeze_server,
        crew.cut_connections,
    )
    for accident in accidents:
        time.sleep(PAUSE)
        accident()
        recoveries[accident.__name__] = crew.recovery()
    for worker in crew.living:
        worker.pipe.send(None)
    results = [worker.pipe.recv() for worker in crew.living]
    for worker in crew.living:
        worker.process.join()
    left = RateLimiter(limits=LIMITS, store=server.url)  # after the last has left
    times = [moment for (moment,) in TIME.iter_unpack(crew.log.read_bytes())]
    return {
        **charges,
        "accidents": len(accidents),
        "admitted": len(times),
        "asked_by_survivors": sum(asked for asked, _, _ in results),
        "answered_to_survivors": sum(answered for _, answered, _ in results),
        "hung": sum(hung for _, _, hung in results),
        "over_admitted": excess(times, BURST, RATE),
        "one_burst_per_emptied_store": 2 * BURST,
        "leases_lost": left.statistics().in_flight,
        "recovery_seconds": max(recoveries.values()),
        "recovery_seconds_by_accident": recoveries,
    }


def charged_twice(server: RedisServer, processes: int) -> dict[str, float]:
    """Cut connections while calls go; return how many charges are wrong at the end.

    With a limit that hardly refills, what is owed at the end is what was used.
    """
    store = f"{server.url}?quota=charges"
    done = threading.Event()

    def cutting() -> None:
        while not done.is_set():
            cut(server.client, 0.1)

    thread = threading.Thread(target=cutting)
    thread.start()
    began = time.monotonic()
    made = sum(together(charge, processes, store))
    done.set()
    thread.join()
    (limit,) = MONTHLY
    refilled = (time.monotonic() - began) * limit.amount / limit.per
    left = RateLimiter(limits=MONTHLY, store=store)
    (level,) = left.statistics().families["*"].levels.values()
    owed = limit.amount - level
    return {
        "calls_with_connections_cut": made,
        "double_charges": max(round((owed - made * USED) / RESERVED), 0),
        "lost_charges": max(round((made * USED - owed - refilled) / RESERVED), 0),
    }


def charge(start: Start, store: str) -> int:
    """Make calls in one process; return how many."""
    warnings.simplefilter("ignore", LimiterWarning)  # the accidents are meant

    async def calls() -> int:
        limiter = RateLimiter(limits=MONTHLY, store=store, arrival_slack=0)
        await asyncio.to_thread(start)

        async def one() -> None:
            for _ in range(CALLS // 10):
                lease = await limiter.acquire(tokens=RESERVED)
                lease.settle(tokens=USED)

        await asyncio.gather(*(one() for _ in range(10)))
        return CALLS

    return asyncio.run(calls())
