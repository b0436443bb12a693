"""Faults that show wrong figures, answer an error with status 200, or redirect: once,
twice in a row or one in ten, while the server goes on by the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest

from ratelimit.errors import InvalidArgument
from ratelimit.testing import FakeOpenAI, Fault
from ratelimit.testing.clocks import run_virtual
from tests.test_fake_variants import World, live

HI: Any = [{"role": "user", "content": "hi"}]


def figures(headers: Mapping[str, str], unit: str = "tokens") -> tuple[str, str, str]:
    """Limit, remaining and reset of one unit."""
    limit, remaining, reset = (
        headers[f"x-ratelimit-{kind}-{unit}"] for kind in ("limit", "remaining", "reset")
    )
    return limit, remaining, reset


TRUE = ("30000", "29900", "200ms")
TRUE_REQUESTS = ("500", "499", "120ms")


@pytest.mark.parametrize(
    ("fault", "tokens", "requests"),
    [
        (Fault("wrong_limit", value=1_000, unit="tokens"), ("1000", "1000", "0s"), TRUE_REQUESTS),
        (Fault("wrong_limit", value=60_000), ("60000", "29900", "30.1s"), None),
        (Fault("wrong_level", value=0, unit="tokens"), ("30000", "0", "1m0s"), TRUE_REQUESTS),
        (Fault("wrong_level", value=7, unit="requests"), TRUE, ("500", "7", "59.16s")),
        (Fault("wrong_reset", value=3_600, unit="tokens"), ("30000", "29900", "1h0m0s"), None),
        (Fault("wrong_period", value=86_400, unit="tokens"), ("30000", "29900", "4m48s"), None),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_headers_show_the_wrong_figure_and_nothing_else_changes(
    fault: Fault, tokens: tuple[str, str, str], requests: tuple[str, str, str] | None
) -> None:
    """The other headers are consistent with it, another unit's are true, and so are the
    buckets, the ledger and the next answer.
    """

    async def life(world: World) -> None:
        world.server._faults.add(replace(fault, count=1))
        wrong = await world.ask(100)
        world.now = 60.0
        true = await world.ask(100)

        assert wrong.status_code == 200
        assert figures(wrong.headers) == tokens
        if requests:
            assert figures(wrong.headers, "requests") == requests

        assert figures(true.headers) == TRUE
        assert world.server.ledger[0].levels == {"rpm": 499, "tpm": 29_900}

    live(FakeOpenAI(latency=0), life)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("value", [1e12, 3])
def test_a_wrong_usage_is_shown_and_not_billed(value: float, stream: bool) -> None:
    """The body has the wrong total, its parts add up, and the ledger has the truth."""
    server = FakeOpenAI(latency=0, faults=[Fault("wrong_usage", value=value, count=1)])
    known = {"x-fake-usage": '{"prompt_tokens": 8, "completion_tokens": 40}'}

    async def main() -> list[Any]:
        http = httpx2.AsyncClient(transport=server.transport())
        api = openai.AsyncOpenAI(base_url="http://fake/v1", api_key="x", http_client=http)
        usages = []
        for _ in range(2):
            if not stream:
                answer = await api.responses.create(model="m", input="hi", extra_headers=known)
            else:
                async with api.responses.stream(
                    model="m", input="hi", extra_headers=known
                ) as events:
                    answer = await events.get_final_response()

            usages.append(answer.usage)

        return usages

    wrong, true = run_virtual(main)

    assert wrong.total_tokens == wrong.input_tokens + wrong.output_tokens == value
    assert true.total_tokens == 48
    assert [entry.usage and entry.usage.total_tokens for entry in server.ledger] == [48, 48]


def test_a_wrong_refusal_names_a_limit_that_is_none() -> None:
    """The sentence, its figures and its wait are of the form of a true one; the call
    costs nothing, and the headers beside it are true.
    """

    async def life(world: World) -> None:
        world.server.inject("wrong_refusal", value=1_000, unit="tokens", count=1)
        refused = await world.ask(100)

        assert refused.status_code == 429
        assert "(TPM): Limit 1000, Used 1000, Requested 100. Please try again in 6s" in refused.text
        assert refused.headers["retry-after-ms"] == "6000"
        assert figures(refused.headers) == ("30000", "30000", "0s")
        assert (await world.ask(100)).status_code == 200
        assert [entry.reason for entry in world.server.ledger] == ["wrong_refusal", ""]

    live(FakeOpenAI(latency=0), life)


def test_a_wrong_refusal_may_name_a_limit_that_the_server_has_not() -> None:
    """A server without a limit of tokens can say that it has one."""

    async def life(world: World) -> None:
        world.server.inject("wrong_refusal", value=50, unit="tokens", count=1)

        assert "on tokens per min (TPM): Limit 50, Used 50" in (await world.ask(100)).text

    live(FakeOpenAI(latency=0, tpm=None), life)


def test_a_wrong_wait_is_named_by_a_refusal() -> None:
    """A 429 whose Retry-After is as long as the test wants."""

    async def life(world: World) -> None:
        world.server.inject("wrong_wait", value=86_400, count=1)
        refused = await world.ask(100)

        assert (refused.status_code, refused.headers["retry-after"]) == (429, "86400")
        assert (await world.ask(100)).status_code == 200

    live(FakeOpenAI(latency=0), life)


def test_once_twice_in_a_row_and_one_in_ten() -> None:
    """`count` and `probability` say how often, for wrong figures as for any fault."""

    def shown(**often: Any) -> list[bool]:
        found: list[bool] = []

        async def life(world: World) -> None:
            world.server.inject("wrong_limit", value=1_000, unit="tokens", **often)
            for world.now in range(300):
                headers = (await world.ask(4)).headers
                found.append(headers["x-ratelimit-limit-tokens"] == "1000")

        live(FakeOpenAI(latency=0, seed=1), life)
        return found

    assert shown(count=1) == [True] + [False] * 299
    assert shown(count=2) == [True] * 2 + [False] * 298
    assert 15 <= sum(shown(probability=0.1)) <= 45


def test_a_fault_may_concern_one_model() -> None:
    """The small model's answers show its limit; the other model's are true."""

    async def life(world: World) -> None:
        world.server.inject("wrong_limit", value=1_000, unit="tokens", model="small")
        small, large = await world.ask(model="small"), await world.ask(model="large")

        assert small.headers["x-ratelimit-limit-tokens"] == "1000"
        assert large.headers["x-ratelimit-limit-tokens"] == "30000"

    live(FakeOpenAI(latency=0), life)


def test_a_figure_and_a_failure_can_meet_in_one_call() -> None:
    """What the headers show and what happens to the answer are two things."""

    async def life(world: World) -> None:
        world.server.inject("wrong_limit", value=1_000, unit="tokens", count=1)
        world.server.inject("500", count=1)
        answer = await world.ask(100)

        assert answer.status_code == 500
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000"

    live(FakeOpenAI(latency=0), life)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("code", [429, 502])
def test_an_error_comes_with_status_200(code: int, stream: bool) -> None:
    """As some relays answer: an error object and no choices, also where a stream was
    wanted; it costs nothing.
    """
    server = FakeOpenAI(latency=0)
    server.inject("error_200", count=1, code=code)

    async def main() -> httpx2.Response:
        async with httpx2.AsyncClient(
            transport=server.transport(), base_url="http://fake/v1"
        ) as http:
            body = {"model": "m", "messages": HI, "stream": stream}
            return await http.post("/chat/completions", json=body)

    answer = run_virtual(main)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == code
    assert "choices" not in answer.json()
    assert [(entry.status, entry.charge) for entry in server.ledger] == [(200, 0)]


@pytest.mark.parametrize("served", [False, True], ids=["in process", "over HTTP"])
def test_a_redirected_call_is_served_behind_its_slash(served: bool) -> None:
    """Every call is answered with a 308 first; the client follows it with its body, and
    the redirect costs nothing.
    """
    server = FakeOpenAI(latency=0, faults=[Fault("redirect")])

    async def ask(url: str, http: httpx2.AsyncClient) -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=url, api_key="x", http_client=http) as api:
            chat = await api.chat.completions.create(
                model="m", messages=HI, extra_query={"api-version": "1"}
            )
            response = await api.responses.create(model="m", input="hi")
            return [chat.choices[0].message.content, response.output_text]

    async def main() -> list[str | None]:
        if served:
            with server.serve() as url:
                return await ask(url, httpx2.AsyncClient(follow_redirects=True))

        http = httpx2.AsyncClient(transport=server.transport(), follow_redirects=True)
        return await ask("http://fake/v1", http)

    assert all(asyncio.run(main()))
    assert [(entry.status, entry.charge > 0) for entry in server.ledger] == [
        (308, False),
        (200, True),
    ] * 2


@pytest.mark.parametrize("level", [0.0, 0.04, {"requests": 1.0, "tokens": 1 / 3}])
def test_buckets_start_as_full_as_asked(level: Any) -> None:
    """A given share of every limit, or of one unit's, is there at the first call."""

    async def life(world: World) -> None:
        await world.ask(4)
        share = level if isinstance(level, float) else level["tokens"]

        assert world.server.ledger[0].levels["tpm"] == pytest.approx(
            30_000 * share - 4 * (share > 0)
        )

    live(FakeOpenAI(rpm=None, latency=0, level=level), life)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "wrong_limit"},
        {"kind": "wrong_limit", "value": 0},
        {"kind": "wrong_usage", "value": -1},
        {"kind": "wrong_wait", "value": float("inf")},
        {"kind": "500", "value": 3},
        {"kind": "wrong_limit", "value": 5, "unit": "token"},
    ],
)
def test_a_wrong_figure_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    """A figure is needed where one is shown, and only there; units are known."""
    with pytest.raises(InvalidArgument, match="fault"):
        Fault(**arguments)
