"""What happens to a pool's calls when a member fails, refuses its key or is full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from ratelimit import InvalidArgument, Member, Pool, RateLimiter, WaitTimeout
from ratelimit.testing import VirtualClock
from tests.pools import HELLO, Site, ask, pool_of, sites

ANSWER = {
    "id": "chatcmpl-12345",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello."},
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}

Say = Callable[[httpx2.Request], httpx2.Response]


def error(status: int, code: str, message: str = "no") -> Say:
    """Answer every request by one error."""
    body = {"error": {"message": message, "type": code, "code": code, "param": None}}
    return lambda _: httpx2.Response(status, json=body)


def scripted(clock: VirtualClock, name: str, say: Say, **options: Any) -> Member:
    """Make a member with a server of one function."""

    async def handle(request: httpx2.Request) -> httpx2.Response:
        return say(request)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    client = AsyncOpenAI(api_key="k", base_url=f"http://{name}/v1", http_client=http)
    limiter = RateLimiter(rpm=6_000, clock=clock)
    return Member(client, limiter=limiter, name=name, **options)


def fine(_: httpx2.Request) -> httpx2.Response:
    """Answer."""
    return httpx2.Response(200, json=ANSWER)


def unreachable(request: httpx2.Request) -> httpx2.Response:
    """Fail as a dead host does."""
    raise httpx2.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    "say",
    [
        unreachable,
        error(500, "server_error"),
        error(503, "server_is_overloaded"),
        error(401, "invalid_api_key"),
        error(402, "payment_required"),
        error(403, "unsupported_country"),
        error(404, "model_not_found"),
        error(404, "DeploymentNotFound"),
        error(429, "rate_limit_exceeded", "Rate limit reached"),
        error(429, "insufficient_quota", "You exceeded your current quota"),
        error(429, "credit_balance_exhausted", "You have no credit"),
        error(413, "tokens", "Request too large for gpt-4o on tokens per min (TPM): Limit 10"),
    ],
    ids=lambda say: getattr(say, "__name__", "say"),
)
def test_an_attempt_goes_on_where_a_member_fails(say: Say) -> None:
    """The next member answers, without a retry of the SDK."""
    clock = VirtualClock()
    pool = pool_of(scripted(clock, "bad", say), scripted(clock, "good", fine, prefer=1))
    client = pool.client(max_retries=0)

    async def main() -> None:
        assert [await ask(client) for _ in range(5)] == ["good"] * 5
        assert clock.now() < 1

    clock.run(main)
    assert pool.statistics().members["bad"].calls < 5  # it is not asked for each of them
    assert pool.statistics().in_flight == 0


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_a_bad_body_is_not_sent_around(status: int) -> None:
    """What one member refuses as bad is the user's to see, at once."""
    clock = VirtualClock()
    pool = pool_of(
        scripted(clock, "one", error(status, "invalid_request_error", "bad field")),
        scripted(clock, "two", fine, prefer=1),
    )

    async def main() -> None:
        with pytest.raises(openai.APIStatusError) as found:
            await ask(pool.client(max_retries=0))
        assert found.value.status_code == status
        assert "bad field" in str(found.value)
        assert found.value.response.headers["x-ratelimit-member"] == "one"

    clock.run(main)
    assert pool.statistics().members["two"].calls == 0
    assert not pool.statistics().members["one"].parked_because


def test_a_dead_member_is_tried_by_one_call_after_growing_pauses() -> None:
    """A dead member costs one attempt a pause, and comes back at once."""
    clock = VirtualClock()
    dead = True
    tries: list[float] = []

    def say(request: httpx2.Request) -> httpx2.Response:
        tries.append(clock.now())
        return unreachable(request) if dead else fine(request)

    pool = pool_of(scripted(clock, "first", say), scripted(clock, "second", fine, prefer=1))
    client = pool.client(max_retries=0)

    async def main() -> None:
        nonlocal dead
        for _ in range(300):
            await asyncio.gather(*(ask(client) for _ in range(3)))
            await asyncio.sleep(0.1)
        pauses = [round(b - a, 1) for a, b in pairwise(tries)]
        assert pauses[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0], abs=0.15)
        assert max(pauses) <= 4.2
        assert "could not be reached" in str(pool.explain())
        dead = False
        await asyncio.sleep(4.1)
        assert await ask(client) == "first"
        assert await asyncio.gather(*(ask(client) for _ in range(4))) == ["first"] * 4

    clock.run(main)


def test_one_failure_alone_costs_half_a_second() -> None:
    """After a single 500 all calls go there again, not one trial alone."""
    clock = VirtualClock()
    place, other = sites(clock, "place", "other")
    pool = pool_of(place.member(), other.member(prefer=1))
    client = pool.client()

    async def main() -> None:
        await ask(client)
        place.server.inject("500", count=1)
        assert await ask(client) == "other"
        await asyncio.sleep(0.6)
        assert await asyncio.gather(*(ask(client) for _ in range(5))) == ["place"] * 5

    clock.run(main)


def test_where_all_are_parked_calls_wait_for_the_first_to_come_back() -> None:
    """No call fails while members are away for less than the patience of the user."""
    clock = VirtualClock()
    dead = True

    def say(request: httpx2.Request) -> httpx2.Response:
        return unreachable(request) if dead else fine(request)

    pool = pool_of(scripted(clock, "a", say), scripted(clock, "b", say), moves=1)

    async def main() -> None:
        nonlocal dead
        with pytest.raises(openai.APIConnectionError):
            await ask(pool.client(max_retries=0))
        with pytest.raises(WaitTimeout) as found:
            await ask(pool.client(max_retries=0, timeout=0.01))
        assert "a could not be reached" in str(found.value)
        assert "next try in" in str(found.value)
        waiting = asyncio.ensure_future(ask(pool.client(max_retries=0)))
        await asyncio.sleep(0.1)
        dead = False
        assert await waiting in {"a", "b"}

    clock.run(main)


def test_keys_that_are_all_refused_are_shown_at_once() -> None:
    """Waiting mends no key: each call shows what the servers say."""
    clock = VirtualClock()
    pool = pool_of(*(scripted(clock, name, error(401, "invalid_api_key")) for name in "ab"))

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(openai.AuthenticationError):
                await ask(pool.client(max_retries=0))
        assert clock.now() < 1

    clock.run(main)
    assert "refuses its key" in str(pool.statistics())


def test_moves_are_bounded() -> None:
    """An attempt goes on at most moves= times, then the last word is the user's."""
    clock = VirtualClock()
    members = [scripted(clock, name, error(500, "server_error")) for name in "abcdef"]
    pool = pool_of(*members, moves=2)

    async def main() -> None:
        with pytest.raises(openai.InternalServerError):
            await ask(pool.client(max_retries=0))

    clock.run(main)
    assert sum(one.calls for one in pool.statistics().members.values()) == 3


def test_a_stream_that_has_begun_is_not_moved() -> None:
    """A broken stream is the user's to see: some of its answer has arrived."""
    clock = VirtualClock()
    place, other = sites(clock, "place", "other")
    pool = pool_of(place.member(), other.member(prefer=1))
    place.server.inject("broken_stream", count=1)
    messages: Any = HELLO

    async def main() -> None:
        stream: Any = await pool.client().chat.completions.create(
            model="gpt-4o", messages=messages, stream=True
        )
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]

    clock.run(main)
    assert other.answered == 0
    assert pool.statistics().in_flight == 0


def test_a_cancelled_trial_frees_the_member() -> None:
    """A trial that its user gave up keeps nobody back."""
    clock = VirtualClock()
    hangs = asyncio.Event

    async def handle(request: httpx2.Request) -> httpx2.Response:
        if state["dead"]:
            raise httpx2.ConnectError("refused", request=request)
        if state["hangs"]:
            await hangs().wait()
        return httpx2.Response(200, json=ANSWER)

    state = {"dead": True, "hangs": True}
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    client = AsyncOpenAI(api_key="k", base_url="http://one/v1", http_client=http)
    pool = Pool([Member(client, limiter=RateLimiter(rpm=6_000, clock=clock))])

    async def main() -> None:
        with pytest.raises(openai.APIConnectionError):
            await ask(pool.client(max_retries=0))
        state["dead"] = False
        trial = asyncio.ensure_future(ask(pool.client(max_retries=0)))
        waiting = asyncio.ensure_future(ask(pool.client(max_retries=0)))
        await asyncio.sleep(2)
        state["hangs"] = False
        trial.cancel()
        assert await waiting == "one"
        assert clock.now() < 3

    clock.run(main)
    assert pool.statistics().in_flight == 0


def state_server(name: str, made: list[str]) -> Say:
    """A server that keeps responses and files of its own."""

    def say(request: httpx2.Request) -> httpx2.Response:
        path, method = request.url.path, request.method
        if method == "POST" and path.endswith("/responses"):
            before = json.loads(request.content).get("previous_response_id")
            if before is not None and before not in made:
                return error(400, "previous_response_not_found", "not found")(request)
            made.append(f"resp_{name}{len(made):05}")
            return httpx2.Response(200, json=_response(made[-1]))
        if method == "POST" and path.endswith("/files"):
            made.append(f"file-{name}{len(made):05}")
            return httpx2.Response(200, json=_file(made[-1]))
        found = path.rsplit("/", 1)[-1]
        if found not in made:
            return error(404, "not_found", f"No such object: {found}")(request)
        kept = _file(found) if found.startswith("file") else _response(found)
        return httpx2.Response(200, json=kept)

    return say


def _response(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o",
        "output": [],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 5,
            "output_tokens": 1,
            "total_tokens": 6,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


def _file(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": 1,
        "created_at": 1,
        "filename": "x",
        "purpose": "user_data",
        "status": "processed",
    }


def test_what_is_stored_is_asked_for_where_it_is() -> None:
    """Responses and files go back to their member, however the turns go."""
    clock = VirtualClock()
    made: dict[str, list[str]] = {"a": [], "b": []}
    pool = pool_of(*(scripted(clock, name, state_server(name, made[name])) for name in "ab"))
    client = pool.client(max_retries=0)

    async def main() -> None:
        for _ in range(4):
            first = await client.responses.create(model="gpt-4o", input="Hi")
            second = await client.responses.create(
                model="gpt-4o", input="Go on", previous_response_id=first.id
            )
            assert second.id[5] == first.id[5]
            assert (await client.responses.retrieve(first.id)).id == first.id
        file = await client.files.create(file=b"x", purpose="user_data")
        for _ in range(4):
            asked = {"type": "input_file", "file_id": file.id}
            content: Any = [{"role": "user", "content": [asked]}]
            answer = await client.responses.create(model="gpt-4o", input=content)
            assert answer.id[5] == file.id[5]

    clock.run(main)


def test_what_was_stored_before_the_pool_is_looked_for() -> None:
    """An id that no answer has shown is asked for at one member after the other."""
    clock = VirtualClock()
    made: dict[str, list[str]] = {"a": [], "b": ["resp_old12345"]}
    pool = pool_of(*(scripted(clock, name, state_server(name, made[name])) for name in "ab"))
    client = pool.client(max_retries=0)

    async def main() -> None:
        assert (await client.responses.retrieve("resp_old12345")).id == "resp_old12345"
        after = await client.responses.create(
            model="gpt-4o", input="Go on", previous_response_id="resp_old12345"
        )
        assert after.id.startswith("resp_b")
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_nowhere1")

    clock.run(main)


def test_what_is_stored_with_a_member_that_lacks_the_model_fails_in_words() -> None:
    """The error names the member and what to do."""
    clock = VirtualClock()
    made: list[str] = []
    pool = pool_of(
        scripted(clock, "a", state_server("a", made), models=["gpt-4o"]),
        scripted(clock, "b", state_server("b", []), models=["gpt-5"]),
    )
    client = pool.client(max_retries=0)

    async def main() -> None:
        first = await client.responses.create(model="gpt-4o", input="Hi")
        with pytest.raises(InvalidArgument, match="stored with the pool's member 'a'"):
            await client.responses.create(
                model="gpt-5", input="Go on", previous_response_id=first.id
            )

    clock.run(main)


def test_a_form_is_sent_with_the_members_model() -> None:
    """A multipart body names the member's model, and its file arrives whole."""
    clock = VirtualClock()
    seen: list[bytes] = []

    def say(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.content)
        return httpx2.Response(200, json={"text": "Hello."})

    pool = pool_of(scripted(clock, "a", say, models={"whisper-1": "my-whisper"}))

    async def main() -> None:
        audio = ("a.wav", b"RIFF-bytes", "audio/wav")
        answer = await pool.client().audio.transcriptions.create(model="whisper-1", file=audio)
        assert answer.text == "Hello."

    clock.run(main)
    assert b'name="model"\r\n\r\nmy-whisper\r\n' in seen[0]
    assert b"RIFF-bytes" in seen[0]


def test_the_pools_client_sends_no_key_of_its_own() -> None:
    """Each member gets its own login, organisation and headers, and no other's."""
    clock = VirtualClock()
    seen: list[httpx2.Headers] = []

    async def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers)
        return httpx2.Response(200, json=ANSWER)

    def member(name: str) -> Member:
        client = AsyncOpenAI(
            api_key=f"key-of-{name}",
            organization=f"org-{name}",
            base_url=f"http://{name}/v1",
            default_headers={"x-mine": name},
            http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(handle)),
        )
        return Member(client, limiter=RateLimiter(rpm=60, clock=clock), name=name)

    client = pool_of(member("a"), member("b")).client()

    async def main() -> None:
        for _ in range(2):
            await ask(client, extra_headers={"x-call": "7"})

    clock.run(main)
    for name, headers in zip("ab", seen, strict=True):
        assert headers["authorization"] == f"Bearer key-of-{name}"
        assert headers["openai-organization"] == f"org-{name}"
        assert headers["x-mine"] == name
        assert headers["x-call"] == "7"
        assert headers["host"] == name
    assert "key-of" not in repr(client.base_url) + str(client.api_key)


def test_a_slow_member_holds_up_nobody() -> None:
    """Calls that a slow member has are its own; the rest goes on."""
    clock = VirtualClock()
    slow, quick = Site("slow", clock, latency=30), Site("quick", clock)
    client = pool_of(slow.member(), quick.member()).client()

    async def main() -> None:
        found = await asyncio.gather(*(ask(client) for _ in range(20)))
        assert set(found) == {"slow", "quick"}
        assert clock.now() < 62

    clock.run(main)
