"""Processes that share a quota while they are killed and their file is taken away.

Owns the accidents, and the count of what they cost. Must never look into a process:
admissions stand in a log that each writes, recoveries in the quota file.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import struct
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from benchmarks.sharing.workers import SPAWN, excess
from ratelimit import Limit, LimiterWarning, Limits, RateLimiter, WaitTimeout
from ratelimit.stores.folder.processes import process_of
from ratelimit.stores.folder.quota_file import QuotaFile, row_of

RATE: Final = 100.0
"""Calls a second."""
BURST: Final = 300
LIMITS: Final = Limits(Limit("requests", 60 * RATE, 60, burst=BURST), concurrency=24)
TASKS: Final = 4
"""Calls at the same time in each process."""
CALL_SECONDS: Final = 0.02
HUNG_SECONDS: Final = 15.0
"""Seconds of waiting after which a call counts as hung: all that wait take one."""
FROZEN_SECONDS: Final = 3.0
PAUSE: Final = 2.0
"""Seconds from one accident's end to the next one."""
MOST_SECONDS: Final = 10.0
"""Seconds after which a recovery is given up."""
TIME: Final = struct.Struct("<d")


@dataclass
class Worker:
    """One process that makes calls until it is asked to end."""

    process: BaseProcess
    pipe: Connection


@dataclass
class Crew:
    """The processes, their quota file and their log."""

    folder: Path
    living: list[Worker] = field(default_factory=list)

    @property
    def quota(self) -> Path:
        """The file of the one family."""
        return self.folder / "quota" / "%2A.quota"

    @property
    def log(self) -> Path:
        """Where each process writes the moments of its admissions."""
        return self.folder / "admissions"

    def start(self) -> None:
        """Start one process more."""
        ours, theirs = SPAWN.Pipe()
        store = f"file:{self.quota.parent}"
        process = SPAWN.Process(target=work, args=(theirs, store, self.log), daemon=True)
        process.start()
        theirs.close()
        ours.recv()  # it has made its limiter
        self.living.append(Worker(process, ours))

    def kill(self) -> None:
        """Kill a process in the middle of whatever it does, and start another one."""
        victim = self.living.pop(random.randrange(len(self.living)))
        victim.process.kill()
        victim.process.join()

    def delete(self) -> None:
        """Delete the quota file."""
        self.quota.unlink()

    def freeze(self) -> None:
        """Hold the lock as a process does that was stopped in the middle of a step."""
        held = QuotaFile(self.quota)
        while not held.lock():
            pass
        time.sleep(FROZEN_SECONDS)
        held.close()

    def recovery(self) -> float:
        """Wait until all processes that run share one file; return the seconds."""
        begin = time.monotonic()
        wanted = {worker.process.pid for worker in self.living}
        while time.monotonic() < begin + MOST_SECONDS:
            if set(self._at_work(begin)) == wanted:
                break
            time.sleep(0.01)
        return time.monotonic() - begin

    def _at_work(self, since: float) -> Iterator[int]:
        """Yield the processes in the file; 0 for one that was not there since."""
        try:
            quota = QuotaFile(self.quota, only_read=True)
        except FileNotFoundError:
            return
        record = quota.read()
        quota.close()
        for row in () if record is None else record.rows:
            yield process_of(row).pid if row_of(row).seen > since else 0


def chaos(folder: Path, processes: int, rounds: int) -> dict[str, Any]:
    """Let accidents happen in turns; return what they have cost."""
    crew = Crew(folder)
    for _ in range(processes):
        crew.start()
    recoveries: dict[str, float] = {}
    accidents = (crew.kill, crew.delete, crew.freeze)
    for accident in itertools.islice(itertools.cycle(accidents), 3 * rounds):
        time.sleep(PAUSE)
        accident()
        name = accident.__name__
        recoveries[name] = max(recoveries.get(name, 0.0), crew.recovery())
        if accident == crew.kill:
            crew.start()
    for worker in crew.living:
        worker.pipe.send(None)
    results = [worker.pipe.recv() for worker in crew.living]
    left = RateLimiter(limits=LIMITS, store=f"file:{crew.quota.parent}")
    times = [moment for (moment,) in TIME.iter_unpack(crew.log.read_bytes())]
    return {
        "accidents": 3 * rounds,
        "admitted": len(times),
        "asked_by_survivors": sum(asked for asked, _, _ in results),
        "answered_to_survivors": sum(answered for _, answered, _ in results),
        "hung": sum(hung for _, _, hung in results),
        "over_admitted": excess(times, BURST, RATE),
        "one_burst_per_deleted_file": BURST * rounds,
        "leases_lost": left.statistics().in_flight,
        "recovery_seconds": max(recoveries.values()),
        "recovery_seconds_by_accident": recoveries,
    }


def work(pipe: Connection, store: str, log: Path) -> None:
    """Make calls in one process until something comes through the pipe."""
    warnings.simplefilter("ignore", LimiterWarning)  # the accidents are meant
    pipe.send(asyncio.run(_work(pipe, store, log)))


async def _work(pipe: Connection, store: str, log: Path) -> tuple[int, int, int]:
    limiter = RateLimiter(limits=LIMITS, store=store, arrival_slack=0)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pipe.send(None)
    asked = answered = hung = 0

    async def calls() -> None:
        nonlocal asked, answered, hung
        while not pipe.poll():
            asked += 1
            try:
                lease = await limiter.acquire(requests=1, timeout=HUNG_SECONDS)
            except WaitTimeout:
                hung += 1
                continue
            os.write(written, TIME.pack(time.monotonic()))
            await asyncio.sleep(random.uniform(0, 2 * CALL_SECONDS))
            lease.settle(requests=1)
            answered += 1

    await asyncio.gather(*(calls() for _ in range(TASKS)))
    return asked, answered, hung
