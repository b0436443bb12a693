"""The demo's race in virtual time: the naive clients are refused, the limiter is not,
whichever way the server counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import httpx2
import pytest
from openai import AsyncOpenAI

from ratelimit import RateLimiter
from ratelimit.commands.calls import Call, with_answers
from ratelimit.commands.counting import least_seconds
from ratelimit.commands.demo.backend import server_settles, taken
from ratelimit.commands.demo.clients import CLIENTS, IN_FLIGHT, ClientFigures, run_client
from ratelimit.commands.demo.plan import Plan, make_plan
from ratelimit.commands.demo.workload import make_calls
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock

CALLS = with_answers(make_calls(80, seed=3), seed=3)


def raced(name: str, calls: Sequence[Call], plan: Plan) -> tuple[ClientFigures, FakeOpenAI]:
    """One client against a fresh server, in no time."""
    random.seed(0)
    clock, figures = VirtualClock(), ClientFigures(name, len(calls))
    server = FakeOpenAI(plan.variant, rpm=plan.rpm, tpm=plan.tpm, latency=Latency(0.2, 0.002, 0.3))
    limiter = RateLimiter(
        rpm=plan.rpm, tpm=plan.tpm, concurrency=IN_FLIGHT, accounting=plan.accounting, clock=clock
    )

    async def main() -> None:
        async with httpx2.AsyncClient(transport=server.transport()) as http:
            client = AsyncOpenAI(
                base_url="http://fake/v1", api_key="any", max_retries=0, http_client=http
            )
            await run_client(figures, calls, client, limiter)

    clock.run(main)
    return figures, server


@pytest.mark.parametrize("variant", ["P", "I", "A"])
def test_the_limiter_is_never_refused_and_gets_every_answer(variant: str) -> None:
    """With the limits that the demo chooses, the limiter's row is clean on every
    variant, no slower than the refill, and uses the quota up.
    """
    plan = make_plan(CALLS, variant, None, None)

    figures, server = raced("limiter", CALLS, plan)

    assert (figures.answered, figures.failed, figures.rejected) == (len(CALLS), 0, 0)
    assert not server.ledger.refused
    assert 0.5 * plan.seconds < figures.longest_wait < plan.seconds + 5
    used = sum(taken(entry, settled=server_settles(variant)) for entry in server.ledger)
    assert used > 0.75 * plan.tpm * (1 + figures.seconds / 60)


@pytest.mark.parametrize("variant", ["P", "I", "A"])
def test_a_semaphore_is_refused_and_loses_calls(variant: str) -> None:
    """The limits that the demo chooses are really exceeded: a client that does not wait
    gets 429s, and without retries they are lost.
    """
    figures, server = raced("semaphore", CALLS, make_plan(CALLS, variant, None, None))

    assert figures.rejected == figures.failed == len(server.ledger.refused) > 0
    assert figures.answered + figures.failed == len(CALLS)


def test_backoff_is_refused_and_tries_again() -> None:
    """Back-off sees 429s, gets most answers after all, and gives up after
    six attempts.
    """
    figures, server = raced("backoff", CALLS, make_plan(CALLS, "P", None, None))

    assert figures.rejected == len(server.ledger.refused) > 0
    assert figures.answered > 0.9 * len(CALLS)

    hopeless, server = raced("backoff", CALLS[:1], make_plan(CALLS, "P", 100, 1))
    assert (hopeless.failed, hopeless.rejected, len(server.ledger.refused)) == (1, 6, 6)


def test_the_slots_are_shared_fairly() -> None:
    """None of the clients has more calls in flight than the others may."""
    for name in CLIENTS:
        now = most = 0

        class Counting(FakeOpenAI):
            async def __call__(self, *scope: object) -> None:
                nonlocal now, most
                now += 1
                most = max(most, now)
                await super().__call__(*scope)  # type: ignore[arg-type]  # handed through
                now -= 1

        server, clock, calls = Counting(rpm=None, tpm=None), VirtualClock(), CALLS[:60]

        async def main(
            name: str = name,
            server: FakeOpenAI = server,
            clock: VirtualClock = clock,
            calls: list[Call] = calls,
        ) -> None:
            async with httpx2.AsyncClient(transport=server.transport()) as http:
                client = AsyncOpenAI(
                    base_url="http://fake/v1", api_key="any", max_retries=0, http_client=http
                )
                await run_client(
                    ClientFigures(name, len(calls)),
                    calls,
                    client,
                    RateLimiter(concurrency=IN_FLIGHT, clock=clock),
                )

        clock.run(main)
        assert most == IN_FLIGHT, name


def test_whatever_fails_is_counted_with_its_reason() -> None:
    """A call that the server cannot take, or the client cannot send, fails alone."""
    odd = [
        Call({"model": "gpt-4o", "messages": [{"role": "user", "content": "\ud800"}]}),
        Call({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}),
        Call(
            {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": "x"}],
                "colour": "blue",
                "timeout": 3,
            }
        ),
    ]

    figures, _ = raced("limiter", odd, make_plan(CALLS, "P", None, None))

    assert (figures.answered, figures.failed) == (1, 2)
    assert sorted(reason.partition(":")[0] for reason in figures.reasons) == [
        "BadRequestError",
        "UnicodeEncodeError",
    ]


def test_cancelling_leaves_the_figures() -> None:
    """A race that is broken off keeps what was counted, so that the partial table can
    be shown.
    """
    plan, figures = make_plan(CALLS, "P", None, None), ClientFigures("limiter", len(CALLS))
    server, clock = FakeOpenAI(rpm=plan.rpm, tpm=plan.tpm), VirtualClock()

    async def main() -> None:
        async with httpx2.AsyncClient(transport=server.transport()) as http:
            client = AsyncOpenAI(
                base_url="http://fake/v1", api_key="any", max_retries=0, http_client=http
            )
            race = asyncio.create_task(
                run_client(
                    figures, CALLS, client, RateLimiter(rpm=plan.rpm, tpm=plan.tpm, clock=clock)
                )
            )
            await asyncio.sleep(6)
            race.cancel()
            with pytest.raises(asyncio.CancelledError):
                await race

    clock.run(main)

    assert 0 < figures.answered < len(CALLS)
    assert figures.failed == 0
    assert 5 < figures.seconds < 7


def test_limits_are_chosen_so_that_somebody_has_to_wait() -> None:
    """Without limits given, the calls exceed both full buckets, no single call exceeds
    one, and given limits are kept.
    """
    plan = make_plan(CALLS, "P", None, None)

    assert plan.tpm < plan.tokens
    assert plan.rpm < len(CALLS)
    assert 5 < plan.seconds < 20
    assert not plan.hopeless
    assert (make_plan(CALLS, "P", 7, 9).rpm, make_plan(CALLS, "P", 7, 9).tpm) == (7, 9)


def test_calls_dearer_than_the_limit_are_named() -> None:
    """A call that no wait can help is named before the race, with its line."""
    plan = make_plan(CALLS, "P", None, 500)

    assert plan.hopeless
    assert plan.hopeless[0].startswith("call ")


def test_the_least_time_is_plain_arithmetic() -> None:
    """What exceeds a full bucket, at the rate of the slower limit; nothing when all
    fits.
    """
    assert least_seconds(90_000, 30_000, 10, 500) == 120
    assert least_seconds(1, 30_000, 600, 500) == 12
    assert least_seconds(30_000, 30_000, 500, 500) == 0
    assert least_seconds(90_000, None, 10, None) == 0


def test_tokens_taken_follow_the_server_s_way_of_counting() -> None:
    """Where the server settles, a call has cost its usage; where it does not, its
    charge.
    """
    _, server = raced("limiter", CALLS[:1], make_plan(CALLS, "P", None, None))
    entry = server.ledger[0]

    assert entry.usage is not None
    assert taken(entry, settled=True) == entry.usage.total_tokens
    assert taken(entry, settled=False) == entry.charge != entry.usage.total_tokens
