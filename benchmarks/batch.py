"""Tell how long a file of requests takes, and what is lost on the way.

Owns the rivals of `ratelimit.run`, written anew from what is published of them, and the
table. Must never share code between the rivals and the limiter.

All send the same bodies through the same client of the openai library to a server that
enforces the same limits from full buckets, in a process of its own; the 429s are those
in its ledger.

* `cookbook`: the algorithm of the OpenAI cookbook's parallel processor. A loop every
  millisecond takes the next request, a failed one first, when one capacity each for
  requests and tokens has room for it; both are refilled by the time that has passed,
  and nothing is given back. Tokens are counted by cl100k_base, and an answer without a
  bound as 15 tokens. Five attempts. A 429 pauses the loop for 15 s when its code is
  "429"; the server's is "rate_limit_exceeded".
* `gather`: `asyncio.gather` over all of them, each with exponential back-off as the
  cookbook recommends: waits of 1 to 60 s, six attempts.
* `ratelimit`: as it is.

Bound: the seconds before which no client can have sent the last request, by the tokens
that the server has billed. CPU: of the client's process, tokenizing included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tenacity
from openai import AsyncOpenAI, RateLimitError
from rich.console import Console
from rich.table import Table

import ratelimit
from ratelimit import InvalidArgument, RateLimiter
from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import Request, read_request
from ratelimit.commands.counting import least_seconds
from ratelimit.commands.demo.backend import backend
from ratelimit.commands.demo.workload import make_calls
from ratelimit.estimate.tokenizer import count

RECORDED: Final = Path(__file__).parents[1] / "../shared/truth/calls.jsonl.gz"

ATTEMPTS_COOKBOOK: Final = 5
ATTEMPTS_BACKOFF: Final = 6

PAUSE: Final = 15.0
"""Seconds for which the cookbook pauses after a 429 that it recognises."""

DEFAULT_ANSWER: Final = 15
"""Tokens for which the cookbook takes an answer without a bound."""


@dataclass(frozen=True)
class Job:
    """What every client is given."""

    requests: list[Request]
    rpm: float
    tpm: float


@dataclass
class Count:
    """What a client's requests came to."""

    answered: int = 0
    failed: int = 0


Way = Callable[[AsyncOpenAI, Job], Awaitable[Count]]


async def post(client: AsyncOpenAI, request: Request) -> Any:
    """One HTTP request."""
    return await client.post(request.path, cast_to=object, body=request.body)


async def by_ratelimit(client: AsyncOpenAI, job: Job) -> Count:
    """The function under test."""
    counted = Count()
    async for result in ratelimit.run(job.requests, client, RateLimiter(rpm=job.rpm, tpm=job.tpm)):
        if result.ok:
            counted.answered += 1
        else:
            counted.failed += 1
    return counted


async def by_gather(client: AsyncOpenAI, job: Job) -> Count:
    """All at once, and again after a random, doubling time."""
    ask = tenacity.retry(
        retry=tenacity.retry_if_exception_type(RateLimitError),
        wait=tenacity.wait_random_exponential(min=1, max=60),
        stop=tenacity.stop_after_attempt(ATTEMPTS_BACKOFF),
        reraise=True,
    )(post)
    answers = await asyncio.gather(
        *(ask(client, request) for request in job.requests), return_exceptions=True
    )
    failed = sum(isinstance(answer, Exception) for answer in answers)
    return Count(len(answers) - failed, failed)


async def by_cookbook(client: AsyncOpenAI, job: Job) -> Count:
    """One loop, two capacities."""
    counted = Count()
    again: deque[tuple[Request, int, int]] = deque()
    source = iter(job.requests)
    running: set[asyncio.Task[None]] = set()
    requests, tokens = job.rpm, job.tpm
    updated, refused_at = time.monotonic(), -PAUSE
    waiting: tuple[Request, int, int] | None = None

    async def attempt(request: Request, cost: int, left: int) -> None:
        nonlocal refused_at
        try:
            await post(client, request)
        except Exception as error:  # noqa: BLE001  # the algorithm tries again after any
            if str(getattr(error, "code", None)) == "429":
                refused_at = time.monotonic()
            if left:
                again.append((request, cost, left))
            else:
                counted.failed += 1
        else:
            counted.answered += 1

    while True:
        if waiting is None:
            if again:
                waiting = again.popleft()
            elif (fresh := next(source, None)) is not None:
                waiting = (fresh, cookbook_tokens(fresh.body), ATTEMPTS_COOKBOOK)
        now = time.monotonic()
        requests = min(requests + job.rpm * (now - updated) / 60, job.rpm)
        tokens = min(tokens + job.tpm * (now - updated) / 60, job.tpm)
        updated = now
        if waiting is not None and requests >= 1 and tokens >= waiting[1]:
            request, cost, left = waiting
            waiting = None
            requests, tokens = requests - 1, tokens - cost
            task = asyncio.create_task(attempt(request, cost, left - 1))
            running.add(task)
            task.add_done_callback(running.discard)
        elif waiting is None and not running and not again:
            return counted
        await asyncio.sleep(max(0.001, refused_at + PAUSE - now))


def cookbook_tokens(body: Mapping[str, Any]) -> int:
    """What the cookbook's processor takes a chat request for."""
    answer = (body.get("n") or 1) * (body.get("max_tokens") or DEFAULT_ANSWER)
    values = [
        value
        for message in body["messages"]
        for value in message.values()
        if isinstance(value, str)
    ]
    return (
        int(answer)
        + 2
        + 4 * len(body["messages"])
        + sum(count(value, "cl100k_base") for value in values)
    )


WAYS: dict[str, Way] = {"gather": by_gather, "cookbook": by_cookbook, "ratelimit": by_ratelimit}


def recorded(path: Path, wanted: int) -> list[Request]:
    """The first chat requests of a file."""
    found = []
    for number, raw in read_lines(path):
        try:
            request = read_request(parse_line(raw, f"line {number}"), number)
        except InvalidArgument as error:
            raise SystemExit(str(error)) from None
        if request.endpoint == "chat.completions":
            found.append(request)
            if len(found) == wanted:
                break
    return found


def prepare(path: Path, wanted: int) -> tuple[Job, str]:
    """Choose the requests, and limits that they exceed.

    Both limits matter, and every request fits. Counting them loads the vocabularies.
    """
    if path.exists():
        requests, source = recorded(path, wanted), "recorded"
    else:
        requests, source = (
            [
                read_request(call.body, number)
                for number, call in enumerate(make_calls(wanted, 0), 1)
            ],
            "invented",
        )
    limiter = RateLimiter()
    costs = []
    for request in requests:
        estimate = limiter.estimate(request.body, endpoint=request.endpoint)
        costs.append(max(estimate.prompt_tokens + estimate.output_tokens, estimate.charge))
        cookbook_tokens(request.body)
    tpm = float(round(max(sum(costs) / 3, 1.2 * max(costs)), -2))
    rpm = float(round(len(requests) / 1.3))
    return Job(requests, rpm, tpm), source


async def race(way: Way, job: Job, base_url: str) -> tuple[Count, float, float]:
    """Let one client run; return its counts, its seconds and its seconds of CPU."""
    async with AsyncOpenAI(
        base_url=base_url, api_key="none", max_retries=3 if way is by_ratelimit else 0, timeout=600
    ) as client:
        started, used = time.monotonic(), time.process_time()
        counted = await way(client, job)
        return counted, time.monotonic() - started, time.process_time() - used


def main() -> None:
    """Race and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--requests",
        type=Path,
        default=RECORDED,
        help="a file of requests (default: the recorded calls, else invented ones)",
    )
    parser.add_argument("--count", type=int, default=1_000, help="how many of them (default: 1000)")
    parser.add_argument(
        "--only", choices=tuple(WAYS), action="append", help="this client only; may be given again"
    )
    arguments = parser.parse_args()
    console = Console()
    job, source = prepare(arguments.requests, arguments.count)
    figures: dict[str, Any] = {
        "settings": {
            "requests": len(job.requests),
            "source": source,
            "rpm": job.rpm,
            "tpm": job.tpm,
        }
    }
    title = f"{len(job.requests):,} {source} requests, {job.rpm:,.0f} RPM, {job.tpm:,.0f} TPM"
    table = Table(
        "client", "answered", "failed", "429s", "seconds", "bound", "CPU seconds", title=title
    )
    with backend() as server, console.status("") as status:
        for name in arguments.only or WAYS:
            status.update(name)
            random.seed(0)  # the jitter of the back-off
            url = server.start(variant="P", rpm=job.rpm, tpm=job.tpm)
            counted, seconds, cpu = asyncio.run(race(WAYS[name], job, url))
            seen = server.stop()
            bound = least_seconds(seen.tokens, job.tpm, len(job.requests), job.rpm)
            figures[name] = {
                "answered": counted.answered,
                "failed": counted.failed,
                "rejected": seen.refused,
                "seconds": round(seconds, 2),
                "bound_seconds": round(bound, 2),
                "cpu_seconds": round(cpu, 2),
                "tokens": seen.tokens,
            }
            row = figures[name]
            cells = itertools.chain(
                (row["answered"], row["failed"], row["rejected"]),
                (f"{seconds:.1f}", f"{bound:.1f}", f"{cpu:.1f}"),
            )
            table.add_row(name, *map(str, cells))
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
