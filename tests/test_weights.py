"""Limits that weigh tokens: cache reads that do not count, output that counts more.

Owns `weights=`, from what a user writes to what a server of the kind admits. Time is
virtual, and the client is the real one.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from ratelimit import InvalidArgument, Limit, Limits, RateLimiter
from ratelimit.control.learning.weighing import (
    ANSWERS,
    ENOUGH,
    FIRST_DISTRUST,
    LIFETIME,
    CacheReads,
)
from ratelimit.estimate import Estimate
from ratelimit.estimate.results import Basis
from ratelimit.feedback import Usage
from ratelimit.testing import FakeOpenAI, Latency
from ratelimit.testing.clocks import VirtualClock

pytestmark = pytest.mark.usefixtures("vocabulary")

PROMPT = "Tell me of rivers. " * 400
"""About 2,000 tokens."""


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("tokens", {"cache": 0}, "no kind 'cache'; name input, cached, output"),
        ("tokens", {"cached": "free"}, "must be a number, not 'free'"),
        ("tokens", {"cached": True}, "must be a number, not True"),
        ("tokens", {"output": -1}, "between 0 and 1000, not -1"),
        ("tokens", {"output": float("nan")}, "between 0 and 1000"),
        ("tokens", ["cached"], "a mapping such as"),
        ("tokens", ("cached", 0), "a mapping such as"),
        ("requests", {"cached": 0}, "a limit of requests has no weights"),
        ("tokens", {"input": 0, "cached": 0, "output": 0}, "nothing to count"),
        ("output_tokens", {"output": 0}, "nothing to count"),
    ],
)
def test_a_weight_that_cannot_be_is_refused_in_words(name: str, weights: Any, message: str) -> None:
    """The message names the kind and what would do."""
    with pytest.raises(InvalidArgument, match=message):
        Limit(name, 40_000, weights=weights)


def test_limits_of_one_dimension_weigh_alike() -> None:
    """A call has one cost in each dimension."""
    with pytest.raises(InvalidArgument, match="different weights"):
        Limits(Limit("tokens", 100, weights={"cached": 0}), Limit("tokens", 9_000, per="day"))


def test_weights_stay_with_a_limit() -> None:
    """Lowered, with a burst, and copied."""
    limit = Limit("tokens", 1_000, weights={"output": 5, "cached": 0})

    for same in (
        limit.at_most(10),
        limit.with_burst(0.5),
        copy.deepcopy(limit),
    ):
        assert dict(same.weights) == {"cached": 0, "output": 5}

    assert repr(limit).endswith("weights={'cached': 0.0, 'output': 5.0})")


def priced(limits: Limits, **body: Any) -> dict[str, float]:
    """What a body would take from the buckets."""
    limiter = RateLimiter(limits=limits)
    return dict(
        limiter.price({"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]} | body)
    )


def test_output_is_reserved_by_its_weight() -> None:
    """In the limit that weighs it, and once in the others."""
    plain = priced(Limits(Limit("tokens", 100_000), Limit("output_tokens", 9_000)), max_tokens=100)
    weighed = priced(
        Limits(Limit("tokens", 100_000, weights={"output": 5}), Limit("output_tokens", 9_000)),
        max_tokens=100,
    )

    assert weighed["tokens"] - plain["tokens"] == 400
    assert weighed["output_tokens"] == plain["output_tokens"] == 100


def test_input_tokens_can_count_output_too() -> None:
    """Bedrock checks input and maximum against its limit of input tokens."""
    plain = priced(Limits(Limit("input_tokens", 90_000)), max_tokens=100)
    weighed = priced(Limits(Limit("input_tokens", 90_000, weights={"output": 1})), max_tokens=100)

    assert weighed["input_tokens"] - plain["input_tokens"] == 100


@pytest.mark.parametrize(
    ("usage", "left"),
    [
        ({"prompt_tokens": 2_000, "completion_tokens": 10, "total_tokens": 2_010}, 1_990),
        (
            {
                "prompt_tokens": 2_000,
                "completion_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 1_500},
            },
            490,
        ),
        (
            {
                "input_tokens": 400,
                "output_tokens": 10,
                "cache_read_input_tokens": 1_500,
                "cache_creation_input_tokens": 100,
            },
            490,
        ),
        (
            {
                "input_tokens": 2_000,
                "output_tokens": 10,
                "input_tokens_details": {"cached_tokens": 1_500},
            },
            490,
        ),
        ({"prompt_tokens": 2_000, "completion_tokens": 10, "prompt_cache_hit_tokens": 1_500}, 490),
    ],
)
def test_every_servers_cache_reads_are_settled(usage: dict[str, Any], left: int) -> None:
    """Anthropic's stand beside its input, OpenAI's inside."""
    limiter = RateLimiter(limits=Limits(Limit("input_tokens", 40_000, weights={"cached": 0})))

    lease = limiter.acquire_sync(input_tokens=2_000)
    lease.settle(usage)

    assert lease.cost["input_tokens"] == left + 10


class Site:
    """A call site of a model, as estimates name it."""

    def __init__(self, name: str = "here") -> None:
        self.name = name

    def of(self, prompt: int) -> Estimate:
        """An estimate of a prompt."""
        return Estimate(
            "chat.completions", "gpt-4o", prompt, 10, None, prompt, basis=Basis(site=self.name)
        )


def test_nothing_is_taken_for_cached_before_it_was_seen_a_few_times() -> None:
    """The least of the last answers counts, in tokens and as a share."""
    reads, site = CacheReads(), Site()
    for number in range(ENOUGH):
        assert reads.expected(site.of(2_000), 0) == 0
        reads.learn(site.of(2_000), 2_000, 1_600 + number, 0)

    assert reads.expected(site.of(2_000), 1) == 1_600
    assert reads.expected(site.of(20_000), 1) == 1_600
    assert reads.expected(site.of(1_000), 1) == 800
    assert reads.expected(Site("elsewhere").of(2_000), 1) == 0


def test_a_miss_counts_until_enough_hits_followed() -> None:
    """One answer without a cache read holds the whole prompt again."""
    reads, site = CacheReads(), Site()
    for cached in [1_600] * ENOUGH + [0]:
        reads.learn(site.of(2_000), 2_000, cached, 0)
    assert reads.expected(site.of(2_000), 0) == 0

    for _ in range(ANSWERS):
        reads.learn(site.of(2_000), 2_000, 1_600, 0)
    assert reads.expected(site.of(2_000), 0) == 1_600


def test_a_cache_is_forgotten_and_refusals_are_heeded() -> None:
    """After its lifetime, and for a while after each refusal, longer each time."""
    reads, site = CacheReads(), Site()
    for now in range(ENOUGH):
        reads.learn(site.of(2_000), 2_000, 1_600, now)

    assert reads.expected(site.of(2_000), LIFETIME) == 1_600
    assert reads.expected(site.of(2_000), LIFETIME + ENOUGH) == 0

    reads.learn(site.of(2_000), 2_000, 1_600, LIFETIME)
    reads.refused(LIFETIME)
    for now in range(0, int(3 * FIRST_DISTRUST), 100):
        reads.learn(site.of(2_000), 2_000, 1_600, LIFETIME + now)
        assert (reads.expected(site.of(2_000), LIFETIME + now) > 0) == (now >= FIRST_DISTRUST)


def test_a_usage_that_cannot_be_teaches_nothing() -> None:
    """More cached than the prompt, or no prompt."""
    reads, site = CacheReads(), Site()
    for _ in range(ENOUGH):
        reads.learn(site.of(2_000), 2_000, 2_001, 0)
        reads.learn(site.of(2_000), 0, 0, 0)

    assert reads.expected(site.of(2_000), 0) == 0


def admitted(
    fake: FakeOpenAI, limit: Limit, *, minutes: float, usage: dict[str, int], **body: Any
) -> tuple[int, list[float]]:
    """Ask as fast as the limiter lets; return the calls admitted after the first two
    minutes, and the moments of all refusals.
    """
    clock = VirtualClock()
    limiter = RateLimiter(limits=Limits(limit), clock=clock)
    client = limiter.wrap(
        AsyncOpenAI(
            base_url="http://fake/v1",
            api_key="any",
            http_client=httpx2.AsyncClient(transport=fake.transport()),
            timeout=1e6,
            default_headers={"x-fake-usage": json.dumps(usage)},
        )
    )

    async def worker() -> None:
        while clock.now() < 60 * minutes:
            await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": PROMPT}], **body
            )

    async def main() -> None:
        await asyncio.gather(*(worker() for _ in range(20)))

    clock.run(main)
    ledger = list(fake.ledger)
    late = sum(entry.admitted and 120 <= entry.time < 60 * minutes for entry in ledger)
    return late, [entry.time for entry in ledger if entry.status == 429]


LATENCY = Latency(base=1.0, per_token=0, spread=0.2, jitter=(0.02, 0.1))
CACHED = {"prompt_tokens": 2_000, "cached_tokens": 1_600, "completion_tokens": 20}


COUNTED = 4 * 20_000 / 2_020
"""Calls in four minutes where cache reads count like any tokens."""


def test_cache_reads_that_do_not_count_let_four_times_as_much_through() -> None:
    """80 % of each prompt is cached, and no header shows the level."""

    def server() -> FakeOpenAI:
        return FakeOpenAI("N", rpm=None, tpm=20_000, latency=LATENCY, header_style="bedrock")

    plain, none = admitted(server(), Limit("tokens", 20_000), minutes=6, usage=CACHED)
    weighed, refusals = admitted(
        server(), Limit("tokens", 20_000, weights={"cached": 0}), minutes=6, usage=CACHED
    )

    assert none == refusals == []
    assert plain <= COUNTED
    assert weighed >= 4 * COUNTED


def test_cache_reads_that_are_charged_until_the_end_cost_one_burst_of_refusals() -> None:
    """Groq gives them back when a call ends: from the first refusal on the whole prompt
    is held until then.
    """
    fake = FakeOpenAI("P", rpm=None, tpm=20_000, latency=LATENCY, cache_reads="refunded")

    weighed, refusals = admitted(
        fake, Limit("tokens", 20_000, weights={"cached": 0}), minutes=6, usage=CACHED
    )

    assert weighed >= 4 * COUNTED
    assert not refusals or refusals[-1] - refusals[0] < 1


def test_output_that_weighs_five_refuses_nothing() -> None:
    """Bedrock: held by its bound, settled by five times the answer; without the weight
    most calls are refused.
    """
    usage = {"prompt_tokens": 2_000, "completion_tokens": 300}

    def server() -> FakeOpenAI:
        return FakeOpenAI("O", rpm=None, tpm=60_000, latency=LATENCY, header_style="bedrock")

    weighed, refusals = admitted(
        server(),
        Limit("tokens", 60_000, weights={"output": 5}),
        minutes=6,
        usage=usage,
        max_tokens=400,
    )

    assert refusals == []
    assert weighed >= 0.9 * 4 * 60_000 / (2_000 + 5 * 300)


def test_a_prompt_above_the_limit_goes_where_a_cache_may_have_it() -> None:
    """Anthropic takes a prompt of any size of which enough is cached."""
    limiter = RateLimiter(limits=Limits(Limit("input_tokens", 1_000, weights={"cached": 0})))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}

    assert limiter.price(body)["input_tokens"] == 1_000


def test_usage_is_what_learning_reads() -> None:
    """The names of the usage that weights read are those of `feedback`."""
    assert Usage(2_000, 10, 2_010, cached_tokens=1_600).cached_tokens == 1_600
