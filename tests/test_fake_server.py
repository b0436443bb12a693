"""FakeOpenAI seen by the real openai client, and the enforcement behind it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import openai
import pytest
import trio

from ratelimit.errors import InvalidArgument
from ratelimit.testing import FakeOpenAI, Latency, Usage

HI: Any = [{"role": "user", "content": "hi"}]
KNOWN = {"x-fake-usage": '{"prompt_tokens": 8, "completion_tokens": 40}'}


def client(url: str) -> openai.OpenAI:
    """The real client, without retries of its own."""
    return openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0)


def in_process(server: FakeOpenAI) -> openai.AsyncOpenAI:
    """The same without a network."""
    http = httpx2.AsyncClient(transport=server.transport())
    return openai.AsyncOpenAI(base_url="http://fake/v1", api_key="sk-test", max_retries=0, http_client=http)


async def admitted(server: FakeOpenAI) -> None:
    """Until the server has decided on its first call."""
    while not server.ledger:  # noqa: ASYNC110 - a handful of loop turns, and the server has no event to wait for
        await asyncio.sleep(0)


def test_the_sync_client_reads_every_endpoint() -> None:
    """Chat, legacy completions, Responses, embeddings, moderations, images, speech and models parse, over real HTTP."""
    server = FakeOpenAI(latency=0, models={"gpt-4o": {"rpm": 500, "tpm": 30_000}})
    with server.serve() as url, client(url) as api:
        chat = api.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=5, n=2)
        old = api.completions.create(model="davinci-002", prompt=["a", "b"], max_tokens=3)
        response = api.responses.create(model="gpt-4o", input="hi", extra_headers=KNOWN)
        vectors = api.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        models = [model.id for model in api.models.list()]
        flagged = api.moderations.create(input="hi", model="omni-moderation-latest").results[0].flagged
        pictures = api.images.generate(prompt="a cat", model="gpt-image-1", n=2).data
        spoken = api.audio.speech.create(input="hi", model="tts-1", voice="alloy").content

    assert [choice.finish_reason for choice in chat.choices] == ["length", "length"]
    assert chat.usage
    assert chat.usage.completion_tokens == 10
    assert len(old.choices) == 2
    assert response.usage
    assert (response.usage.input_tokens, response.usage.output_tokens) == (8, 40)
    assert len(response.output_text.split()) == 40
    assert len(vectors.data) == 2
    assert models == ["gpt-4o"]
    assert not flagged
    assert len(pictures or []) == 2
    assert spoken
    assert [entry.status for entry in server.ledger] == [200] * 7


def test_streams_carry_headers_first_and_usage_last() -> None:
    """Chat usage comes in the last chunk when asked for, Responses usage in response.completed, legacy streams parse as well."""
    server = FakeOpenAI(latency=Latency(base=0, per_token=0.0001))
    with server.serve() as url, client(url) as api:
        asked = api.chat.completions.create(
            model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True}, extra_headers=KNOWN
        )
        assert asked.response.headers["x-ratelimit-remaining-tokens"].isdigit()
        chunks = list(asked)
        plain = list(api.chat.completions.create(model="gpt-4o", messages=HI, stream=True, extra_headers=KNOWN))
        old = list(api.completions.create(model="davinci-002", prompt="a", stream=True, max_tokens=3))
        with api.responses.stream(model="gpt-4o", input="hi", extra_headers=KNOWN) as events:
            final = events.until_done().get_final_response()

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == 40
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens == 48
    assert all(chunk.usage is None for chunk in [*chunks[:-1], *plain])
    assert old[-1].choices[0].finish_reason == "length"
    assert final.usage
    assert final.usage.total_tokens == 48
    assert [entry.usage and entry.usage.total_tokens for entry in server.ledger][:2] == [48, 48]


@pytest.mark.filterwarnings("ignore:Async generator 'openai")  # on trio the SDK leaves its own generators unfinished at [DONE]
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_the_async_client_works_on_both_libraries(run: Any) -> None:
    """Over loopback the server serves asyncio and trio clients alike."""
    server = FakeOpenAI(latency=0)

    async def ask(url: str) -> tuple[str | None, int]:
        async with openai.AsyncOpenAI(base_url=url, api_key="x", http_client=httpx2.AsyncClient()) as api:
            answer = await api.chat.completions.create(model="gpt-4o", messages=HI)
            pieces = [chunk async for chunk in await api.chat.completions.create(model="gpt-4o", messages=HI, stream=True)]
        return answer.choices[0].message.content, len(pieces)

    with server.serve() as url:
        content, pieces = run(ask, url) if run is trio.run else run(ask(url))

    assert content
    assert pieces > 2


def test_refusals_name_limit_used_requested_and_wait() -> None:
    """Texts, codes and headers of a 429 are the recorded ones, and a refused call costs no tokens."""
    server = FakeOpenAI("I", rpm=3, tpm=1_000, latency=0)
    with server.serve() as url, client(url) as api:
        big: Any = [{"role": "user", "content": "x" * 3_200}]
        api.chat.completions.create(model="gpt-4o", messages=big)
        with pytest.raises(openai.RateLimitError) as tokens:
            api.chat.completions.create(model="gpt-4o", messages=big)
        with pytest.raises(openai.RateLimitError) as large:
            api.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x" * 4_000}])
        api.chat.completions.create(model="gpt-4o", messages=HI)
        with pytest.raises(openai.RateLimitError) as requests:
            api.chat.completions.create(model="gpt-4o", messages=HI)

    assert "Rate limit reached for gpt-4o in organization org-fake on tokens per min (TPM): Limit 1000, Used 80" in tokens.value.message
    assert "Requested 802. Please try again in 36" in tokens.value.message
    assert (tokens.value.type, tokens.value.code) == ("tokens", "rate_limit_exceeded")
    headers = tokens.value.response.headers
    assert 35_000 < int(headers["retry-after-ms"]) <= 36_240
    assert headers["retry-after"] in {"36", "37"}
    assert int(headers["x-ratelimit-remaining-tokens"]) >= 198
    assert "Request too large for gpt-4o" in large.value.message
    assert "Limit 1000, Requested 1002." in large.value.message
    assert "retry-after" not in large.value.response.headers
    assert "on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s." in requests.value.message
    assert [entry.reason for entry in server.ledger.refused] == ["tokens", "too_large", "requests"]
    assert [entry.charge for entry in server.ledger.refused] == [0, 0, 0]
    assert server.ledger[1].message == tokens.value.body["message"]  # type: ignore[index]


def test_refused_calls_take_a_request_where_the_server_counts_them() -> None:
    """With `refusals_cost_requests` a call refused for its tokens uses up one request."""

    async def left(*, counted: bool) -> float:
        server = FakeOpenAI("I", rpm=10, tpm=100, latency=0, refusals_cost_requests=counted)
        api = in_process(server)
        await api.chat.completions.create(model="m", messages=HI * 40)
        for _ in range(3):
            with pytest.raises(openai.RateLimitError):
                await api.chat.completions.create(model="m", messages=HI * 40)
        return server.levels()["org-fake/rpm"]

    assert asyncio.run(left(counted=False)) == pytest.approx(9, abs=0.3)
    assert asyncio.run(left(counted=True)) == pytest.approx(6, abs=0.3)


@pytest.mark.parametrize(
    ("variant", "arrival", "end"),
    [("P", 3, 48), ("I", 3, 3), ("A", 102, 102), ("B", 100, 100), ("C", 102, 42), ("E", 102, 102), ("M", 0, 48), ("K", 3, 48)],
)
def test_each_variant_charges_and_settles_in_its_own_way(variant: str, arrival: int, end: int) -> None:
    """What the token bucket loses when a call arrives and what it has lost when the call is over, for 8 + 40 tokens, at most 100."""

    async def main() -> tuple[float, float]:
        server = FakeOpenAI(variant, rpm=5_000, tpm=6_000, latency=0.02)
        call = in_process(server).chat.completions.create(model="m", messages=HI, max_tokens=100, extra_headers=KNOWN)
        task = asyncio.create_task(call)
        await admitted(server)
        during = 6_000 - server.ledger[0].levels["tpm"]
        await task
        dripped = 0.0 if variant in "EM" else 100 * ((server.ledger[0].ended or 0) - server.ledger[0].time)
        return during, 6_000 - server.levels()["org-fake/tpm"] + min(dripped, during)

    during, after = asyncio.run(main())

    assert during == pytest.approx(arrival, abs=1e-3)
    assert after == pytest.approx(end, abs=1)


def test_a_settled_bucket_may_owe_and_shuts_the_door() -> None:
    """Under P a large answer is debited late, below zero, and then even the smallest call is refused with Used at Limit."""

    async def main() -> tuple[str, float]:
        server = FakeOpenAI("P", tpm=1_000, latency=0)
        api = in_process(server)
        await api.chat.completions.create(model="m", messages=HI, extra_headers={"x-fake-usage": '{"completion_tokens": 5000}'})
        with pytest.raises(openai.RateLimitError) as refused:
            await api.chat.completions.create(model="m", messages=HI)
        return refused.value.message, server.levels()["org-fake/tpm"]

    message, level = asyncio.run(main())

    assert "Limit 1000, Used 1000, Requested 3. Please try again in 180ms" in message
    assert level == pytest.approx(-4_000, abs=100)


def test_bad_requests_are_charged_and_strangers_are_not() -> None:
    """A 400 takes a request and its tokens; an unknown key or path never comes to the buckets."""

    async def main() -> None:
        server = FakeOpenAI("I", latency=0, keys={"sk-test": "org-a"})
        api = in_process(server)
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(model="m", messages=HI, n=0)
        with pytest.raises(openai.BadRequestError):
            await api.chat.completions.create(model="m", messages=[])
        with pytest.raises(openai.AuthenticationError):
            await api.with_options(api_key="sk-other").chat.completions.create(model="m", messages=HI)
        with pytest.raises(openai.NotFoundError):
            await api.post("/unheard-of", cast_to=object, body={})

        assert [entry.status for entry in server.ledger] == [400, 400, 401, 404]
        assert [entry.charge for entry in server.ledger] == [3, 1, 0, 0]
        assert server.levels()["org-a/rpm"] == pytest.approx(498, abs=0.5)

    asyncio.run(main())


def test_a_caller_who_goes_away_pays_for_what_was_made() -> None:
    """A stream closed early settles by the tokens made so far, over HTTP and in process; an answer made in one go is billed whole."""
    slow = Latency(base=0, per_token=0.02, spread=0)
    http, near, whole = FakeOpenAI(latency=slow), FakeOpenAI(latency=slow), FakeOpenAI(latency=Latency(base=0, per_token=0.001, spread=0))
    with http.serve() as url, client(url) as api:
        stream = api.chat.completions.create(model="m", messages=HI, stream=True, extra_headers=KNOWN)
        next(stream)
        stream.close()
        while http.ledger[0].ended is None:
            threading.Event().wait(0.01)

    async def leave() -> None:
        async with await in_process(near).chat.completions.create(model="m", messages=HI, stream=True, extra_headers=KNOWN) as stream:
            await anext(aiter(stream))
        task = asyncio.create_task(in_process(whole).chat.completions.create(model="m", messages=HI, extra_headers=KNOWN))
        await admitted(whole)
        task.cancel()
        await asyncio.sleep(0.1)

    asyncio.run(leave())

    for server in (http, near):
        usage = server.ledger[0].usage

        assert (server.ledger[0].status, server.ledger[0].reason) == (499, "aborted")
        assert usage
        assert usage.prompt_tokens == 8
        assert usage.completion_tokens < 40
    assert whole.ledger[0].usage == Usage(8, 40)


def test_the_library_transport_serves_too() -> None:
    """The app is plain ASGI 3: httpx2's own transport, and an app cancelled with its caller, work as well."""
    server = FakeOpenAI(latency=Latency(base=0, per_token=0.05, spread=0))
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(server), base_url="http://fake/v1")

    async def main() -> int:
        task = asyncio.create_task(http.post("/chat/completions", json={"model": "m", "messages": HI}, headers=KNOWN))
        await admitted(server)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return (await http.post("/chat/completions", json={"model": "m", "messages": HI, "max_tokens": 1})).status_code

    status = asyncio.run(main())

    assert status == 200
    assert [entry.status for entry in server.ledger] == [499, 200]


def test_answers_depend_on_seed_and_body_alone() -> None:
    """Whoever asks, and in whatever order, gets the same answer; another seed gives another."""

    async def lengths(seed: int, order: list[int]) -> dict[int, Usage | None]:
        server = FakeOpenAI(latency=0, seed=seed, tpm=None)
        for number in order:
            await in_process(server).chat.completions.create(model="m", messages=HI, seed=number)
        return {number: server.ledger[place].usage for place, number in enumerate(order)}

    first = asyncio.run(lengths(1, [1, 2, 3]))

    assert first == asyncio.run(lengths(1, [3, 1, 2]))
    assert first != asyncio.run(lengths(2, [1, 2, 3]))


def test_one_server_belongs_to_one_loop_at_a_time() -> None:
    """A second living loop is told to use serve(); after the first is closed the server starts afresh and keeps its ledger."""
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
