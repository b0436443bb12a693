"""FakeOpenAI seen by the real openai client: over loopback HTTP and in process, sync,
asyncio and trio.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import openai
import pytest
import trio

from ratelimit.testing import FakeOpenAI, Latency, Usage
from ratelimit.testing.clocks import run_virtual

HI: Any = [{"role": "user", "content": "hi"}]
KNOWN = {"x-fake-usage": '{"prompt_tokens": 8, "completion_tokens": 40}'}


def client(url: str) -> openai.OpenAI:
    """The real client, without retries of its own."""
    return openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0)


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


def test_the_sync_client_reads_every_endpoint() -> None:
    """Chat, legacy completions, Responses, embeddings, moderations, images, speech and
    models parse, over real HTTP.
    """
    server = FakeOpenAI(latency=0, models={"gpt-4o": {"rpm": 500, "tpm": 30_000}})
    with server.serve() as url, client(url) as api:
        chat = api.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=5, n=2)
        old = api.completions.create(model="davinci-002", prompt=["a", "b"], max_tokens=3)
        response = api.responses.create(model="gpt-4o", input="hi", extra_headers=KNOWN)
        vectors = api.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        models = [model.id for model in api.models.list()]
        flagged = (
            api.moderations.create(input="hi", model="omni-moderation-latest").results[0].flagged
        )
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
    assert models[0] == "gpt-4o"
    assert not flagged
    assert len(pictures or []) == 2
    assert spoken
    assert [entry.status for entry in server.ledger] == [200] * 7


def test_streams_carry_headers_first_and_usage_last() -> None:
    """Chat usage comes in the last chunk when asked for, Responses usage in
    response.completed, legacy streams parse as well.
    """
    server = FakeOpenAI(latency=Latency(base=0, per_token=0.0001))
    with server.serve() as url, client(url) as api:
        asked = api.chat.completions.create(
            model="gpt-4o",
            messages=HI,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=KNOWN,
        )
        assert asked.response.headers["x-ratelimit-remaining-tokens"].isdigit()
        chunks = list(asked)
        plain = list(
            api.chat.completions.create(
                model="gpt-4o", messages=HI, stream=True, extra_headers=KNOWN
            )
        )
        old = list(
            api.completions.create(model="davinci-002", prompt="a", stream=True, max_tokens=3)
        )
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


# on trio the SDK leaves its own generators unfinished at [DONE]
@pytest.mark.filterwarnings("ignore:Async generator 'openai")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_the_async_client_works_on_both_libraries(run: Any) -> None:
    """Over loopback the server serves asyncio and trio clients alike."""
    server = FakeOpenAI(latency=0)

    async def ask(url: str) -> tuple[str | None, int]:
        async with openai.AsyncOpenAI(
            base_url=url, api_key="x", http_client=httpx2.AsyncClient()
        ) as api:
            answer = await api.chat.completions.create(model="gpt-4o", messages=HI)
            pieces = [
                chunk
                async for chunk in await api.chat.completions.create(
                    model="gpt-4o", messages=HI, stream=True
                )
            ]
        return answer.choices[0].message.content, len(pieces)

    with server.serve() as url:
        content, pieces = run(ask, url) if run is trio.run else run(ask(url))

    assert content
    assert pieces > 2


def test_refusals_name_limit_used_requested_and_wait() -> None:
    """Texts, codes and headers of a 429 are the recorded ones, and a refused call costs
    no tokens.
    """
    server = FakeOpenAI("I", rpm=3, tpm=1_000, latency=0)

    async def refused(size: int) -> openai.RateLimitError:
        with pytest.raises(openai.RateLimitError) as error:
            await in_process(server).chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "x" * size}]
            )
        return error.value

    async def main() -> list[openai.RateLimitError]:
        api = in_process(server)
        await api.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x" * 3_200}]
        )
        errors = [await refused(3_200), await refused(4_000)]
        await api.chat.completions.create(model="gpt-4o", messages=HI)
        return [*errors, await refused(4)]

    tokens, large, requests = run_virtual(main)

    assert (
        "Rate limit reached for gpt-4o in organization org-fake on tokens per min (TPM): "
        "Limit 1000, Used 802, Requested 802. Please try again in 36.24s."
    ) in tokens.message
    assert (tokens.type, tokens.code) == ("tokens", "rate_limit_exceeded")
    assert tokens.response.headers["retry-after-ms"] == "36240"
    assert tokens.response.headers["retry-after"] == "37"
    assert tokens.response.headers["x-ratelimit-remaining-tokens"] == "198"
    assert "Request too large for gpt-4o" in large.message
    assert "Limit 1000, Requested 1002." in large.message
    assert "retry-after" not in large.response.headers
    assert (
        "on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."
        in requests.message
    )
    assert [entry.reason for entry in server.ledger.refused] == ["tokens", "too_large", "requests"]
    assert [entry.charge for entry in server.ledger.refused] == [0, 0, 0]
    assert server.ledger[1].message == tokens.body["message"]  # type: ignore[index]


def test_a_caller_who_goes_away_pays_for_what_was_made() -> None:
    """A stream closed early settles by the tokens made so far, over HTTP and in
    process; an answer made in one go is billed whole.
    """
    slow = Latency(base=0, per_token=0.02, spread=0)
    http, near, whole = (
        FakeOpenAI(latency=slow),
        FakeOpenAI(latency=slow),
        FakeOpenAI(latency=Latency(base=0, per_token=0.001, spread=0)),
    )
    with http.serve() as url, client(url) as api:
        stream = api.chat.completions.create(
            model="m", messages=HI, stream=True, extra_headers=KNOWN
        )
        next(stream)
        stream.close()
        while http.ledger[0].ended is None:
            threading.Event().wait(0.01)

    async def leave() -> None:
        async with await in_process(near).chat.completions.create(
            model="m", messages=HI, stream=True, extra_headers=KNOWN
        ) as stream:
            await anext(aiter(stream))
        task = asyncio.create_task(
            in_process(whole).chat.completions.create(model="m", messages=HI, extra_headers=KNOWN)
        )
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
    """The app is plain ASGI 3: httpx2's own transport, and an app cancelled with its
    caller, work as well.
    """
    server = FakeOpenAI(latency=Latency(base=0, per_token=0.05, spread=0))
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(server), base_url="http://fake/v1")

    async def main() -> int:
        task = asyncio.create_task(
            http.post("/chat/completions", json={"model": "m", "messages": HI}, headers=KNOWN)
        )
        await admitted(server)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return (
            await http.post(
                "/chat/completions", json={"model": "m", "messages": HI, "max_tokens": 1}
            )
        ).status_code

    status = asyncio.run(main())

    assert status == 200
    assert [entry.status for entry in server.ledger] == [499, 200]
