"""A limiter's budget: no call that would exceed it is sent, and usage settles it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import anyio
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Budget, BudgetSpent, InvalidArgument, Prices, RateLimiter, Spent
from ratelimit.testing import FakeOpenAI, VirtualClock

PRICES = Prices(input=2.0, output=10.0, cached=0.5)
BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 100,
}


def usage(prompt: int, output: int, cached: int = 0) -> dict[str, Any]:
    """Return an answer with this usage."""
    return {
        "model": "gpt-4o",
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def test_a_call_beyond_the_budget_is_refused_and_takes_nothing() -> None:
    """The limits have their amount back, and what is in flight counts as estimated."""
    budget = Budget(tokens=1_000)
    limiter = RateLimiter(tpm=10_000, arrival_slack=0, budget=budget)
    first = limiter.acquire_sync(tokens=700)

    with pytest.raises(BudgetSpent, match=r"budget of 1,000 tokens .* 700 in flight") as caught:
        limiter.acquire_sync(tokens=400)

    assert (caught.value.name, caught.value.budget, caught.value.spent) == ("tokens", 1_000, 0)
    assert limiter.statistics().families["*"].levels["tokens/60s"] == pytest.approx(9_300, abs=9)
    assert limiter.statistics().in_flight == 1
    first.settle(tokens=100)
    assert (budget.spent, budget.in_flight) == (Spent(1, 100, 0), Spent())
    limiter.acquire_sync(tokens=900).close()
    assert budget.spent.tokens == 1_000
    with pytest.raises(BudgetSpent):
        limiter.acquire_nowait(tokens=1)


def test_money_is_counted_by_the_bill() -> None:
    """Tokens of the prompt, of a cache and of the answer have prices of their own."""
    budget = Budget(money="0.01", prices={"gpt-4o*": PRICES})
    limiter = RateLimiter(tpm=10_000, budget=budget)
    with limiter.reserve(BODY) as lease:
        estimated = budget.in_flight.money
        lease.settle(usage(prompt=1_000, output=500, cached=400))

    assert estimated == pytest.approx((8 * 2 + 100 * 10) / 1e6, rel=0.05)
    assert budget.spent.money == pytest.approx((600 * 2 + 400 * 0.5 + 500 * 10) / 1e6)
    assert "0.0064 of 0.0100 spent" in str(limiter.explain())
    with pytest.raises(InvalidArgument, match="no price is given for model 'o3'"):
        limiter.acquire_sync({**BODY, "model": "o3"})


def test_what_is_not_known_counts_in_full_and_what_was_not_sent_not_at_all() -> None:
    """A call without a bill keeps its estimate, a 429 and a cancelled call are free."""
    budget = Budget(tokens=10_000, requests=5)
    limiter = RateLimiter(tpm=100_000, budget=budget)
    limiter.acquire_sync(tokens=700).close()
    limiter.acquire_sync(tokens=500).cancel()
    with pytest.raises(ConnectionRefusedError), limiter.reserve(tokens=300):
        raise ConnectionRefusedError
    lease = limiter.acquire_sync(tokens=50)
    lease.observe({"retry-after-ms": "1"}, status=429)

    assert (budget.spent, budget.in_flight) == (Spent(1, 700, 0), Spent())


def test_the_newest_settlement_counts() -> None:
    """A call that is settled twice has cost its last figure."""
    budget = Budget(tokens=10_000)
    lease = RateLimiter(budget=budget).acquire_sync(BODY)
    lease.settle(usage(prompt=10, output=20))
    lease.settle(tokens=25)
    assert budget.spent.tokens == 25
    lease.settle(usage(prompt=10, output=50))
    assert budget.spent == Spent(1, 60, 0)


def test_servers_that_give_nothing_back_bill_what_was_used_all_the_same() -> None:
    """A budget is of what is billed, also where the buckets keep the reserve."""
    budget = Budget(tokens=10_000)
    limiter = RateLimiter(tpm=10_000, accounting="never_refund", budget=budget)
    limiter.acquire_sync(BODY).settle(usage(prompt=10, output=20))

    assert budget.spent.tokens == 30


def test_a_wrapped_client_raises_it_as_an_error_of_the_sdk() -> None:
    """It is not retried, no attempt is sent, and one budget may be of two limiters."""
    fake = FakeOpenAI(rpm=1_000, tpm=1_000_000, latency=0, output=20)
    budget = Budget(requests=3)
    with fake.serve() as url, openai.OpenAI(base_url=url, api_key="x") as given:
        clients = [RateLimiter(rpm=1_000, budget=budget).wrap(given) for _ in range(2)]
        for number in range(3):
            clients[number % 2].chat.completions.create(**BODY)  # type: ignore[call-overload]
        with pytest.raises(BudgetSpent) as caught:
            clients[0].chat.completions.create(**BODY)  # type: ignore[call-overload]

    assert isinstance(caught.value, openai.OpenAIError)
    pickled = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own
    for made in (copy.copy(caught.value), pickled):
        assert (str(made), made.budget) == (str(caught.value), 3)
    assert len(fake.ledger) == 3
    assert budget.spent.requests == 3


def test_a_decorated_call_and_its_attempt_count_once() -> None:
    """The decorator's lease is used by the first attempt inside."""
    budget = Budget(tokens=1_000, requests=10)
    limiter = RateLimiter(tpm=10_000, budget=budget)

    @limiter
    def ask(**body: Any) -> Any:
        assert budget.in_flight.requests == 1
        return usage(prompt=len(body), output=7)

    ask(**BODY)
    assert budget.spent == Spent(1, 10, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "requests=, tokens= or money="),
        ({"tokens": "many"}, "tokens="),
        ({"tokens": -1}, "tokens="),
        ({"requests": float("nan")}, "requests="),
        ({"money": 5}, "prices=Prices"),
        ({"money": 5, "prices": {}}, "prices=Prices"),
        ({"money": 5, "prices": {"*": 3}}, "prices= is Prices"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_in_words(options: Any, said: str) -> None:
    """The message says what would do."""
    with pytest.raises(InvalidArgument, match=said):
        Budget(**options)


def test_what_is_no_budget_or_price_is_refused_in_words() -> None:
    """At the limiter as well."""
    with pytest.raises(InvalidArgument, match="budget= is a Budget"):
        RateLimiter(rpm=5, budget=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="million tokens"):
        Prices(input=-1, output=2)


def test_a_lease_that_is_dropped_gives_its_part_back() -> None:
    """What a call may have cost counts, and is in flight no longer."""
    budget = Budget(tokens=1_000)
    limiter = RateLimiter(tpm=10_000, budget=budget)
    limiter.acquire_sync(tokens=100)

    assert (budget.spent.tokens, budget.in_flight.tokens) == (100, 0)


CALL = st.tuples(
    st.integers(0, 60),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from(["settle", "close", "cancel", "raise"]),
    st.sampled_from([None, 1.0, 8.0]),
)


@settings(max_examples=60)
@given(script=st.lists(CALL, max_size=30))
def test_a_budget_is_never_exceeded_and_nothing_stays_in_flight(
    loop_clock: Any, script: list[Any]
) -> None:
    """For any calls that use at most what they were estimated for."""
    clock: VirtualClock = loop_clock()
    budget = Budget(tokens=200, requests=12)
    limiter = RateLimiter(tpm=600, burst_share=0.1, clock=clock, budget=budget)
    used = [0.0]

    async def one(call: Any) -> None:
        at, tokens, share, end, cancelled = call
        await anyio.sleep(at / 10)
        with anyio.move_on_after(cancelled) if cancelled else anyio.CancelScope():
            try:
                async with limiter.reserve(tokens=tokens) as lease:
                    await anyio.sleep(share * 4)
                    if end == "settle":
                        used[0] += tokens * share
                        lease.settle(tokens=tokens * share)
                    elif end == "cancel":
                        lease.cancel()
                    elif end == "raise":
                        raise ValueError  # noqa: TRY301  # out of the block, as a call would
            except (BudgetSpent, ValueError):
                pass
        spent, flying = budget.spent, budget.in_flight
        assert spent.tokens + flying.tokens <= 200 + 1e-6
        assert spent.requests + flying.requests <= 12 + 1e-6

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for call in script:
                group.start_soon(one, call)

    clock.run(main)
    assert budget.in_flight == pytest.approx(Spent())
    assert budget.spent.tokens >= used[0] - 1e-6
