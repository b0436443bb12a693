"""The proof in real time: the recommended settings, the real SDK, and HTTP.

Owns the scaled-down workload, its prediction, and its run against `ratelimit serve` in
a process of its own. Must never contain searching or the texts of calls: a rehearsal
keeps sizes only and sends words of its own.

A rehearsal is a sample of the calls, all at once, against limits lowered until it takes
about half a minute. In so short a time one long answer would decide everything if it
came last, or if it were the first, because all calls wait for the first headers. So the
shortest answer is asked for first, then the longest and so on. The time from the first
call to the last answer is predicted and measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

import openai

from benchmarks.tuning.plans import PERIODS, Plan, arithmetic, work_of
from benchmarks.tuning.traffic import Item, Traffic
from benchmarks.tuning.world import Settings
from ratelimit import RateLimiter
from ratelimit.errors import InvalidArgument
from ratelimit.estimate import Estimator
from ratelimit.testing import Latency
from ratelimit.testing.answers import words

CALLS: Final = 120
SECONDS: Final = 30.0
NEAR: Final = 0.10
"""Prediction and reality may differ by this share."""
SEEDS: Final = (201, 202, 203, 204, 205)
SERVED: Final = Latency()
"""What `ratelimit serve` answers with; loopback takes no time."""
CLIENT: Final = 0.003
"""Seconds that building a request keeps the SDK's process busy, and sending it again;
source: 4 to 6 ms a call with openai 3.57.
"""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """How it went: seconds, 429s that the limiter counted, calls that failed."""

    seconds: float
    rejected: int
    failed: int


def rehearsal(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Draw a rehearsal of a plan and predict it; return JSON for `rehearse`."""
    jobs = plan.jobs(SEEDS[0])
    chosen = random.Random(0).sample(jobs, min(CALLS, len(jobs)))
    sizes = sorted(
        ((job.item.prompt, job.output, job.item.most) for job in chosen if job.item.answers),
        key=lambda size: -size[1],
    )
    sizes = sizes[-1:] + sizes[:-1]
    model = chosen[0].item.model
    traffic = Traffic([_item(model, *size) for size in sizes], pace=None)
    if not sizes:
        raise InvalidArgument(
            "a rehearsal needs calls that get text back, and these are embeddings only; leave"
            " --validate out"
        )
    world = replace(plan.world, latency=SERVED, client=CLIENT, level=1.0)
    work = work_of(traffic, world)
    scale = max(
        work[name] / (limit * (1 + SECONDS / PERIODS[name[-1]]))
        for name, limit in world.limits.items()
    )
    largest = max(item.reserve for item in traffic.items)
    scale = max(
        [
            scale,
            *(
                1.5 * largest / limit
                for name, limit in world.limits.items()
                if name.startswith("t")
            ),
        ]
    )
    small = Plan(traffic, world.scaled(scale))
    small = replace(
        small,
        world=replace(
            small.world,
            limits={
                name: float(max(1, round(amount))) for name, amount in small.world.limits.items()
            },
        ),
    )
    settings = (
        settings
        if settings.concurrency is None
        else replace(settings, concurrency=max(1, round(settings.concurrency * scale)))
    )
    outcomes = [small.run(settings, seed) for seed in SEEDS]
    return {
        "calls": [list(size) for size in sizes],
        "model": model,
        "limits": dict(small.world.limits),
        "variant": world.variant,
        "arguments": settings.arguments(),
        "predicted": round(fmean(outcome.seconds for outcome in outcomes), 3),
        "predicted_rejected": sum(outcome.rejected for outcome in outcomes),
        "lower_bound": round(max(arithmetic(work, small.world).values()), 3),
    }


def _item(model: str, prompt: int, output: int, most: int | None) -> Item:
    body = _body(model, prompt, most)
    counted = Estimator().estimate(body)
    return Item(body, "chat.completions", model, counted, counted.prompt_tokens, output, most)


def _body(model: str, prompt: int, most: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": words(0, max(prompt - 7, 1)).lstrip()}],
    }
    return body if most is None else {**body, "max_tokens": most}


def rehearse(document: Mapping[str, Any]) -> Rehearsed:
    """Run a rehearsal over HTTP and in real time."""
    with _serving(document["limits"], document["variant"]) as url, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of, it counts
        return asyncio.run(_run(document, url))


async def _run(document: Mapping[str, Any], url: str) -> Rehearsed:
    limiter = RateLimiter(**document["limits"], **document["arguments"])
    async with openai.AsyncOpenAI(base_url=url, api_key="any", timeout=600) as plain:
        client = limiter.wrap(plain)
        limiter.estimate(_body(document["model"], 8, 1))  # loads the vocabulary
        # the first call builds the SDK's types, and the server loads its vocabulary
        await _ask(plain, document["model"], (8, 1, 1))
        await asyncio.sleep(1.0)  # what that took of its buckets is back
        started = time.monotonic()
        results = await asyncio.gather(
            *[_ask(client, document["model"], call) for call in document["calls"]],
            return_exceptions=True,
        )
        seconds = time.monotonic() - started
    failed = [each for each in results if isinstance(each, BaseException)]
    return Rehearsed(seconds, limiter.statistics().refused, len(failed))


async def _ask(client: openai.AsyncOpenAI, model: str, call: Sequence[Any]) -> object:
    prompt, output, most = call
    headers = {"x-fake-usage": json.dumps({"completion_tokens": output})}
    body = _body(model, prompt, most)
    return await client.chat.completions.create(**body, extra_headers=headers)


@contextmanager
def _serving(limits: Mapping[str, float], variant: str) -> Iterator[str]:
    given = [
        argument
        for name, amount in limits.items()
        if name != "rps"
        for argument in (f"--{name}", f"{amount:.12g}")
    ]
    for name in {"rpm", "tpm"} - limits.keys():
        given += [f"--{name}", "1000000000"]
    command = [
        sys.executable,
        "-P",
        "-c",
        "from ratelimit.cli import main; raise SystemExit(main())",
        "serve",
        "--port",
        "0",
        "--variant",
        variant,
    ]
    with subprocess.Popen(
        [*command, *given], stdout=subprocess.PIPE, encoding="utf-8", env=None
    ) as process:  # ourselves
        try:
            if process.stdout is None:
                raise InvalidArgument("ratelimit serve has no output to read its address from")
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                raise InvalidArgument(
                    f"ratelimit serve did not start: {line.strip() or 'what it said stands above'}"
                )
            yield found[0]
        finally:
            process.terminate()
