"""What the result of a decorated function settles.

Usage, a text, an HTTP response, or nothing; then it is said once what helps.
"""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import aiohttp
import anyio
import httpx
import httpx2
import openai
import pytest
import requests
from openai.types.chat import ChatCompletion

import ratelimit
from ratelimit import InvalidArgument, Limit, LimiterWarning, Limits, RateLimiter
from ratelimit.testing import FakeOpenAI, ThreadClock, VirtualClock

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 800,
}
RESERVED = 808
PROMPT = 8
USED: dict[str, Any] = {
    "usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40},
    "choices": [],
}
WORDS = ["word "] * 700


def limiter(**options: Any) -> RateLimiter:
    """100 requests and 10,000 tokens on a clock that stands still."""
    options.setdefault("limits", Limits(Limit("requests", 100), Limit("tokens", 10_000)))
    return RateLimiter(arrival_slack=0, clock=ThreadClock(), **options)


def spent(of: RateLimiter) -> float:
    """Tokens that are held or used; nothing may be in flight any more."""
    family = of.statistics().families["*"]
    assert family.in_flight == 0
    return round(10_000 - family.levels["tokens/60s"], 6)


def chunks(model: str = "gpt-4o", words: int = 700, **last: Any) -> list[Any]:
    """Make a chat stream of words without usage, as the SDK decodes it."""
    made = [
        {"model": model, "choices": [{"index": 0, "delta": {"content": "word "}}]}
        for _ in range(words)
    ]
    return [*made, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | last]


# ---- streams ------------------------------------------------------------------------


def test_a_generator_of_texts_keeps_its_reserve_and_says_what_helps() -> None:
    """Whether the texts that it yields are the whole answer is not known."""
    held = limiter()

    @held
    def ask(**_: Any) -> Iterator[str]:
        yield from WORDS

    with pytest.warns(LimiterWarning, match=r'ask returned no usage.*settle="text"'):
        list(ask(**BODY))

    assert spent(held) == RESERVED


def test_a_generator_of_texts_settles_by_them_where_they_are_the_answer() -> None:
    """As the user says; sync and async, generators, functions and coroutines, also when
    the reader leaves early.
    """
    held = limiter()
    by_text = held.limit(settle="text")

    @by_text
    def stream(**_: Any) -> Iterator[str]:
        yield from WORDS

    @by_text
    async def stream_async(**_: Any) -> AsyncIterator[str]:
        for word in WORDS:
            yield word

    @by_text
    def ask(**_: Any) -> str:
        return "".join(WORDS)

    @by_text
    async def ask_async(**_: Any) -> str:
        return "".join(WORDS)

    async def collect() -> None:
        assert len([word async for word in stream_async(**BODY)]) == 700
        await ask_async(**BODY)

    list(stream(**BODY))
    ask(**BODY)
    VirtualClock().run(collect)
    assert spent(held) == pytest.approx(4 * (PROMPT + 700), abs=8)

    before = spent(held)
    left: Any = stream(**BODY)
    for _ in range(100):
        next(left)
    left.close()
    assert spent(held) - before == pytest.approx(PROMPT + 100, abs=2)


def test_usage_comes_before_the_text() -> None:
    """Where there is usage, it settles, whatever the user said of the text."""
    held = limiter()
    by_text = held.limit(settle="text")
    by_text(lambda **_: USED)(**BODY)
    list(by_text(lambda **_: iter(["a text", USED]))(**BODY))

    assert spent(held) == 80


def test_what_settles_is_said_by_name() -> None:
    """A misspelled one is said when it is decorated."""
    with pytest.raises(InvalidArgument, match="usage, text"):
        limiter().limit(settle="txt")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "whole"),
    [
        ("gpt-4o", True),
        ("gpt-4.1-mini-2025-04-14", True),
        ("ft:gpt-4o-mini:org::id", True),
        ("openai/gpt-4o", True),
        ("o3-mini", False),
        ("gpt-5-mini", False),
        ("gpt-oss-120b", False),
        ("deepseek-reasoner", False),
        ("my-deployment", False),
        ("gpt-4o-audio-preview", False),
    ],
)
def test_a_streams_text_counts_only_where_it_is_the_whole_answer(model: str, whole: bool) -> None:
    """A model that reasons, or is not known, may have used more than it shows."""
    held = limiter()
    asked = BODY | {"model": model}
    estimate = held.estimate(asked)
    limited: Any = held(lambda **_: iter(chunks(model)))
    if whole:
        list(limited(**asked))
        assert spent(held) == pytest.approx(estimate.prompt_tokens + 700, abs=8)
    else:
        with pytest.warns(LimiterWarning, match="no usage"):
            list(limited(**asked))
        assert spent(held) == estimate.prompt_tokens + 800


@pytest.mark.parametrize(
    "passed",
    [
        chunks()[:300],
        [*chunks()[:300], {"choices": [], "usage": USED["usage"]}],
        [{"choices": [{"index": 0, "delta": {"content": "a"}}]}, USED | {"choices": [{}]}],
    ],
    ids=["texts", "a usage in the middle", "usage with every chunk"],
)
@pytest.mark.parametrize("way", ["left", "broken"])
def test_a_stream_that_does_not_come_to_its_end_keeps_its_reserve(passed: Any, way: str) -> None:
    """What the server goes on to generate is unknown, whoever ended it, and whatever
    was counted until then.
    """
    held = limiter()

    def stream() -> Iterator[Any]:
        yield from passed
        raise RuntimeError("broken")

    running: Any = held(lambda **_: stream())(**BODY)
    for _ in passed:
        next(running)
    if way == "left":
        running.close()
    else:
        with pytest.raises(RuntimeError, match="broken"):
            next(running)

    assert spent(held) == RESERVED


@pytest.mark.parametrize(
    ("last", "tokens"), [({}, PROMPT + 700), ({"usage": USED["usage"]}, 40)], ids=["text", "usage"]
)
def test_a_stream_that_is_left_after_its_last_word_is_complete(last: Any, tokens: float) -> None:
    """Breaking out of the loop at the finish reason, or at the usage, loses nothing."""
    held = limiter()
    running = held(lambda **_: iter([*chunks(**last), {"choices": []}]))(**BODY)
    for chunk in running:
        if chunk["choices"][0].get("finish_reason"):
            break
    del running, chunk

    held_by_close = held(lambda **_: (chunk for chunk in chunks(**last)))(**BODY)
    for _ in chunks():
        next(held_by_close)
    held_by_close.close()

    assert spent(held) == pytest.approx(RESERVED + tokens, abs=8)


def test_a_connection_that_fails_within_a_stream_was_another_one() -> None:
    """Whoever fails at a database between two chunks has still been answered."""
    held = limiter()

    @held
    def stream(**_: Any) -> Iterator[Any]:
        yield from chunks(words=1)[:1]
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        list(stream(**BODY))

    assert spent(held) == RESERVED


def test_a_stream_that_breaks_after_its_usage_settles_by_it() -> None:
    """The finish reason and the usage say everything, whatever becomes of the rest."""
    held = limiter()

    @held
    def stream(**_: Any) -> Iterator[Any]:
        yield from chunks(words=1)
        yield {"choices": [], "usage": USED["usage"]}
        raise httpx2.ReadError("cut")

    with pytest.raises(httpx2.ReadError):
        list(stream(**BODY))

    assert spent(held) == 40


@pytest.mark.parametrize("wrapped", [False, True], ids=["decorated", "wrapped"])
@pytest.mark.parametrize("usage", [False, True], ids=["without usage", "with usage"])
def test_a_cancelled_consumer_costs_the_same_by_every_door(wrapped: bool, usage: bool) -> None:
    """The decorator and the wrapped client keep the reserve alike: the server may go on
    without its reader.
    """
    clock = VirtualClock()
    server = FakeOpenAI(rpm=10_000, tpm=10_000_000, output=500, output_spread=0)
    held = RateLimiter(
        limits=Limits(Limit("tokens", 10_000, per=1e12)), arrival_slack=0, clock=clock
    )

    async def main() -> None:
        client = openai.AsyncOpenAI(
            base_url="http://fake/v1",
            api_key="any",
            http_client=httpx2.AsyncClient(transport=server.transport()),
        )
        if wrapped:
            client = held.wrap(client)
        ask = client.chat.completions.create if wrapped else held(client.chat.completions.create)
        options: Any = {"stream_options": {"include_usage": True}} if usage else {}
        stream = await ask(**BODY, stream=True, **options)
        with anyio.CancelScope() as scope:
            async for _ in stream:
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        await stream.close()

    clock.run(main)
    (level,) = held.statistics().families["*"].levels.values()

    assert round(10_000 - level) == RESERVED


# ---- results without usage ----------------------------------------------------------


class Picture:
    """What can be entered and closed, and so is open already."""

    def __enter__(self) -> Picture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what it holds."""


RESULTS = [
    "a text",
    None,
    {"answer": 42},
    ["a", "b"],
    42,
    Picture(),
    httpx.Response(200, text="a text"),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
@pytest.mark.parametrize("kind", ["plain", "async", "task"])
def test_a_result_without_usage_is_said_once_with_what_helps(result: Any, kind: str) -> None:
    """Each function warns once, with remedies that work; the reserve stays."""
    held = limiter()

    def answer(**_: Any) -> Any:
        return result

    async def answer_async(**_: Any) -> Any:
        return result

    def answer_task(**_: Any) -> Any:
        return asyncio.ensure_future(answer_async())

    functions: dict[str, Any] = {"plain": answer, "async": answer_async, "task": answer_task}
    limited = held(functions[kind])

    async def main() -> None:
        for _ in range(3):
            called = limited(**BODY)
            assert (called if kind == "plain" else await called) is result
            await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        asyncio.run(main())

    assert [warning.category for warning in given] == [LimiterWarning]
    said = str(given[0].message)
    for remedy in ("Return the response", "current_lease().settle(", "limiter.wrap(client)"):
        assert remedy in said
    assert re.match(r".*answer\w* returned no usage", said)
    assert spent(held) == 3 * RESERVED


def test_the_remedies_work() -> None:
    """Each settles to what was used, in silence."""
    held = limiter()
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=USED)))
    client = held.wrap(openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http))

    @held
    def settles(**_: Any) -> str:
        lease = ratelimit.current_lease()
        assert lease is not None
        lease.settle(USED)
        return "a text"

    @held
    def sends(**body: Any) -> Any:
        return client.chat.completions.create(**body).model_dump_json()[:5]

    held(lambda **_: USED)(**BODY)
    settles(**BODY)
    sends(**BODY)

    assert spent(held) == 120


@pytest.mark.parametrize(
    "options",
    [
        {"limits": Limits(Limit("requests", 100))},
        {"limits": Limits(concurrency=3)},
        {"accounting": "never_refund"},
    ],
    ids=["no token limit", "concurrency", "nothing is refunded"],
)
def test_nothing_is_said_where_nothing_could_be_given_back(options: dict[str, Any]) -> None:
    """A text is as good as a response there."""
    assert limiter(**options)(lambda **_: "a text")(**BODY) == "a text"


def test_nothing_is_said_of_calls_that_hold_no_output() -> None:
    """The vectors of an embedding cost what was reserved, up to a few tokens."""
    ask: Any = limiter()(lambda **_: [0.5, 0.25])
    assert ask(model="text-embedding-3-small", input="hi") == [0.5, 0.25]


# ---- HTTP responses -----------------------------------------------------------------


REFUSAL = {
    "error": {
        "message": "Rate limit reached for gpt-4o on requests per min (RPM): Limit 3, Used 3,"
        " Requested 1. Please try again in 20s.",
        "type": "requests",
        "code": "rate_limit_exceeded",
    }
}


def by_httpx(url: str, body: Any) -> Any:
    """Ask by httpx."""
    return httpx.post(url, json=body)


def by_httpx2(url: str, body: Any) -> Any:
    """Ask by httpx2, and leave the body unread."""
    client = httpx2.Client()
    with client.stream("POST", url, json=body) as response:
        return response


def by_requests(url: str, body: Any) -> Any:
    """Ask by requests."""
    return requests.post(url, json=body, timeout=60)


async def by_aiohttp(url: str, body: Any) -> Any:
    """Ask by aiohttp."""
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        await response.read()
        return response


@pytest.mark.parametrize(
    "send",
    [
        by_httpx,
        pytest.param(by_httpx2, marks=pytest.mark.logs("returned no usage")),
        by_requests,
        by_aiohttp,
    ],
)
def test_a_429_that_is_returned_is_counted_and_obeyed(send: Callable[..., Any]) -> None:
    """A refusal pauses the queue whatever way it comes, with its body or without."""
    server = FakeOpenAI("I", rpm=1, tpm=30_000, latency=0)
    held = limiter()

    def ask(body: Any, url: str) -> Any:
        return send(url + "/chat/completions", body)

    async def ask_async(body: Any, url: str) -> Any:
        return await send(url + "/chat/completions", body)

    with server.serve() as url:
        if send is by_aiohttp:
            responses = [asyncio.run(held(ask_async)(BODY, url)) for _ in range(2)]
        else:
            limited = held(ask)
            responses = [limited(BODY, url)]
            responses.append(limited(BODY, url))
    statuses = [getattr(one, "status_code", None) or one.status for one in responses]
    family = held.statistics().families["*"]

    assert statuses == [200, 429]
    assert (family.refused, family.in_flight) == (1, 0)
    assert 0 < family.closed_for <= 60


@pytest.mark.parametrize(
    ("response", "tokens", "refused"),
    [
        (httpx.Response(429, json=REFUSAL), 0, 1),
        (httpx.Response(503, json={}), RESERVED, 0),
        (httpx.Response(500, json={}), RESERVED, 0),
        (httpx.Response(307, headers={"location": "http://y"}), 0, 0),
        (httpx.Response(200, json=USED), 40, 0),
        ({"status_code": 429, "headers": {"retry-after": "3"}}, RESERVED, 1),
        ({"error": REFUSAL["error"]}, 0, 1),
        (ChatCompletion.model_construct(choices=None, error=REFUSAL["error"]), 0, 1),
        (
            {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": ""}},
            RESERVED,
            1,
        ),
    ],
    ids=["429", "503", "500", "307", "200", "a mapping", "error in 200", "SDK", "Response"],
)
def test_a_response_settles_by_its_status_and_by_its_error(
    response: Any, tokens: float, refused: int
) -> None:
    """Refusals are counted, and cost no tokens where they name the level; redirects
    cost nothing. Each is handed on as it came.
    """
    held = limiter()

    assert held(lambda **_: response)(**BODY) is response
    assert spent(held) == tokens
    assert held.statistics().refused == refused


@pytest.mark.logs("returned no usage")
@pytest.mark.parametrize("generated", [{"error": REFUSAL["error"]}, USED])
def test_a_text_that_a_model_has_generated_is_no_word_of_the_server(generated: Any) -> None:
    """A prompt can make a model write a refusal or a usage; neither is believed."""
    held = limiter()
    held(lambda **_: json.dumps(generated))(**BODY)

    assert spent(held) == RESERVED
    assert held.statistics().refused == 0


def test_a_429_returned_through_a_wrapped_client_is_counted_once() -> None:
    """The transport has counted it already."""
    held = limiter()
    refusing = httpx2.MockTransport(lambda _: httpx2.Response(429, json=REFUSAL))
    client = held.wrap(httpx2.Client(transport=refusing))
    response = held(lambda **body: client.post("http://x/v1/chat/completions", json=body))(**BODY)

    assert response.status_code == 429
    assert held.statistics().refused == 1


def test_an_error_event_of_a_decorated_stream_is_counted() -> None:
    """The SDK hands on `response.failed` as an event like any other."""
    held = limiter()
    failed = {"type": "response.failed", "response": {"error": REFUSAL["error"], "usage": None}}
    list(held(lambda **_: iter([failed]))(model="gpt-4o", input="hi", max_output_tokens=50))

    assert held.statistics().refused == 1


# ---- one lease, one call ------------------------------------------------------------


def two_families() -> RateLimiter:
    """Limits by model."""
    return RateLimiter(
        limits={
            "gpt-4o*": Limits(Limit("requests", 100), Limit("tokens", 10_000)),
            "text-embedding-3*": Limits(Limit("requests", 2), Limit("tokens", 10_000)),
        },
        arrival_slack=0,
        clock=ThreadClock(),
    )


def answer(request: httpx2.Request) -> httpx2.Response:
    """Answer chats, embeddings and models."""
    if request.method == "GET":
        return httpx2.Response(200, json={"object": "list", "data": []})
    body = json.loads(request.content)
    if "input" in body:
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        vectors = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return httpx2.Response(200, json={"object": "list", "data": vectors, "usage": usage})
    return httpx2.Response(200, json=USED | {"object": "chat.completion", "model": body["model"]})


@pytest.mark.parametrize("families", ["one", "two"])
def test_a_lease_is_used_for_what_it_was_taken_for(families: Literal["one", "two"]) -> None:
    """A function that embeds and then asks: the embedding pays for itself, by its own
    limits, and the chat uses the function's lease.
    """
    held = limiter() if families == "one" else two_families()
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = held.wrap(openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http))

    @held
    def ask(**body: Any) -> Any:
        client.models.list()
        client.embeddings.create(model="text-embedding-3-small", input="hi there")
        return client.chat.completions.create(**body)

    client.chat.completions.create(**BODY)  # the first call of a family goes alone
    ask(**BODY)
    found = held.statistics().families
    tokens = {name: 10_000 - family.levels["tokens/60s"] for name, family in found.items()}

    if families == "one":
        assert found["*"].admitted == 3
        assert tokens["*"] == pytest.approx(82)
    else:
        assert {name: family.admitted for name, family in found.items()} == {
            "gpt-4o*": 2,
            "text-embedding-3*": 1,
        }
        assert tokens == pytest.approx({"gpt-4o*": 80, "text-embedding-3*": 2})


@pytest.mark.parametrize(
    ("asked", "sent", "admitted"),
    [
        ("gpt-4o", "gpt-4o", 1),
        ("gpt-4o", "gpt-4o-2024-08-06", 1),
        ("fast", "gpt-4o", 1),
        ("gpt-4o", "gpt-4o-mini", 2),
    ],
)
def test_a_lease_is_used_for_its_model(asked: str, sent: str, admitted: int) -> None:
    """A snapshot is the model, a name of the user's own may be; another model's call
    has a lease of its own.
    """
    held = limiter()
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = held.wrap(openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http))

    @held
    def ask(**body: Any) -> Any:
        return client.chat.completions.create(**body | {"model": sent})

    ask(**BODY | {"model": asked})

    assert held.statistics().families["*"].admitted == admitted


def test_a_lease_that_has_ended_is_not_used_any_more() -> None:
    """A task that outlives the call it was started in pays for what it sends."""
    held = limiter()
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = held.wrap(openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http))

    async def later() -> None:
        await asyncio.sleep(0)
        client.chat.completions.create(**BODY)

    @held
    async def ask(**_: Any) -> Any:
        return USED | {"task": asyncio.ensure_future(later())}

    async def main() -> None:
        await (await ask(**BODY))["task"]

    asyncio.run(main())

    assert held.statistics().families["*"].admitted == 2
    assert spent(held) == 80
