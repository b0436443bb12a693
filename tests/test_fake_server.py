"""What FakeOpenAI charges, settles and refuses to be, and that it lives the same life
for the same seed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import httpx2
import openai
import pytest

from ratelimit.errors import InvalidArgument
from ratelimit.testing import FakeOpenAI, Latency, Usage
from ratelimit.testing.clocks import run_virtual

HI: Any = [{"role": "user", "content": "hi"}]
KNOWN = {"x-fake-usage": '{"prompt_tokens": 8, "completion_tokens": 40}'}


def in_process(server: FakeOpenAI) -> openai.AsyncOpenAI:
    """The same without a network."""
    http = httpx2.AsyncClient(transport=server.transport())
    return openai.AsyncOpenAI(
        base_url="http://fake/v1", api_key="sk-test", max_retries=0, http_client=http
    )


async def admitted(server: FakeOpenAI) -> None:
    """Until the server has decided on its first call."""
    while not server.ledger:  # noqa: ASYNC110  # the server has no event to wait for
        await asyncio.sleep(0)


def test_refused_calls_take_a_request_where_the_server_counts_them() -> None:
    """With `refusals_cost_requests` a call refused for its tokens uses one request."""

    async def left(counted: bool) -> float:
        server = FakeOpenAI("I", rpm=10, tpm=100, latency=0, refusals_cost_requests=counted)
        api = in_process(server)
        await api.chat.completions.create(model="m", messages=HI * 40)
        for _ in range(3):
            with pytest.raises(openai.RateLimitError):
                await api.chat.completions.create(model="m", messages=HI * 40)
        return server.levels()["org-fake/rpm"]

    assert run_virtual(left, False) == 9
    assert run_virtual(left, True) == 6


@pytest.mark.parametrize(
    ("variant", "arrival", "end"),
    [
        ("P", 3, 48),
        ("I", 3, 3),
        ("A", 102, 102),
        ("B", 100, 100),
        ("C", 102, 42),
        ("E", 102, 102),
        ("M", 0, 48),
        ("K", 3, 48),
    ],
)
def test_each_variant_charges_and_settles_in_its_own_way(
    variant: str, arrival: int, end: int
) -> None:
    """What the token bucket loses when a call arrives and what it has lost when the
    call is over, for 8 + 40 tokens, at most 100.
    """

    async def main() -> tuple[float, float]:
        server = FakeOpenAI(variant, rpm=5_000, tpm=6_000, latency=0.02)
        call = in_process(server).chat.completions.create(
            model="m", messages=HI, max_tokens=100, extra_headers=KNOWN
        )
        task = asyncio.create_task(call)
        await admitted(server)
        during = 6_000 - server.ledger[0].levels["tpm"]
        await task
        dripped = 0.0 if variant in "EM" else min(during, 2.0)  # 20 ms at 100 tokens a second
        return during, 6_000 - server.levels()["org-fake/tpm"] + dripped

    during, after = run_virtual(main)

    assert during == pytest.approx(arrival)
    assert after == pytest.approx(end, abs=0.01)


def test_a_settled_bucket_may_owe_and_shuts_the_door() -> None:
    """Under P a large answer is debited late, below zero, and then even the smallest
    call is refused with Used at Limit.
    """

    async def main() -> tuple[str, float]:
        server = FakeOpenAI("P", tpm=1_000, latency=0)
        api = in_process(server)
        await api.chat.completions.create(
            model="m", messages=HI, extra_headers={"x-fake-usage": '{"completion_tokens": 5000}'}
        )
        with pytest.raises(openai.RateLimitError) as refused:
            await api.chat.completions.create(model="m", messages=HI)
        return refused.value.message, server.levels()["org-fake/tpm"]

    message, level = run_virtual(main)

    assert "Limit 1000, Used 1000, Requested 3. Please try again in 180ms" in message
    assert level == -4_008


def test_bad_requests_are_charged_and_strangers_are_not() -> None:
    """A 400 takes a request and its tokens; an unknown key or path never comes to the
    buckets.
    """

    async def main() -> None:
        server = FakeOpenAI("I", latency=0, keys={"sk-test": "org-a"})
        api = in_process(server)
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(model="m", messages=HI, n=0)
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(model="m", messages=[])
        with pytest.raises(openai.AuthenticationError):
            await api.with_options(api_key="sk-other").chat.completions.create(
                model="m", messages=HI
            )
        with pytest.raises(openai.NotFoundError):
            await api.post("/unheard-of", cast_to=object, body={})

        assert [entry.status for entry in server.ledger] == [400, 400, 401, 404]
        assert [entry.charge for entry in server.ledger] == [3, 1, 0, 0]
        assert server.levels()["org-a/rpm"] == 498

    run_virtual(main)


def test_a_bad_request_is_never_counted() -> None:
    """A counter that trusts its input is not asked about a body that is no request."""

    def counter(_endpoint: str, body: Mapping[str, Any]) -> int:
        return len(body["input"])

    async def main() -> list[int | None]:
        server = FakeOpenAI(latency=0, count_prompt=counter)
        async with httpx2.AsyncClient(
            transport=server.transport(), base_url="http://fake/v1"
        ) as http:
            bodies: list[Any] = [
                {"model": "m"},
                {"model": "m", "input": 5},
                {"model": "m", "input": "hi"},
                [],
                {"input": "hi"},
            ]
            for body in bodies:
                await http.post("/responses", json=body)
            await http.post("/responses", content=b"{")
        return [entry.status for entry in server.ledger]

    assert asyncio.run(main()) == [400, 400, 200, 400, 400, 400]


def test_the_same_seed_lives_the_same_life_on_a_virtual_clock() -> None:
    """Another tenant, network jitter and the real client in virtual time: twenty
    minutes come out alike, and another seed's differ.
    """

    async def live(seed: int) -> list[Any]:
        server = FakeOpenAI("F+P", latency=Latency(jitter=(0.02, 0.1)), seed=seed, tpm=20_000)
        api = in_process(server)
        await api.models.list()  # the SDK looks at its platform in a thread, once

        async def ask(number: int) -> None:
            await asyncio.sleep(number * 60)
            for _ in range(3):
                with contextlib.suppress(openai.RateLimitError):
                    await api.chat.completions.create(model="m", messages=HI, seed=number % 7)

        await asyncio.gather(*(ask(number) for number in range(20)))
        return [(entry.time, entry.ended, entry.status, entry.levels) for entry in server.ledger]

    first = run_virtual(live, 1)

    assert len(first) == 60
    assert first[-1][1] > 1_140
    assert first == run_virtual(live, 1)
    assert first != run_virtual(live, 2)


def test_answers_depend_on_seed_and_body_alone() -> None:
    """Whoever asks, and in whatever order, gets the same answer; another seed gives
    another.
    """

    async def lengths(seed: int, order: list[int]) -> dict[int, Usage | None]:
        server = FakeOpenAI(latency=0, seed=seed, tpm=None)
        for number in order:
            await in_process(server).chat.completions.create(model="m", messages=HI, seed=number)
        return {number: server.ledger[place].usage for place, number in enumerate(order)}

    first = asyncio.run(lengths(1, [1, 2, 3]))

    assert first == asyncio.run(lengths(1, [3, 1, 2]))
    assert first != asyncio.run(lengths(2, [1, 2, 3]))


def test_one_server_belongs_to_one_loop_at_a_time() -> None:
    """A second living loop gets an error that names serve(); when the first is closed
    the server starts afresh and keeps its ledger.
    """
    server = FakeOpenAI(rpm=2, latency=0)

    async def ask() -> None:
        await in_process(server).chat.completions.create(model="m", messages=HI)

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(ask())
        with pytest.raises(RuntimeError, match=r"share it between loops and threads by serve\(\)"):
            second.run(ask())
    for _ in range(3):
        asyncio.run(ask())

    assert [entry.status for entry in server.ledger] == [200] * 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"rpm": 0},
        {"tpm": -1},
        {"rpd": float("nan")},
        {"tpd": float("inf")},
        {"variant": "X"},
        {"variant": ""},
        {"variant": "P+I"},
        {"variant": "F+F"},
        {"variant": "E+D"},
        {"models": {"gpt-4o": {"tokens": 5}}},
        {"projects": {"p": {"tpm": 0}}},
        {"level": 1.5},
        {"level": {"tokens": -0.1}},
        {"latency": -1},
        {"latency": float("nan")},
        {"output": 0},
        {"neighbour": 2},
        {"max_in_flight": 0},
        {"limit_changes": [(-1, 2)]},
        {"header_faults": ["unheard"]},
        {"pieces": 0},
    ],
)
def test_what_cannot_be_a_server_is_refused(arguments: dict[str, Any]) -> None:
    """Limits are positive and finite, shares lie between 0 and 1, names are known."""
    with pytest.raises(InvalidArgument):
        FakeOpenAI(**arguments)
