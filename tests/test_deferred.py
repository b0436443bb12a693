"""What the server debits only at the end: held while the call is in flight, and what
headers and refusals tell of servers that do otherwise.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from ratelimit import InvalidArgument, Limit, Limits, RateLimiter, WaitTimeout
from ratelimit.stores.bucket import HELD, Bucket, give_all, take_all
from ratelimit.stores.memory import MemoryStore
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import VirtualClock

CALLS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(1, 60),
        st.integers(0, 60),
        st.integers(1, 80),
        st.integers(0, 90),
    ),
    max_size=30,
)


@given(calls=CALLS)
def test_full_at_is_the_servers_when_outputs_are_debited_at_the_end(
    calls: list[tuple[int, int, int, int, int]],
) -> None:
    """Against a level that loses what refills while it is full and goes below zero at
    the end of calls: never more is believed than is there.
    """
    bucket, level, seen = Bucket(Limit("tokens", 100, 100), 0.0), 100.0, 0.0
    events = []
    now = 0.0
    for number, (gap, charge, output, lasts, used) in enumerate(calls):
        now += gap
        events += [
            (now, number, "arrives", charge, output, used),
            (now + lasts, number, "ends", charge, output, min(used, output)),
        ]
    admitted = set()
    for moment, number, what, charge, output, used in sorted(events):
        level, seen = min(100.0, level + moment - seen), moment
        cost = {"tokens": charge + output, HELD: output}
        if what == "arrives":
            if take_all([bucket], cost, moment):
                admitted.add(number)
                assert level >= charge
                level -= charge
        elif number in admitted:
            give_all([bucket], {"tokens": output - used, HELD: output}, moment)
            level -= used

        assert bucket.burst - bucket.owed(moment) == pytest.approx(level)


@pytest.mark.parametrize("used", [753, 1_700])
def test_a_long_answer_is_debited_when_it_ends(used: int) -> None:
    """The server debits an answer when its call ends, however long ago that began: no
    refill may be believed to have paid for it.
    """
    clock = VirtualClock()
    limiter = RateLimiter(tpm=6_000, clock=clock, slack=0)

    async def main() -> float:
        lease = await limiter.acquire(
            {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": "Hello " * 130}],
                "max_tokens": 1_600,
            }
        )
        charge = lease.reserved["tokens"] - lease.reserved[HELD]
        await asyncio.sleep(60)
        lease.settle(tokens=used)
        return 6_000 - (used - charge)

    assert clock.run(main) == pytest.approx(limiter.statistics().families["*"].levels["tokens/60s"])


def test_a_wait_for_what_is_held_is_not_predicted_by_the_clock() -> None:
    """What an answer in flight holds may come back at any moment: who would go in half
    a second must not be told that 38 are too long.
    """
    clock = VirtualClock()
    limiter = RateLimiter(tpm=30_000, clock=clock, slack=0)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}

    async def answer() -> None:
        async with limiter.reserve(body, max_tokens=29_000) as lease:
            await asyncio.sleep(0.5)
            lease.settle(tokens=100)

    async def main() -> float:
        task = asyncio.create_task(answer())
        await asyncio.sleep(0)
        (await limiter.acquire(body, max_tokens=20_000, timeout=5)).settle(tokens=20)
        await task
        return clock.now()

    start = clock.now()
    assert clock.run(main) - start == pytest.approx(0.5)


def test_what_is_held_does_not_drip_and_waits_for_calls_to_end() -> None:
    """A held output lowers the level for as long as the call lasts, however long that
    is, and no time makes room for more than the limit.
    """
    bucket = Bucket(Limit("tokens", 100, 100), 0.0)

    assert take_all([bucket], {"tokens": 70, HELD: 60}, 0.0)
    assert bucket.level(1_000.0) == 40
    assert bucket.moment(10, 31) == float("inf")
    assert not take_all([bucket], {"tokens": 41, HELD: 31}, 1_000.0)
    give_all([bucket], {"tokens": 60, HELD: 60}, 1_000.0)
    assert bucket.level(1_000.0) == 100


def test_a_call_dearer_than_the_limit_with_its_output_goes_alone() -> None:
    """The server admits by the input: a maximum above the limit is no reason to refuse,
    only to wait for a full bucket and for the others.
    """
    bucket = Bucket(Limit("tokens", 100, 100), 0.0)

    assert take_all([bucket], {"tokens": 10}, 0.0)
    assert not take_all([bucket], {"tokens": 1_000, HELD: 990}, 5.0)
    assert take_all([bucket], {"tokens": 1_000, HELD: 990}, 10.0)
    assert not take_all([bucket], {"tokens": 1}, 500.0)


def test_a_held_amount_is_undone_with_the_rest() -> None:
    """If another bucket cannot pay, nothing is held either."""
    tokens, requests = (
        Bucket(Limit("tokens", 100, 100), 0.0),
        Bucket(Limit("requests", 1, 100), 0.0),
    )
    take_all([requests], {"requests": 1}, 0.0)

    assert not take_all([tokens, requests], {"tokens": 50, HELD: 40, "requests": 1}, 1.0)
    assert tokens.level(1.0) == 100


def race(
    variant: str, *, learned: bool = False, calls: int = 300, server: dict[str, Any] | None = None
) -> tuple[FakeOpenAI, RateLimiter, list[Any]]:
    """Send calls at once through a wrapped client, in virtual time."""
    clock = VirtualClock()
    fake = FakeOpenAI(variant, **({"rpm": 500, "tpm": 30_000} | (server or {})))
    limiter = RateLimiter(clock=clock) if learned else RateLimiter(rpm=500, tpm=30_000, clock=clock)

    async def main() -> list[Any]:
        http = httpx2.AsyncClient(transport=fake.transport())
        client = limiter.wrap(
            AsyncOpenAI(base_url="http://fake/v1", api_key="any", http_client=http, timeout=1e6)
        )
        body = {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "Tell me of rivers. " * 10}],
            "max_tokens": 1_500,
        }
        asks = [client.chat.completions.create(**body) for _ in range(calls)]  # type: ignore[call-overload]
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = clock.run(main)
    return fake, limiter, [answer for answer in answers if isinstance(answer, BaseException)]


@pytest.mark.parametrize(("variant", "seconds"), [("P", 110), ("I", 40)])
def test_a_wrapped_client_finds_out_what_the_server_debits(variant: str, seconds: float) -> None:
    """Answers of a tenth of max_tokens: no refusal, and no waiting for what the server
    will never debit.
    """
    fake, _, failures = race(variant)

    entries = list(fake.ledger)
    assert not failures
    assert not [entry for entry in entries if entry.status == 429]
    assert entries[-1].time - entries[0].time < seconds


def test_a_server_that_keeps_the_maximum_is_not_asked_again_and_again() -> None:
    """Three refusals for tokens where refunds were believed: from then on none are
    made.
    """
    fake, _, failures = race("A", calls=150)

    assert not failures
    assert len([entry for entry in fake.ledger if entry.status == 429]) <= 8


def test_a_limit_that_only_a_refusal_names_is_held_from_then_on() -> None:
    """Headers that show a day's requests hide a minute's: one wave is refused, none
    after it.
    """
    fake, limiter, failures = race(
        "H", learned=True, calls=200, server={"rpm": 60, "rpd": 10_000, "tpm": 1_000_000}
    )

    refused = [entry for entry in fake.ledger if entry.status == 429]
    assert not [failure for failure in failures if "per day" in str(failure)]
    assert "requests/60s" in limiter.statistics().families["*"].levels
    assert max(entry.time for entry in refused) - min(entry.time for entry in fake.ledger) < 30


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan"), "half"])
def test_a_level_is_a_share(level: Any) -> None:
    """How full the buckets start is between nothing and all."""
    with pytest.raises(InvalidArgument, match="level="):
        RateLimiter(rpm=1, level=level)


def test_buckets_start_as_full_as_is_said() -> None:
    """Half of each limit is there at the start; a small burst has no part in what is
    spent.
    """
    small = RateLimiter(
        limits=Limits(Limit("tokens", 1_000, burst=100)), level=0.5, slack=0, clock=VirtualClock()
    )
    assert small.statistics().families["*"].levels == {"tokens/60s": 100}

    limiter = RateLimiter(
        limits=Limits("100 rpm", "1k tpm"), level=0.5, slack=0, clock=VirtualClock()
    )

    assert limiter.statistics().families["*"].levels == {"requests/60s": 50, "tokens/60s": 500}


def test_the_first_call_may_wait_for_another_one() -> None:
    """While the first headers are awaited the rest is held, but not for ever: the call
    that brings them may be inside one that is admitted.
    """
    clock = VirtualClock()
    limiter = RateLimiter(rpm=60, clock=clock)
    limiter.listen()

    async def main() -> float:
        async with limiter.reserve(tokens=1):
            with pytest.raises(WaitTimeout):
                await limiter.acquire(tokens=1, timeout=5)
            inner = await limiter.acquire(tokens=1, timeout=60)
            inner.close()
        return clock.now()

    assert 5 < clock.run(main) <= 31


def test_a_limit_that_was_believed_far_too_high_does_not_close_the_line() -> None:
    """What little of a huge limit was spent is little of the real one as well."""
    store = MemoryStore(Limits(rpm=1e9), 0.0, 2.0)
    store.take({"requests": 1}, 0.0)
    store.replace(Limits(rpm=10_000), 0.0)

    assert store.levels(2.1) == {("requests", 60.0): 10_000}


def test_an_answer_whose_headers_are_not_read_takes_no_word_back() -> None:
    """A changed limit is believed when two answers that were read say so, however many
    were not read between them.
    """
    limiter = RateLimiter(slack=0, clock=VirtualClock())

    def answer(limit: int | None) -> None:
        lease = limiter.acquire_nowait(tokens=1)
        told = {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(limit - 1 if limit else 0),
        }
        lease.observe(told if limit else {})
        lease.close()

    for limit in (600, None, 300, None, 300):
        answer(limit)

    assert [str(held) for held in limiter._engine.family("").admission.store.limits] == [
        "300 requests/min"
    ]
