import gzip
import json
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import httpx2
import openai
import pytest

from ratelimit import EstimateWarning, LimiterWarning, RateLimiter, RequestTooLarge, WaitTimeout
from ratelimit.admission.clock import Clock
from ratelimit.estimate.endpoints import endpoint_of_path
from ratelimit.feedback import JsonReader, Usage
from ratelimit.integrations import requests, settlement

MODEL = "gpt-4o"
MESSAGES: Any = [{"role": "user", "content": "Hello, who are you?"}]
ASK: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 100}
CHAT = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "I am."}}
    ],
    "usage": {"prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16},
}
RESERVE = 13 + 100
"""What ASK holds while it is in flight: its prompt and its max_tokens."""


class Still(Clock):
    """A clock that stands still, so that levels are exact."""

    def now(self) -> float:
        return 1_000.0


class Interrupted(BaseException):
    """What is no error, as Ctrl-C and cancellations are."""


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces from the network, for either kind of client; it may
    break off.
    """

    def __init__(self, *pieces: bytes, error: BaseException | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


Answer = Callable[[httpx2.Request], httpx2.Response]


def answer(
    *pieces: bytes, status: int = 200, error: BaseException | None = None, **headers: str
) -> Answer:
    """Answer every request with these pieces."""
    named = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return lambda _: httpx2.Response(status, headers=named, stream=Body(*pieces, error=error))


def as_json(body: object, **more: Any) -> Answer:
    """Answer with JSON."""
    return answer(json.dumps(body).encode(), **more)


def sse(*events: object) -> bytes:
    """Write a stream of events."""
    return b"".join(
        b"data: "
        + (event.encode() if isinstance(event, str) else json.dumps(event).encode())
        + b"\n\n"
        for event in events
    )


class Server:
    """A wrapped client of each kind before one scripted server, and what its limiter
    has left.
    """

    def __init__(self, reply: Answer, **options: Any) -> None:
        self.seen: list[httpx2.Request] = []
        self.reply = reply
        settings: dict[str, Any] = {
            "rpm": 1_000,
            "tpm": 100_000,
            "arrival_slack": 0,
            "clock": Still(),
        }
        self.limiter = RateLimiter(**(settings | options))

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        return self.reply(request)

    async def handle_async(self, request: httpx2.Request) -> httpx2.Response:
        return self.handle(request)

    @property
    def client(self) -> openai.OpenAI:
        http = httpx2.Client(transport=httpx2.MockTransport(self.handle))
        return self.limiter.wrap(
            openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=http)
        )

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle_async))
        return self.limiter.wrap(
            openai.AsyncOpenAI(api_key="none", base_url="http://x/v1", http_client=http)
        )

    def spent(self) -> tuple[float, float]:
        """Requests and tokens taken out of the limits; nothing may be in flight any
        more.
        """
        family = self.limiter.statistics().families["*"]
        assert family.in_flight == 0
        return round(1_000 - family.levels["requests/60s"], 3), round(
            100_000 - family.levels["tokens/60s"], 3
        )


@pytest.mark.parametrize(
    ("encode", "coding"),
    [
        (lambda body: body, ""),
        (gzip.compress, "gzip"),
        (zlib.compress, "deflate"),
        (lambda body: zlib.compress(body)[2:-4], "deflate"),
    ],
    ids=["plain", "gzip", "deflate", "raw deflate"],
)
def test_a_json_answer_settles_by_its_usage(encode: Callable[[bytes], bytes], coding: str) -> None:
    """The reserve is replaced by what was billed, however the body was encoded and cut;
    the client reads the same bytes.
    """
    body = encode(json.dumps(CHAT).encode())
    server = Server(answer(body[:7], body[7:], content_encoding=coding))
    result = server.client.chat.completions.create(**ASK)

    assert result.choices[0].message.content == "I am."
    assert server.spent() == (1, 16)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_answer_settles_by_its_usage(backend: str) -> None:
    """Async clients settle as sync ones do, on both event loops."""
    server = Server(as_json(CHAT))

    async def main() -> Any:
        return await server.async_client.chat.completions.create(**ASK)

    assert anyio.run(main, backend=backend).usage.total_tokens == 16
    assert server.spent() == (1, 16)


def test_raw_and_streaming_responses_settle() -> None:
    """with_raw_response and with_streaming_response are metered alike."""
    server = Server(as_json(CHAT))
    raw = server.client.chat.completions.with_raw_response.create(**ASK)
    assert raw.parse().usage is not None
    assert raw.elapsed.total_seconds() >= 0
    with server.client.chat.completions.with_streaming_response.create(**ASK) as response:
        assert response.json() is not None

    assert server.spent() == (2, 32)


def test_a_response_of_bytes_settles_without_being_read() -> None:
    """Mocks and caches answer with a body that is never iterated."""
    server = Server(lambda _: httpx2.Response(200, json=CHAT))
    server.client.chat.completions.create(**ASK)

    assert server.spent() == (1, 16)


CHUNKS = [
    {
        "id": "x",
        "created": 1,
        "model": MODEL,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": word}}],
    }
    for word in ("Hello", " there")
]
USED = {
    "id": "x",
    "created": 1,
    "model": MODEL,
    "object": "chat.completion.chunk",
    "choices": [],
    "usage": CHAT["usage"],
}


def test_a_stream_settles_by_its_last_chunk() -> None:
    """With include_usage the billed figure comes at the end."""
    server = Server(answer(sse(*CHUNKS), sse(USED, "[DONE]"), content_type="text/event-stream"))
    words = [
        chunk.choices[0].delta.content
        for chunk in server.client.chat.completions.create(**ASK, stream=True)
        if chunk.choices
    ]

    assert words == ["Hello", " there"]
    assert server.spent() == (1, 16)


def test_a_stream_without_usage_settles_by_its_text() -> None:
    """What was said is counted: two tokens, beside the prompt's thirteen."""
    server = Server(answer(sse(*CHUNKS, "[DONE]"), content_type="text/event-stream; charset=utf-8"))
    list(server.client.chat.completions.create(**ASK, stream=True))

    assert server.spent() == (1, 13 + 2)


def test_a_stream_closed_early_keeps_its_reserve() -> None:
    """What the server still generates is not known."""
    server = Server(
        answer(
            sse(CHUNKS[0]), sse(CHUNKS[1]), sse(USED, "[DONE]"), content_type="text/event-stream"
        )
    )
    stream = server.client.chat.completions.create(**ASK, stream=True)
    next(iter(stream))
    stream.close()

    assert server.spent() == (1, RESERVE)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_stream_closed_early_keeps_its_reserve(backend: str) -> None:
    """The same for async streams, when the task is cancelled in the middle."""
    server = Server(
        answer(
            sse(CHUNKS[0]), sse(CHUNKS[1]), sse(USED, "[DONE]"), content_type="text/event-stream"
        )
    )

    async def main() -> None:
        client = server.async_client
        with anyio.CancelScope() as scope:
            async with (
                await client.chat.completions.create(**ASK, stream=True) as stream,
                aclosing(aiter(stream)) as chunks,
            ):
                async for _ in chunks:
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=backend)

    assert server.spent() == (1, RESERVE)


def test_a_stream_that_breaks_off_keeps_its_reserve() -> None:
    """What the server still generates after a lost connection is not known."""
    server = Server(
        answer(sse(*CHUNKS), error=httpx2.ReadError("cut"), content_type="text/event-stream")
    )
    with pytest.raises(openai.APIConnectionError):
        list(server.client.chat.completions.create(**ASK, stream=True))

    assert server.spent() == (1, RESERVE)


@pytest.mark.parametrize("kind", ["application/json", "Text/Event-Stream", "text/plain", ""])
@pytest.mark.parametrize("blank", [b"", b"\r\n ", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "body", [json.dumps(CHAT).encode(), b": queued\n\n" + sse(*CHUNKS, USED, "[DONE]")]
)
def test_the_first_byte_tells_a_stream_from_json(body: bytes, blank: bytes, kind: str) -> None:
    """What a relay names its answer is no reason to keep the reserve."""
    server = Server(answer(blank, body, content_type=kind))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))
    client.post("http://x/v1/chat/completions", json=ASK)

    assert server.spent() == (1, 16)


@pytest.mark.parametrize("body", [b"{}", b"<html>", b"data: {}\n\n", b""])
def test_an_answer_that_shows_no_usage_is_said_once(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever form it has; only the first one of a model warns."""
    monkeypatch.setattr(settlement, "_warned", set())
    server = Server(answer(body))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(2):
            client.post("http://x/v1/chat/completions", json=ASK)

    assert ["gpt-4o ended without usage" in str(one.message) for one in given] == [True]
    assert server.spent() == (2, 2 * RESERVE)


@pytest.mark.parametrize(
    ("host", "pauses"), [("dashscope.aliyuncs.com", True), ("api.openai.com", False)]
)
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_an_error_in_a_200_is_judged_by_its_host(host: str, pauses: bool, stream: bool) -> None:
    """The same code is spent credit at OpenAI, and a rate elsewhere."""
    body = {"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}
    server = Server(answer(sse(body)) if stream else as_json(body))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))
    client.post(f"https://{host}/v1/chat/completions", json=ASK)
    family = server.limiter.statistics().families["*"]

    assert (family.refused, family.closed_for > 0) == (1, pauses)


def test_a_json_answer_that_breaks_off_behind_its_end_settles_by_its_usage() -> None:
    """What was read whole was answered and billed; a retry is a call of its own."""
    server = Server(answer(json.dumps(CHAT).encode(), error=httpx2.ReadError("cut")))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))

    @server.limiter
    def ask(**body: Any) -> Any:
        with pytest.raises(httpx2.ReadError):
            client.post("http://x/v1/chat/completions", json=body)
        server.reply = as_json(CHAT | {"usage": {"total_tokens": 100}})
        return client.post("http://x/v1/chat/completions", json=body)

    ask(**ASK)

    assert server.spent() == (2, 116)


def test_a_json_answer_that_breaks_off_keeps_its_reserve() -> None:
    """Nothing is known of what a lost answer cost."""
    server = Server(answer(json.dumps(CHAT).encode()[:50], error=httpx2.ReadError("cut")))
    with pytest.raises(openai.APIConnectionError):
        server.client.with_options(max_retries=0).chat.completions.create(**ASK)

    assert server.spent() == (1, RESERVE)


def test_a_responses_stream_settles_by_its_completion() -> None:
    """response.completed carries the usage."""
    usage = {"input_tokens": 13, "output_tokens": 40, "total_tokens": 53}
    events = sse(
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.completed", "response": {"usage": usage}},
    )
    server = Server(answer(events, content_type="text/event-stream"))
    with server.client.responses.with_streaming_response.create(
        model=MODEL, input="Hello", max_output_tokens=50, stream=True
    ) as response:
        response.read()

    assert server.spent() == (1, 53)


def test_a_refusal_inside_a_stream_is_counted() -> None:
    """A 200 that fails inside with rate_limit_exceeded is a 429: it is counted and
    closes the line.
    """
    error = {
        "code": "rate_limit_exceeded",
        "message": "Rate limit reached. Please try again in 7s.",
    }
    events = sse({"type": "response.failed", "response": {"error": error, "usage": None}})
    server = Server(answer(events, content_type="text/event-stream"))
    with server.client.responses.with_streaming_response.create(
        model=MODEL, input="Hello", stream=True
    ) as response:
        response.read()
    family = server.limiter.statistics().families["*"]

    assert family.refused == 1
    assert family.closed_for == pytest.approx(7.001)


def test_a_bad_request_pays_its_charge_only() -> None:
    """400s are charged at admission like any other request, but have no output."""
    server = Server(
        as_json({"error": {"message": "bad", "type": "invalid_request_error"}}, status=400)
    )
    with pytest.raises(openai.BadRequestError):
        server.client.chat.completions.create(**ASK)
    charge = server.limiter.estimate(**ASK).charge

    assert server.spent() == (1, charge)
    assert 0 < charge < RESERVE


def test_answers_that_carry_no_usage_keep_their_reserve() -> None:
    """Speech is bytes, moderations have no usage: nothing is known, nothing is given
    back.
    """
    server = Server(answer(b"\0\1\2", content_type="audio/mpeg"))
    assert (
        server.client.audio.speech.create(model="tts-1", voice="alloy", input="Hello").read()
        == b"\0\1\2"
    )

    requests, tokens = server.spent()
    assert requests == 1
    assert tokens >= 0


@pytest.mark.parametrize(
    ("code", "message", "word"),
    [
        (
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            "credit",
        ),
        (
            "rate_limit_exceeded",
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 31538.",
            "larger",
        ),
        ("billing_not_active", "Your account is not active.", "billing"),
    ],
)
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_hopeless_refusal_costs_one_attempt_and_says_what_helps(
    code: str, message: str, word: str, coding: str
) -> None:
    """The SDK would try three times; a header keeps it from that, and its exception
    says in plain words what to do.
    """
    body = json.dumps(
        {"error": {"message": message, "type": code, "param": None, "code": code}}
    ).encode()
    server = Server(
        answer(
            gzip.compress(body) if coding else body,
            status=429,
            content_encoding=coding,
            content_length="9",
        )
    )
    with pytest.raises(openai.RateLimitError, match=word) as caught:
        server.client.chat.completions.create(**ASK)

    assert len(server.seen) == 1
    assert caught.value.code == code
    assert message in str(caught.value)
    assert server.limiter.statistics().families["*"].refused == 1


def test_a_refusal_closes_the_line_and_is_tried_again() -> None:
    """An ordinary 429 stays the SDK's to retry; its body reaches the SDK unchanged, its
    pause everybody.
    """
    error = {
        "message": "on tokens per min (TPM): Limit 100000, Used 100000, Requested 100. "
        "Please try again in 60ms.",
        "type": "tokens",
        "code": "rate_limit_exceeded",
    }
    server = Server(as_json({"error": error}, status=429, retry_after_ms="1"), clock=Clock())
    client = server.client.with_options(max_retries=0)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    server.reply = as_json(CHAT)
    with pytest.raises(WaitTimeout):
        server.limiter.acquire_sync(tokens=1, timeout=0)

    assert caught.value.body == error
    assert server.limiter.statistics().families["*"].refused == 1


@pytest.mark.parametrize("error", [None, httpx2.ReadError("cut")])
def test_a_refusal_with_a_broken_body_is_still_one(error: Exception | None) -> None:
    """Headers alone say that it is a 429; the client meets the broken body where it
    would have without us.
    """
    server = Server(
        answer(b"<html>", status=429, error=error, retry_after="5", x_should_retry="false")
    )
    with pytest.raises((openai.RateLimitError, openai.APIConnectionError)):
        server.client.with_options(max_retries=0).chat.completions.create(**ASK)
    family = server.limiter.statistics().families["*"]

    assert (family.refused, family.closed_for) == (1, 5)


def test_a_413_of_a_proxy_is_a_bad_request() -> None:
    """It is larger than no limit, so that nothing is refused and no advice is added."""
    page = b"<html>413 Request Entity Too Large</html>"
    server = Server(answer(page, status=413))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))

    assert client.post("http://x/v1/chat/completions", json=ASK).content == page
    assert server.limiter.statistics().refused == 0
    assert server.spent()[1] < RESERVE


@pytest.mark.parametrize("backend", ["sync", "asyncio", "trio"])
def test_a_refusal_counts_when_its_body_is_not_waited_for(backend: str) -> None:
    """Ctrl-C or a cancellation while the body comes; the headers have said it all."""
    server = Server(answer(b"{", status=429, error=Interrupted(), retry_after="5"))
    if backend == "sync":
        client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))
        with pytest.raises(Interrupted):
            client.post("http://x/v1/chat/completions", json=ASK)
    else:

        async def main() -> None:
            transport = httpx2.MockTransport(server.handle_async)
            async with server.limiter.wrap(httpx2.AsyncClient(transport=transport)) as client:
                with pytest.raises(Interrupted):
                    await client.post("http://x/v1/chat/completions", json=ASK)

        anyio.run(main, backend=backend)
    family = server.limiter.statistics().families["*"]

    assert (family.refused, family.closed_for, family.in_flight) == (1, 5, 0)


def test_too_large_a_request_never_leaves() -> None:
    """A prompt that the limit can never hold is refused before it is sent, by an error
    that the SDK does not retry.
    """
    server = Server(as_json(CHAT), tpm=50)
    long: Any = [{"role": "user", "content": "Hello, who are you? " * 50}]
    with pytest.raises(RequestTooLarge) as caught:
        server.client.chat.completions.create(**ASK | {"messages": long})

    assert server.seen == []
    # which no version of the SDK from 3.3 on tries again
    assert isinstance(caught.value, openai.OpenAIError)
    assert (caught.value.name, caught.value.limit) == ("tokens", 50)


def test_a_wait_longer_than_the_timeout_is_told_once() -> None:
    """The SDK must not take our timeout for the network's and try again."""
    server = Server(as_json(CHAT), rpm=1)
    client = server.limiter.wrap(
        httpx2.Client(transport=httpx2.MockTransport(server.handle)), timeout=2
    )
    client.post("http://x/v1/chat/completions", json=ASK)
    with pytest.raises(WaitTimeout):
        openai.OpenAI(
            api_key="none", base_url="http://x/v1", http_client=client
        ).chat.completions.create(**ASK)

    assert len(server.seen) == 1


def test_what_no_model_answers_passes_unmetered() -> None:
    """Lists and stored responses are under no model's limit; an upload counts one
    request.
    """
    server = Server(as_json({"object": "list", "data": []}))
    server.client.models.list()
    server.client.responses.input_items.list("resp_1")
    assert server.spent() == (0, 0)
    server.reply = as_json({"id": "f"})
    server.client.files.create(file=b"{}", purpose="batch")

    assert server.spent() == (1, 0)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", "chat.completions"),
        ("/v1/completions", "completions"),
        ("/v1/responses", "responses"),
        ("/v1/responses/compact", "responses"),
        ("/openai/deployments/my-gpt/chat/completions", "chat.completions"),
        ("/openai/deployments/e/embeddings/", "embeddings"),
        ("/openai/v1/audio/transcriptions", "audio"),
        ("/v1/images/edits", "images"),
        ("/v1/moderations", "moderations"),
        ("/v1/files", "files"),
        ("/openai/files", "files"),
        ("/v1/vector_stores/vs_1/files", None),
        ("/v1/containers/c_1/files", None),
        ("/assistants/v1/files", "files"),
        ("/models/chat/completions", "chat.completions"),
        ("/openai/deployments/assistants/chat/completions", "chat.completions"),
        ("/organization/acme/v1/chat/completions", "chat.completions"),
        ("/realtime/v1/embeddings", "embeddings"),
        ("/v1/models", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/chat/completions/abc", None),
        ("/", None),
        ("", None),
        ("/deployments", None),
    ],
)
def test_the_path_tells_what_a_call_is(path: str, expected: object) -> None:
    """Any host, version and deployment before the end of the path."""
    assert endpoint_of_path(path) == expected


def test_a_form_tells_its_model() -> None:
    """Audio and picture edits come as multipart forms, and name their model there."""
    request = httpx2.Request(
        "POST", "http://x", data={"model": "whisper-1", "n": "2"}, files={"file": b"sound"}
    )

    assert requests.body_of(request, "audio") == {"model": "whisper-1", "n": 2}


def test_a_deployment_stands_in_for_the_model() -> None:
    """Azure names the model in the path when the body does not."""
    request = httpx2.Request(
        "POST", "http://x/openai/deployments/mine/embeddings", json={"input": "a"}
    )

    assert requests.metered_call(request) == ("embeddings", "mine", {"input": "a", "model": "mine"})


def test_a_body_that_cannot_be_read_is_sent_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A streamed or broken body is admitted as a guess; the call goes through, and only
    the first one warns.
    """
    monkeypatch.setattr(settlement, "_warned", set())
    server = Server(as_json(CHAT))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))
    with pytest.warns(EstimateWarning, match="could not be read"):
        client.post("http://x/v1/chat/completions", content=iter([b"{", b"}"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content in (b"{", b"[1]", b"\xff", b"null", b"[" * 100_000):
            assert client.post("http://x/v1/chat/completions", content=content).status_code == 200

    assert server.spent()[0] == 6


def test_an_encoding_that_cannot_be_read_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks for what the taps can read; a server that sends br all the same
    costs the settlement, not the call.
    """
    monkeypatch.setattr(settlement, "_warned", set())
    server = Server(answer(b"???", content_encoding="br"))
    given = httpx2.Client(
        transport=httpx2.MockTransport(server.handle),
        headers={"accept-encoding": "br;q=1, gzip, zstd"},
    )
    client = server.limiter.wrap(given)
    with (
        pytest.warns(LimiterWarning, match="br"),
        client.stream("POST", "http://x/v1/chat/completions", json=ASK) as response,
    ):
        assert b"".join(response.iter_raw()) == b"???"

    assert server.seen[0].headers["accept-encoding"] == "gzip"
    assert given.headers["accept-encoding"] == "br;q=1, gzip, zstd"
    assert server.spent() == (1, RESERVE)


def test_a_body_that_lies_about_its_encoding_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meter gives up where the bytes make no sense; the client gets them as they
    came.
    """
    monkeypatch.setattr(settlement, "_warned", set())
    body = gzip.compress(json.dumps(CHAT).encode())
    server = Server(answer(body[:20], b"nonsense" * 20, content_encoding="gzip"))
    client = server.limiter.wrap(httpx2.Client(transport=httpx2.MockTransport(server.handle)))
    with (
        pytest.warns(LimiterWarning, match="content-encoding"),
        client.stream("POST", "http://x/v1/chat/completions", json=ASK) as response,
    ):
        assert b"".join(response.iter_raw()) == body[:20] + b"nonsense" * 20

    assert server.spent() == (1, RESERVE)


def test_a_large_answer_is_not_kept() -> None:
    """Megabytes of embeddings pass; of them no more is kept than of a small answer."""
    reader = JsonReader()
    body = json.dumps(
        {"data": [0.25] * 500_000, "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    ).encode()
    for start in range(0, len(body), 10_000):
        reader.feed(body[start : start + 10_000])
        assert len(reader._body) <= 4 * 65_536
    reader.close()

    assert reader.usage == Usage(8, 0, 8)
