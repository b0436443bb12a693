"""One race: one client, one course, one server, and what came of it.

Owns time (virtual or real), the arrivals, and what is read off the server's ledger
afterwards. Must never contain how a client works, how a course is drawn, tables.

On the virtual clock everything runs in one event loop: the real SDK, the client's
limiter, and the server in process. In real time the server runs in a thread of its own
behind HTTP on loopback. What a job waited, whether it was refused and when it was
admitted is read off the server's ledger; the client is only asked what it returned. The
SDK and tenacity draw their jitter from Python's own generator, so that is seeded, too.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import statistics
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

import httpx2
import openai

from benchmarks.race.bounds import bound
from benchmarks.race.clients import CLIENTS, Ground
from benchmarks.race.peers import PEERS, REAL_TIME_ONLY
from benchmarks.race.results import Row, Trace
from benchmarks.race.servers import server_for, terms_of
from benchmarks.race.timing import RaceClock, longest_callback
from benchmarks.race.workloads import WORKLOADS, Course
from ratelimit.admission.clock import Clock
from ratelimit.testing import FakeOpenAI

VIRTUAL_URL: Final = "http://fake/v1"
"""Base URL of a server in process."""


@dataclass(slots=True)
class _Result:
    started: float = 0.0
    ended: float = 0.0
    answered: int = 0
    errors: list[BaseException] = field(default_factory=list)
    debt: float = 0.0
    stall: float = 0.0


def race(
    client: str,
    course: Course,
    variant: str,
    seed: int,
    *,
    real: bool = False,
    trace: bool = False,
    name: str = "",
) -> Row:
    """Let one client run one course; it must not be called inside an event loop.

    :param name: the row's workload, if not the course's.
    """
    _warm_up(client)
    server = server_for(course, variant, seed)
    random.seed(f"{client} {course.name} {variant} {seed}")
    gc.collect()
    cpu = time.process_time()
    if real:
        with server.serve() as base_url:
            result = asyncio.run(_run(client, course, variant, server, Clock(), base_url))
    else:
        clock = RaceClock()
        result = clock.run(_run, client, course, variant, server, clock, VIRTUAL_URL)
    cpu = time.process_time() - cpu
    row = _row(client, course, variant, server, result, cpu=cpu, real=real, trace=trace)
    return replace(row, workload=name or course.name)


@cache
def _warm_up(client: str) -> None:
    """Let a client make one call, so that what is loaded then is not measured."""
    if client not in REAL_TIME_ONLY:
        course = WORKLOADS["tokens"].scaled(0, 1).course(0)
        clock = RaceClock()
        clock.run(_run, client, course, "P", server_for(course, "P", 0), clock, VIRTUAL_URL)
    gc.collect()
    # what is loaded now stays: looking through it before every race would take longer
    # than the race
    gc.freeze()


async def _run(
    client: str, course: Course, variant: str, server: FakeOpenAI, clock: Clock, base_url: str
) -> _Result:
    loop, result = asyncio.get_running_loop(), _Result()
    async with AsyncExitStack() as closing:

        def connect(retries: int) -> openai.AsyncOpenAI:
            http = (
                httpx2.AsyncClient(transport=server.transport())
                if base_url == VIRTUAL_URL
                else openai.DefaultAsyncHttpxClient()
            )
            made = openai.AsyncOpenAI(
                base_url=base_url, api_key="any", max_retries=retries, http_client=http
            )
            closing.push_async_callback(made.close)
            return made

        send = {**CLIENTS, **PEERS}[client](
            Ground(variant, course.limits, course.level, clock, connect, closing, base_url)
        )
        result.started = loop.time()

        async def one(awaitable: Awaitable[object]) -> None:
            try:
                await awaitable
            except Exception as error:  # noqa: BLE001 - whatever a client gives up with is a failed call, counted and shown
                result.errors.append(error)
            else:
                result.answered += 1

        calls = []
        with longest_callback() as stall:
            for job in course.jobs:
                delay = result.started + job.arrival - loop.time()
                if delay > 0:
                    await asyncio.sleep(delay)
                calls.append(asyncio.ensure_future(one(send(job))))
            await asyncio.gather(*calls)
        result.ended, result.stall = loop.time(), stall()
        result.debt = _debt(course, server)
    return result


def _debt(course: Course, server: FakeOpenAI) -> float:
    """Seconds until no bucket of the server is below zero any more."""
    periods = {"m": 60.0, "d": 86_400.0}
    debts = [0.0]
    for name, left in server.levels().items():
        dimension = name.rpartition("/")[2]
        if dimension in course.limits:
            debts.append(-left * periods[dimension[-1]] / course.limits[dimension])
    return max(debts)


def _row(
    client: str,
    course: Course,
    variant: str,
    server: FakeOpenAI,
    result: _Result,
    *,
    cpu: float,
    real: bool,
    trace: bool,
) -> Row:
    terms = terms_of(course, variant)
    arrivals = [job.arrival for job in course.jobs]
    least = max(
        bound(arrivals, demands, bucket, there=terms.there, tails=terms.tails)
        for bucket, demands in terms.buckets.items()
    )
    entries = server.ledger.entries()
    waits = sorted(
        entry.time - result.started - arrivals[int(entry.headers["x-client-request-id"])]
        for entry in entries
        if entry.admitted
    ) or [0.0]
    seconds = result.ended - result.started + result.debt
    return Row(
        client=client,
        variant=variant,
        workload=course.name,
        clock="real" if real else "virtual",
        calls=len(course.jobs),
        answered=result.answered,
        rejected=sum(entry.status == 429 for entry in entries),
        failed=len(result.errors),
        seconds=round(seconds, 3),
        bound=round(least, 3),
        ratio=round(seconds / least, 3),
        debt=round(result.debt, 3),
        wait_p50=round(statistics.median(waits), 3),
        wait_p99=round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 3),
        wait_longest=round(waits[-1], 3),
        error=_first_line(result.errors),
        cpu_seconds=round(cpu, 3),
        stall_seconds=round(result.stall, 4),
        trace=_trace(course, server, result) if trace else None,
    )


def _first_line(errors: list[BaseException]) -> str:
    """The first error in a line; addresses in memory are no part of it."""
    line = f"{type(errors[0]).__name__}: {errors[0]}".partition("\n")[0][:200] if errors else ""
    return re.sub(r"0x[0-9a-f]+", "0x...", line)


def _trace(course: Course, server: FakeOpenAI, result: _Result) -> Trace:
    levels = []
    refused = []
    for entry in server.ledger.entries():
        left = entry.levels.get("tpm")
        moment = entry.time - result.started
        if left is not None:
            levels.append((moment, left + entry.charge, left))
        if entry.status == 429:
            refused.append(moment)
    return Trace(course.limits["tpm"], levels, refused)
