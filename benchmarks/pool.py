"""A pool of members: what it makes of their limits, and of members that fail.

Owns the scenarios, on fake servers and in virtual time but for the race with another
package, and their table. Must never bend a
figure: what is missed is shown as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import openai
from rich.console import Console
from rich.table import Table

from ratelimit import Member, Pool, RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock

MODEL = "gpt-4o"
RPM, TPM = 600.0, 120_000.0
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there. " * 60}]}


@dataclass
class Site:
    """A fake server, the limiter before it, and what it was asked."""

    name: str
    clock: VirtualClock
    share: float = 1.0
    latency: Latency | float = 1.0
    key: str = "right"
    dead: tuple[float, float] | None = None
    """Seconds from and to which no connection can be made."""

    def __post_init__(self) -> None:
        self.rpm, self.tpm = RPM * self.share, TPM * self.share
        self.server = FakeOpenAI(
            rpm=self.rpm,
            tpm=self.tpm,
            latency=self.latency,
            output=60,
            output_spread=0.3,
            keys={"right": f"org-{self.name}"},
        )
        self.limiter = RateLimiter(rpm=self.rpm, tpm=self.tpm, clock=self.clock)

    def member(self, **options: Any) -> Member:
        """Make the member of this place."""
        http = httpx2.AsyncClient(transport=_Line(self))
        client = openai.AsyncOpenAI(
            api_key=self.key, base_url=f"http://{self.name}/v1", http_client=http
        )
        return Member(client, limiter=self.limiter, name=self.name, **options)

    @property
    def refused(self) -> int:
        """429s of the server."""
        return len(self.server.ledger.refused)

    @property
    def answered(self) -> int:
        """Calls that the server has answered."""
        return sum(entry.status == 200 for entry in self.server.ledger)

    @property
    def tokens(self) -> float:
        """Tokens that its answered calls were billed."""
        return sum(entry.usage.total_tokens for entry in self.server.ledger if entry.usage)


class _Line(httpx2.AsyncBaseTransport):
    """The way to a server, which may be cut."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._inner = site.server.transport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        dead = self._site.dead
        if dead is not None and dead[0] <= self._site.clock.now() < dead[1]:
            raise httpx2.ConnectError("connection refused", request=request)
        return await self._inner.handle_async_request(request)


@dataclass
class Outcome:
    """What calls have met."""

    answered: list[tuple[float, float, str]] = field(default_factory=list)
    """When each began and ended, and the member that answered."""
    failed: Counter[str] = field(default_factory=Counter)

    async def ask(self, client: Any, clock: VirtualClock, body: dict[str, Any]) -> None:
        """Ask once."""
        began = clock.now()
        try:
            raw = await client.chat.completions.with_raw_response.create(**body)
        except Exception as error:  # noqa: BLE001  # it is counted
            self.failed[type(error).__name__] += 1
        else:
            member = raw.headers.get("x-ratelimit-member", "")
            self.answered.append((began, clock.now(), member))

    def of(self, member: str) -> list[tuple[float, float, str]]:
        """Return the calls that one member answered."""
        return [one for one in self.answered if one[2] == member]


def played(run: Callable[[VirtualClock], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Run a scenario in virtual time."""
    clock = VirtualClock()
    started = time.monotonic()
    figures = clock.run(run, clock)
    return figures | {"real_seconds": round(time.monotonic() - started, 1)}


async def _all_at_once(
    client: Any, clock: VirtualClock, calls: int, body: dict[str, Any] | None = None
) -> Outcome:
    outcome = Outcome()
    async with asyncio.TaskGroup() as group:
        for number in range(calls):
            mine = body or BODY | {"user": f"user-{number}"}
            group.create_task(outcome.ask(client, clock, mine))
    return outcome


async def _at_a_rate(
    client: Any,
    clock: VirtualClock,
    per_second: float,
    seconds: float,
    body: Callable[[int], dict[str, Any]] = lambda number: BODY | {"user": f"user-{number}"},
) -> Outcome:
    outcome = Outcome()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            group.create_task(outcome.ask(client, clock, body(number)))
            await asyncio.sleep(1 / per_second)
    return outcome


async def speedup(clock: VirtualClock) -> dict[str, Any]:
    """Three equal members beside one: answers a second, without full buckets."""
    rates: dict[int, float] = {}
    refused = 0
    for number in (1, 3):
        places = [Site(f"m{place}", clock) for place in range(number)]
        client = Pool([place.member() for place in places]).client()
        used_up = clock.now() + 30.0
        outcome = await _all_at_once(client, clock, 1_400 * number)
        late = [end for _, end, _ in outcome.answered if end > used_up]
        rates[number] = len(late) / (max(late) - used_up)
        refused += sum(place.refused for place in places) + outcome.failed.total()
    return {
        "speedup": rates[3] / rates[1],
        "answers_a_second_of_one": rates[1],
        "answers_a_second_of_three": rates[3],
        "refused_or_failed": refused,
    }


async def unequal(clock: VirtualClock) -> dict[str, Any]:
    """Limits of 1:2:7, and more calls than they let through."""
    places = [Site(f"m{share}", clock, share=share / 3) for share in (1, 2, 7)]
    client = Pool([place.member() for place in places]).client()
    outcome = await _all_at_once(client, clock, 6_000)
    seconds = max(end for _, end, _ in outcome.answered)
    # What the servers would have let through until the last call was sent: a full
    # bucket each, and what it refills.
    last = max(entry.time for place in places for entry in place.server.ledger)
    used = {place.name: place.tokens / (place.tpm * (1 + last / 60)) for place in places}
    total = sum(place.tokens for place in places)
    allowed = sum(place.tpm for place in places) * (1 + last / 60)
    return {
        "utilisation": total / allowed,
        "by_member": used,
        "refused": sum(place.refused for place in places),
        "failed": outcome.failed.total(),
        "seconds": seconds,
    }


async def provisioned(clock: VirtualClock) -> dict[str, Any]:
    """A provisioned member first, a paid one after five seconds."""
    after = 5.0
    first, paid = Site("provisioned", clock), Site("paid", clock, share=10)
    pool = Pool([first.member(), paid.member(prefer=1, after=after)])
    client = pool.client()
    light = await _at_a_rate(client, clock, 8, 60)  # below the first one's 10 a second
    paid_while_free = len(light.of("paid"))
    full = await _all_at_once(client, clock, 3_000)
    waits = [end - began - 1.0 for began, end, member in full.answered if member == "paid"]
    return {
        "paid_while_free": paid_while_free,
        "paid_when_full": len(waits),
        "longest_wait_for_paid": max(waits),
        "after": after,
        "refused": first.refused + paid.refused,
        "failed": full.failed.total() + light.failed.total(),
    }


async def faults(clock: VirtualClock) -> dict[str, Any]:
    """One member dead from minute 2 to 4, one slow, one with a wrong key, one well."""
    dead = Site("dead", clock, dead=(120.0, 240.0))
    slow = Site("slow", clock, latency=20.0)
    wrong = Site("wrong-key", clock, key="wrong")
    well = Site("well", clock)
    places = [dead, slow, wrong, well]
    pool = Pool([place.member() for place in places])
    outcome = await _at_a_rate(pool.client(), clock, 18, 360)
    # The rate at which the dead member answers before, and when it is reached again.
    before = len([1 for began, _, _ in outcome.of("dead") if 60 <= began < 118]) / 58
    ends = sorted(end for _, end, _ in outcome.of("dead") if end >= 240)
    back = next(
        (
            start - 240.0
            for start in (240.0 + step / 10 for step in range(600))
            if sum(start <= end < start + 2 for end in ends) / 2 >= 0.95 * before
        ),
        None,
    )
    return {
        "failed": outcome.failed.total(),
        "seconds_to_full_speed": back,
        "first_answer_after": None if not ends else ends[0] - 240.0,
        "answered": {place.name: place.answered for place in places},
        "refused": sum(place.refused for place in places),
        "moved": pool.statistics().moved,
    }


async def affinity(clock: VirtualClock) -> dict[str, Any]:
    """Calls of five tasks, each with a long prefix of its own, below the limits."""
    places = [Site(f"m{place}", clock) for place in range(3)]
    client = Pool([place.member() for place in places]).client()
    texts = [f"Task {task}. " + "You are a careful clerk. " * 250 for task in range(5)]

    def body(number: int) -> dict[str, Any]:
        turns = [
            {"role": "system", "content": texts[number % 5]},
            {"role": "user", "content": f"Case {number}"},
        ]
        return {"model": MODEL, "messages": turns}

    outcome = Outcome()
    members: dict[int, Counter[str]] = {task: Counter() for task in range(5)}

    async def one(number: int) -> None:
        mine = Outcome()
        await mine.ask(client, clock, body(number))
        outcome.failed.update(mine.failed)
        for call in mine.answered:
            members[number % 5][call[2]] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(400):
            group.create_task(one(number))
            await asyncio.sleep(0.7)
    shares = [max(found.values()) / sum(found.values()) for found in members.values()]
    return {
        "share_on_one": min(shares),
        "failed": outcome.failed.total(),
        "refused": sum(place.refused for place in places),
    }


async def order(clock: VirtualClock) -> dict[str, Any]:
    """Calls of many sizes at members of unequal limits: how many were overtaken."""
    places = [Site(f"m{share}", clock, share=share / 3) for share in (1, 2, 7)]
    pool = Pool([place.member() for place in places])
    arrivals: list[float] = []

    async def one(number: int) -> None:
        lease = await pool.acquire(model=MODEL, tokens=100 + 7_919 * number % 20_000)
        arrivals.append(number)
        lease.close()

    async with asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(one(number))
            await asyncio.sleep(0.01)
    return {"overtaken": sum(a > b for a, b in pairwise(arrivals))}


SHARES = (1, 2, 7)
"""Of the members' limits, in the race with the Router."""

RACE_CALLS, RACE_RPM = 240, 12.0
"""Calls at once, and the requests a minute of the smallest of the members."""


async def _race(name: str) -> dict[str, Any]:
    """One client's run in real time, over HTTP: the Router counts by the wall clock."""
    with ExitStack() as block:
        servers = [
            FakeOpenAI(rpm=RACE_RPM * share, tpm=1e6, latency=0.2, output=10) for share in SHARES
        ]
        bases = [block.enter_context(server.serve()) for server in servers]
        send = {"pool": _by_pool, "litellm_router": _by_router}[name](bases)
        answered, failed = 0, Counter[str]()

        async def one() -> None:
            nonlocal answered
            try:
                await send()
            except Exception as error:  # noqa: BLE001  # it is counted
                failed[type(error).__name__] += 1
            else:
                answered += 1

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(RACE_CALLS):
                group.create_task(one())
        seconds = time.monotonic() - began
    return {
        "answered": answered,
        "failed": failed.total(),
        "errors": dict(failed),
        "refused": sum(len(server.ledger.refused) for server in servers),
        "seconds": seconds,
    }


def _by_pool(bases: Sequence[str]) -> Callable[[], Awaitable[object]]:
    members = [
        Member(
            openai.AsyncOpenAI(api_key="any", base_url=base),
            limiter=RateLimiter(rpm=RACE_RPM * share, tpm=1e6),
            name=f"m{share}",
        )
        for share, base in zip(SHARES, bases, strict=True)
    ]
    client = Pool(members).client()
    return lambda: client.chat.completions.create(**BODY)


def _by_router(bases: Sequence[str]) -> Callable[[], Awaitable[object]]:
    # it would fetch a list of prices at its import
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    library: Any = importlib.import_module("litellm")
    library.suppress_debug_info = True
    router = library.Router(
        model_list=[
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_key": "any",
                    "api_base": base,
                    "rpm": int(RACE_RPM * share),
                    "tpm": 1_000_000,
                },
            }
            for share, base in zip(SHARES, bases, strict=True)
        ],
        num_retries=10,
    )
    return lambda: router.acompletion(**BODY)


def race() -> dict[str, dict[str, Any]]:
    """The same calls by a pool and by litellm's Router with ten retries."""
    return {name: asyncio.run(_race(name)) for name in ("pool", "litellm_router")}


SCENARIOS = {
    "speedup": speedup,
    "unequal": unequal,
    "provisioned": provisioned,
    "faults": faults,
    "affinity": affinity,
    "order": order,
}


def _show(console: Console, figures: dict[str, dict[str, Any]]) -> None:
    table = Table(title="A pool of members, in virtual time")
    for column in ("scenario", "figures"):
        table.add_column(column)
    for name, row in figures.items():
        shown = ", ".join(
            f"{key} {value:,.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
            if key != "real_seconds"
        )
        table.add_row(name, shown)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--only", choices=[*SCENARIOS, "race"], nargs="+", help="run these scenarios alone"
    )
    options = parser.parse_args(arguments)

    warnings.simplefilter("ignore")
    logging.getLogger("ratelimit").setLevel(logging.CRITICAL)
    chosen = options.only or [*SCENARIOS, "race"]
    figures = {name: played(SCENARIOS[name]) for name in chosen if name in SCENARIOS}
    if "race" in chosen and importlib.util.find_spec("litellm") is None:
        print("litellm is not installed: the race with its Router is left out", file=sys.stderr)
    elif "race" in chosen:
        figures |= {f"race: {name}": row for name, row in race().items()}
    _show(Console(), figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
