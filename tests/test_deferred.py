"""What the server debits only when a call ends: deferred while it is in flight.

And what headers and refusals show of servers that do otherwise.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from ratelimit import InvalidArgument, Limit, Limits, RateLimiter, WaitTimeout
from ratelimit.lease import AdmittedLease
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.payments import Payment
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.clocks import VirtualClock
from tests.payments import paid, refused

LIMITS = Limits(Limit("tokens", 100, 100))

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
    """Against a level that loses what refills while it is full.

    And that goes below zero at the end of calls.
    """
    store, level, seen = MemoryStore(LIMITS, 0.0), 100.0, 0.0
    (bucket,) = store.buckets_of("tokens")
    events = []
    now = 0.0
    for number, (gap, charge, output, lasts, used) in enumerate(calls):
        now += gap
        events += [
            (now, number, "arrives", charge, output, used),
            (now + lasts, number, "ends", charge, output, min(used, output)),
        ]
    admitted: dict[int, Payment] = {}
    for moment, number, what, charge, output, used in sorted(events):
        level, seen = min(100.0, level + moment - seen), moment
        if what == "arrives":
            payment = Payment({"tokens": charge + output}, deferred=output)
            if store.take(payment, moment) is None:
                admitted[number] = payment
                assert level >= charge
                level -= charge
        elif number in admitted:
            store.settle(admitted[number], {"tokens": charge + used}, moment)
            level -= used

        owed = bucket.owed(store.full_at(bucket), moment)
        assert bucket.burst - owed == pytest.approx(level)


@pytest.mark.parametrize("used", [753, 1_700])
def test_a_long_answer_is_debited_when_it_ends(used: int) -> None:
    """The server debits an answer when its call ends, however long ago that began.

    No refill since then has paid for it.
    """
    clock = VirtualClock()
    limiter = RateLimiter(tpm=6_000, clock=clock, arrival_slack=0)

    async def main() -> float:
        lease = await limiter.acquire(
            {
                "model": "gpt-4o",
                "messages": [{"role": "user", "content": "Hello " * 130}],
                "max_tokens": 1_600,
            }
        )
        assert isinstance(lease, AdmittedLease)
        charge = lease.payment.at_once["tokens"]
        await asyncio.sleep(60)
        lease.settle(tokens=used)
        return 6_000 - (used - charge)

    assert clock.run(main) == pytest.approx(limiter.statistics().families["*"].levels["tokens/60s"])


def test_a_wait_for_what_is_deferred_is_not_predicted_by_the_clock() -> None:
    """An output in flight may come back at any moment: a timeout of 5 s waits for
    it.
    """
    clock = VirtualClock()
    limiter = RateLimiter(tpm=30_000, clock=clock, arrival_slack=0)
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


def test_what_is_deferred_does_not_drip_and_waits_for_calls_to_end() -> None:
    """A deferred output lowers the level for as long as its call lasts.

    No time makes room for more than the limit.
    """
    store = MemoryStore(LIMITS, 0.0)
    call = paid(store, {"tokens": 70}, deferred=60)
    assert store.levels(1_000.0)["tokens", 100] == 40
    assert refused(store, {"tokens": 41}, 1_000.0, deferred=31).until == inf

    store.settle(call, {"tokens": 10}, 1_000.0)
    assert store.levels(1_000.0)["tokens", 100] == 100


def test_a_call_dearer_than_the_limit_with_its_output_goes_alone() -> None:
    """The server admits by the input: a maximum above the limit is no reason to refuse.

    Only to wait for a full bucket and for all calls in flight.
    """
    store = MemoryStore(LIMITS, 0.0)
    paid(store, {"tokens": 10})
    assert refused(store, {"tokens": 1_000}, 5.0, deferred=990).until == 10
    paid(store, {"tokens": 1_000}, 10.0, deferred=990)

    assert refused(store, {"tokens": 1}, 500.0).until == inf


@given(ended=st.permutations(range(4)), used=st.lists(st.integers(0, 40), min_size=4, max_size=4))
def test_all_that_was_deferred_is_free_when_all_calls_have_ended(
    ended: list[int], used: list[int]
) -> None:
    """In whatever order they end, however much they used, and settled twice."""
    store = MemoryStore(Limits(Limit("tokens", 1_000, 1e9)), 0.0)
    calls = [paid(store, {"tokens": 30.1}, deferred=20.1) for _ in range(4)]
    for number in ended:
        store.settle(calls[number], {}, 0.0)
        store.settle(calls[number], {"tokens": used[number]}, 0.0)

    assert store._buckets.deferred == pytest.approx(0, abs=1e-9)
    assert store.levels(0.0)["tokens", 1e9] == pytest.approx(1_000 - sum(used), abs=1e-6)


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
    """Answers of a tenth of max_tokens: no refusal, and no wait for more than is
    debited.
    """
    fake, _, failures = race(variant)

    entries = list(fake.ledger)
    assert not failures
    assert not [entry for entry in entries if entry.status == 429]
    assert entries[-1].time - entries[0].time < seconds


def test_a_server_that_keeps_the_maximum_is_not_asked_again_and_again() -> None:
    """Three refusals for tokens in spite of refunds: from then on none are made."""
    fake, _, failures = race("A", calls=150)

    assert not failures
    assert len([entry for entry in fake.ledger if entry.status == 429]) <= 8


def test_a_limit_that_only_a_refusal_names_is_held_from_then_on() -> None:
    """Headers that show a day's requests hide a minute's: one wave is refused, no
    other.
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
    with pytest.raises(InvalidArgument, match="initial_level="):
        RateLimiter(rpm=1, initial_level=level)


def test_buckets_start_as_full_as_was_given() -> None:
    """Half of each limit is there at the start; a small burst is full all the same."""
    small = RateLimiter(
        limits=Limits(Limit("tokens", 1_000, burst=100)),
        initial_level=0.5,
        arrival_slack=0,
        clock=VirtualClock(),
    )
    assert small.statistics().families["*"].levels == {"tokens/60s": 100}

    limiter = RateLimiter(
        limits=Limits("100 rpm", "1k tpm"), initial_level=0.5, arrival_slack=0, clock=VirtualClock()
    )

    assert limiter.statistics().families["*"].levels == {"requests/60s": 50, "tokens/60s": 500}


def test_the_first_headers_are_awaited_for_a_while_only() -> None:
    """The rest is held meanwhile, and goes on where no headers come."""
    clock = VirtualClock()
    limiter = RateLimiter(rpm=60, clock=clock)
    limiter._engine.listen()

    async def main() -> float:
        first = await limiter.acquire(tokens=1)
        with pytest.raises(WaitTimeout):
            await limiter.acquire(tokens=1, timeout=5)
        await limiter.acquire(tokens=1, timeout=60)
        first.close()
        return clock.now()

    assert 5 < clock.run(main) <= 31


def test_the_first_headers_may_be_those_of_a_nested_call() -> None:
    """The only call in flight goes on inside itself: it does not wait for its own
    end.
    """
    clock = VirtualClock()
    limiter = RateLimiter(rpm=60, clock=clock)
    limiter._engine.listen()

    async def main() -> float:
        async with limiter.reserve(tokens=1), limiter.reserve(tokens=1):
            return clock.now()

    assert clock.run(main) == 0


def test_a_limit_that_was_far_too_high_leaves_no_debt() -> None:
    """A little of a huge limit that was spent is little of the real one as well."""
    store = MemoryStore(Limits(rpm=1e9), 0.0, 2.0)
    paid(store, {"requests": 1})
    store.replace(Limits(rpm=10_000), 0.0)

    assert store.levels(2.1) == {("requests", 60.0): 10_000}


def test_an_answer_without_headers_contradicts_nothing() -> None:
    """A changed limit holds when two answers show it, however many show nothing
    between.
    """
    limiter = RateLimiter(arrival_slack=0, clock=VirtualClock())

    def answer(limit: int | None) -> None:
        lease = limiter.acquire_nowait(tokens=1)
        headers = {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(limit - 1 if limit else 0),
        }
        lease.observe(headers if limit else {})
        lease.close()

    for limit in (600, None, 300, None, 300):
        answer(limit)

    assert [str(held) for held in limiter.limits()] == ["300 requests/min"]
