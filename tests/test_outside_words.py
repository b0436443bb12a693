"""What a server says, right or wrong: nothing of it closes or opens a limiter for
good.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from ratelimit import LimiterWarning, RateLimiter, RequestTooLarge
from ratelimit.integrations import settlement
from ratelimit.testing import FakeOpenAI, Latency
from ratelimit.testing.clocks import VirtualClock

pytestmark = [
    pytest.mark.usefixtures("vocabulary"),
    pytest.mark.no_cover,  # long simulations, which coverage would make twice as long
]


class Play:
    """Calls of one wrapped client against one fake server, in virtual time."""

    def __init__(self, fake: FakeOpenAI, *, retries: int = 2, **limits: Any) -> None:
        self.clock = VirtualClock()
        self.fake = fake
        self.limiter = RateLimiter(clock=self.clock, **limits)
        self.retries = retries
        self.seconds: list[float] = []

    def client(self) -> AsyncOpenAI:
        """A wrapped client of the server."""
        return self.limiter.wrap(
            AsyncOpenAI(
                base_url="http://fake/v1",
                api_key="any",
                http_client=httpx2.AsyncClient(transport=self.fake.transport()),
                timeout=1e6,
                max_retries=self.retries,
            )
        )

    async def ask(self, client: AsyncOpenAI, words: int = 5, **body: Any) -> object:
        """One call; its answer or its error."""
        messages = [{"role": "user", "content": "Tell me of rivers. " * words}]
        try:
            return await client.chat.completions.create(  # type: ignore[call-overload]
                **{"model": "gpt-4o", "messages": messages, "max_tokens": 50} | body
            )
        except Exception as error:  # noqa: BLE001  # the test looks at it
            return error
        finally:
            self.seconds.append(self.clock.now())

    def at_once(self, calls: int, **body: Any) -> list[BaseException]:
        """Send calls at once; return the errors."""

        async def main() -> list[object]:
            client = self.client()
            return await asyncio.gather(*[self.ask(client, **body) for _ in range(calls)])

        return [one for one in self.clock.run(main) if isinstance(one, BaseException)]

    @property
    def refusals(self) -> int:
        """The 429s that the server has answered."""
        return sum(entry.status == 429 for entry in self.fake.ledger)


@pytest.mark.parametrize("level", [0.05, 0.33, 0.5])
@pytest.mark.parametrize("limits", [{"rpm": 60}, {"rpm": 60, "tpm": 6_000}, {}])
@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_not_full_at_the_start_refuses_nothing(
    level: float, limits: dict[str, int], seed: int
) -> None:
    """A restart within the minute, or another program: the first headers count."""
    play = Play(FakeOpenAI(rpm=60, tpm=6_000, level=level, seed=seed), retries=0, **limits)

    errors = play.at_once(30)

    assert (errors, play.refusals) == ([], 0)


@pytest.mark.parametrize("seed", range(4))
def test_an_almost_empty_server_refuses_nothing_of_calls_with_a_large_maximum(seed: int) -> None:
    """What the first answer gives back is not given back by its headers as well."""
    fake = FakeOpenAI(rpm=500, tpm=30_000, level=0.04, seed=seed)
    play = Play(fake, retries=0, rpm=500, tpm=30_000)

    errors = play.at_once(60, max_tokens=400)

    assert (errors, play.refusals) == ([], 0)


def test_no_call_is_lost_on_a_server_with_a_small_burst_that_names_a_wait_alone() -> None:
    """A refusal shows that the level is at an end, whatever it names."""
    fake = FakeOpenAI("nginx", rpm=None, tpm=None, rps=5, burst=10, retry_after=1.0)
    play = Play(fake, rpm=300)

    errors = play.at_once(60)

    assert errors == []
    assert play.seconds[-1] < 30


@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_no_call_is_lost_on_a_server_that_takes_none_too_early(
    burst: int, retry_after: float | None, seed: int
) -> None:
    """Calls at exactly the limit's rate come a little early now and then, and a server
    without a burst refuses these: they go more slowly then.
    """
    fake = FakeOpenAI(
        "nginx",
        rpm=None,
        tpm=None,
        rps=5,
        burst=burst,
        retry_after=retry_after,
        seed=seed,
        latency=Latency(base=0.2, per_token=0, spread=0.5, jitter=(0.0, 0.08)),
    )
    play = Play(fake, rpm=300)

    assert play.at_once(60) == []


def test_a_small_limit_of_another_model_refuses_nothing_of_this_one() -> None:
    """Limits that are given for all models, and one model whose answers show its
    own.
    """
    fake = FakeOpenAI(rpm=500, tpm=30_000)
    fake.inject("wrong_limit", value=1_000, unit="tokens", model="gpt-4o-mini")
    play = Play(fake, rpm=500, tpm=30_000)

    async def main() -> list[object]:
        client = play.client()
        for _ in range(3):
            await play.ask(client, model="gpt-4o-mini")
        return [await play.ask(client, words=400, max_tokens=10) for _ in range(3)]

    answers = play.clock.run(main)

    assert [one for one in answers if isinstance(one, BaseException)] == []
    assert play.clock.now() < 120


LIES: list[Any] = [
    {"kind": "wrong_limit", "value": 600, "unit": "tokens", "count": 1},
    {"kind": "wrong_limit", "value": 600, "unit": "tokens", "count": 2},
    {"kind": "wrong_limit", "value": 1, "unit": "tokens", "count": 3},
    {"kind": "wrong_limit", "value": 1, "unit": "requests", "count": 3},
    {"kind": "wrong_level", "value": 0, "unit": "tokens", "count": 2},
    {"kind": "wrong_level", "value": 0, "count": 2},
    {"kind": "wrong_reset", "value": 86_400, "unit": "tokens", "count": 2},
    {"kind": "wrong_period", "value": 86_400, "unit": "tokens", "count": 2},
    {"kind": "wrong_period", "value": 86_400, "unit": "requests", "count": 3},
    {"kind": "wrong_usage", "value": 1e9, "count": 1},
    pytest.param(
        {"kind": "wrong_usage", "value": 1e12, "count": 2},
        marks=pytest.mark.logs("gpt-4o ended without usage"),
    ),
    {"kind": "wrong_refusal", "value": 1_000, "unit": "tokens", "count": 1},
    {"kind": "wrong_refusal", "value": 1, "unit": "requests", "count": 2},
    {"kind": "wrong_wait", "value": 86_400, "count": 1},
    {"kind": "wrong_wait", "value": 1e7, "count": 3},
]


@pytest.mark.parametrize("limits", [{"rpm": 500, "tpm": 30_000}, {}], ids=["given", "learned"])
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: f"{lie['kind']} {lie['value']:g}")
def test_full_speed_is_back_within_minutes_after_a_lie(
    lie: dict[str, Any], limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever kind, told once or several times in a row."""
    monkeypatch.setattr(settlement, "_warned", set())
    fake = FakeOpenAI(rpm=500, tpm=30_000)
    play = Play(fake, retries=0, **limits)

    async def main() -> float:
        client = play.client()
        await play.ask(client)
        fake.inject(**lie)
        start = play.clock.now()
        for _ in range(20):
            await play.ask(client)
        while True:
            before = play.clock.now()
            await asyncio.gather(*[play.ask(client) for _ in range(20)])
            if play.clock.now() - before < 30:
                return before - start

    assert play.clock.run(main) < 20 * 60


def test_a_maximum_above_the_limit_is_no_reason_to_refuse() -> None:
    """Today's server answers such a call: it charges the input alone."""
    play = Play(FakeOpenAI(rpm=500, tpm=30_000), rpm=500, tpm=30_000)

    assert play.at_once(3, max_tokens=32_000) == []
    assert play.refusals == 0


def test_a_prompt_above_the_limit_is_refused_at_once() -> None:
    """What the user gave is sure: it is never sent."""
    play = Play(FakeOpenAI(rpm=500, tpm=30_000), rpm=500, tpm=300)

    (error,) = play.at_once(1, words=1_000)

    assert isinstance(error, RequestTooLarge)
    assert len(list(play.fake.ledger)) == 0


def test_a_model_with_smaller_limits_is_named_once() -> None:
    """Its calls cannot wait for limits of its own until they are given by model."""
    fake = FakeOpenAI(rpm=500, tpm=100_000, models={"small": {"rpm": 60, "tpm": 10_000}})
    play = Play(fake, rpm=500, tpm=100_000)

    async def main() -> None:
        client = play.client()
        for _ in range(4):
            await play.ask(client)
            await play.ask(client, model="small")

    with pytest.warns(LimiterWarning, match="limits model 'small' to 60 requests") as warned:
        play.clock.run(main)

    assert len(warned) == 1
