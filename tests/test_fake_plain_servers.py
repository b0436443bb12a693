"""The plain servers: nginx's rate with a burst, and a proxy's windows of the clock's
minute. Time is the loop's, turned by hand.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.errors import InvalidArgument
from ratelimit.testing import FakeOpenAI
from ratelimit.testing.buckets import RESIDUE
from ratelimit.testing.clocks import run_virtual
from tests.test_fake_variants import World, live


def test_nginx_lets_a_rate_through_with_a_burst() -> None:
    """The burst goes at once, and then the rate; tokens are not counted at all."""

    async def life(world: World) -> None:
        at_once = [(await world.ask(20_000)).status_code for _ in range(6)]
        later = []
        for world.now in (0.15, 0.2, 0.39, 0.4, 10.0):
            later.append((await world.ask(20_000)).status_code)

        again = [(await world.ask()).status_code for _ in range(3)]

        assert at_once == [200, 200, 200, 429, 429, 429]
        assert later == [429, 200, 429, 200, 200]
        assert again == [200, 200, 429]

    live(FakeOpenAI("nginx", rpm=300, burst=3, latency=0), life)


@given(
    pauses=st.lists(st.floats(0, 2), max_size=40), rate=st.integers(1, 20), burst=st.integers(1, 9)
)
def test_nginx_admits_what_aiolimiter_admits(pauses: list[float], rate: int, burst: int) -> None:
    """The judge's own bucket, asked beside the server, agrees on every request."""

    async def life(world: World) -> None:
        judge = AsyncLimiter(burst, burst / rate)
        for pause in pauses:
            world.now += pause
            fits = judge.has_capacity(1 - RESIDUE)
            answer = await world.ask()

            assert answer.status_code == (200 if fits else 429)
            if fits:
                await judge.acquire(1 if judge.has_capacity() else 1 - RESIDUE)

    live(FakeOpenAI("nginx", rps=rate, rpm=None, burst=burst, latency=0), life)


@pytest.mark.parametrize(
    ("options", "named"),
    [({}, "1"), ({"retry_after": 7}, "7"), ({"retry_after": None}, None)],
)
def test_nginx_refuses_with_nothing_but_retry_after(
    options: dict[str, Any], named: str | None
) -> None:
    """A bare page of HTML, no header of a limit, no request id; the SDK raises its
    RateLimitError all the same.
    """
    server = FakeOpenAI("nginx", rpm=60, latency=0, **options)

    async def main() -> httpx2.Response:
        http = httpx2.AsyncClient(transport=server.transport())
        api = openai.AsyncOpenAI(
            base_url="http://fake/v1", api_key="x", max_retries=0, http_client=http
        )
        answered = await api.embeddings.with_raw_response.create(model="e", input="a")
        assert not [name for name in answered.headers if "ratelimit" in name]
        with pytest.raises(openai.RateLimitError) as refused:
            await api.embeddings.create(model="e", input="a")

        return refused.value.response

    response = run_virtual(main)

    assert response.headers.get("retry-after") == named
    assert set(response.headers) <= {"date", "retry-after", "content-type", "content-length"}
    assert response.text.startswith("<html>")
    assert server.ledger[1].message == "429 Too Many Requests"


def test_nginx_allows_a_second_at_once_where_no_burst_is_given() -> None:
    """300 a minute are 5 at once; a slower rate lets one through."""

    async def at_once(rpm: float) -> int:
        world = World(FakeOpenAI("nginx", rpm=rpm, latency=0))
        return [(await world.ask()).status_code for _ in range(10)].count(200)

    assert run_virtual(at_once, 300) == 5
    assert run_virtual(at_once, 6) == 1


def test_windows_follow_the_clock_and_not_the_first_call() -> None:
    """What is used comes back at the full minute; the headers show limits and what
    remains without a reset, and a 429 has none.
    """

    async def life(world: World) -> None:
        world.now = 50.0
        first = [await world.ask() for _ in range(3)]
        world.now = 59.9
        still = await world.ask()
        world.now = 60.0
        again = await world.ask()

        assert [answer.status_code for answer in first] == [200, 200, 429]
        assert first[0].headers["x-ratelimit-limit-requests"] == "2"
        assert first[0].headers["x-ratelimit-remaining-requests"] == "1"
        assert not [name for name in first[0].headers if "reset" in name]
        assert not [name for name in first[2].headers if "ratelimit" in name or "retry" in name]
        assert "Crossed TPM / RPM" in first[2].json()["error"]["message"]
        assert [still.status_code, again.status_code] == [429, 200]

    live(FakeOpenAI("windows", rpm=2, tpm=1_000, latency=0), life)


def test_windows_count_tokens_when_they_are_known() -> None:
    """Anything passes while the minute has a token left, and the usage counts later."""

    async def life(world: World) -> None:
        answers = [await world.ask(100, usage=600) for _ in range(3)]
        world.now = 60.0
        answers.append(await world.ask(100, usage=600))

        assert [answer.status_code for answer in answers] == [200, 200, 429, 200]

    live(FakeOpenAI("windows", tpm=1_000, latency=0), life)


@pytest.mark.parametrize(
    "arguments",
    [
        {"variant": "nginx+P"},
        {"variant": "nginx+D"},
        {"variant": "windows+D"},
        {"variant": "apache"},
        {"burst": 0},
        {"burst": float("inf")},
        {"retry_after": -1},
        {"tool_calls": "sometimes"},
    ],
)
def test_what_cannot_be_such_a_server_is_refused(arguments: dict[str, Any]) -> None:
    """Two bases, D without a refill, a burst below one, a negative wait."""
    with pytest.raises(InvalidArgument):
        FakeOpenAI(**arguments)


def test_names_are_read_in_any_case_and_combine() -> None:
    """`NGINX` and `K+windows` are servers too."""

    async def main() -> list[int]:
        world = World(FakeOpenAI("K+Windows", max_in_flight=1, latency=0.01))
        together = await asyncio.gather(*(world.ask() for _ in range(2)))
        alone = await World(FakeOpenAI("NGINX", latency=0)).ask()
        return [answer.status_code for answer in (*together, alone)]

    assert run_virtual(main) == [200, 429, 200]
