"""Responses that a decorated function returns are read as far as they are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import openai
import pytest
import requests
import urllib3

from ratelimit import RateLimiter
from ratelimit.testing import ThreadClock

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}
ERROR = {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}
USED = {"usage": {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40}}


def by_urllib3(body: io.BytesIO, *, read: bool) -> Any:
    """Answer as urllib3 does."""
    return urllib3.HTTPResponse(body, status=200, preload_content=read)


def by_requests(body: io.BytesIO, *, read: bool) -> Any:
    """Answer as requests does."""
    response = requests.Response()
    response.status_code = 200
    response.raw = by_urllib3(body, read=False)
    return response if not read or response.content else None


def by_httpx(body: io.BytesIO, *, read: bool) -> Any:
    """Answer as httpx does."""
    response = httpx.Response(200, content=iter(body))
    return response if not read or response.read() else None


def by_httpx2(body: io.BytesIO, *, read: bool) -> Any:
    """Answer as httpx2 does."""
    response = httpx2.Response(200, content=iter(body))
    return response if not read or response.read() else None


def by_sdk(body: io.BytesIO, *, read: bool) -> Any:
    """Answer as the SDK does where its raw responses are asked for."""
    handler = httpx2.MockTransport(lambda _: by_httpx2(body, read=False))
    client = openai.OpenAI(
        api_key="any", base_url="http://x/v1", http_client=httpx2.Client(transport=handler)
    )
    if read:
        return client.chat.completions.with_raw_response.create(**BODY)
    return client.chat.completions.with_streaming_response.create(**BODY).__enter__()


SENDERS = [by_urllib3, by_requests, by_httpx, by_httpx2, by_sdk]


def asked(response: Any) -> RateLimiter:
    """Return the response from a decorated function, once."""
    limiter = RateLimiter(rpm=600, tpm=100_000, arrival_slack=0, clock=ThreadClock())
    limiter(lambda **_: response)(**BODY)
    return limiter


@pytest.mark.logs("returned no usage")
@pytest.mark.parametrize("send", SENDERS)
def test_a_response_that_still_streams_is_left_unread(send: Callable[..., Any]) -> None:
    """Its body belongs to the caller: reading it here waits for the server."""
    body = io.BytesIO(json.dumps(USED).encode())
    response = send(body, read=False)
    asked(response)

    assert not body.closed
    assert body.tell() == 0


@pytest.mark.parametrize("said", [ERROR, [ERROR], ERROR | USED], ids=["alone", "list", "used"])
@pytest.mark.parametrize("send", SENDERS)
def test_an_error_in_a_response_of_status_200_is_counted(
    send: Callable[..., Any], said: Any
) -> None:
    """What was read of a response is read like a body that is returned by itself."""
    limiter = asked(send(io.BytesIO(json.dumps(said).encode()), read=True))

    assert limiter.statistics().refused == 1


@pytest.mark.parametrize("send", SENDERS)
def test_an_error_in_one_of_several_responses_is_counted(send: Callable[..., Any]) -> None:
    """Results often come as a pair of a response and something else."""
    limiter = asked((send(io.BytesIO(json.dumps(ERROR).encode()), read=True), "label"))

    assert limiter.statistics().refused == 1


@pytest.mark.parametrize("send", SENDERS)
def test_the_usage_of_a_response_that_was_read_settles(send: Callable[..., Any]) -> None:
    """An answer by any library says what it cost."""
    limiter = asked(send(io.BytesIO(json.dumps(USED).encode()), read=True))

    assert limiter.statistics().families["*"].levels["tokens/60s"] == pytest.approx(99_960, abs=1)


def events(*each: dict[str, Any]) -> io.BytesIO:
    """Make the body of a stream."""
    return io.BytesIO(b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in each))


WORD = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("body", "tokens", "refused"),
    [
        (events(WORD, STOP, {"choices": [], **USED}), 40, 0),
        (events({**WORD, **USED}), 108, 0),  # cut: its server broke off
        (events(WORD, ERROR), 108, 1),
        (events({**STOP, **USED}, ERROR), 40, 1),
        (events(WORD, STOP), 9, 0),
    ],
    ids=["used", "cut", "refused", "used and refused", "text"],
)
@pytest.mark.parametrize("send", SENDERS[:-1])  # the SDK reads a stream by itself
def test_a_stream_that_was_read_whole_is_read_as_one(
    send: Callable[..., Any], body: io.BytesIO, tokens: int, refused: int
) -> None:
    """A function may ask for a stream and return the response with all of it."""
    limiter = asked(send(io.BytesIO(body.getvalue()), read=True))
    family = limiter.statistics().families["*"]

    assert 100_000 - family.levels["tokens/60s"] == pytest.approx(tokens, abs=1)
    assert (family.refused, family.in_flight) == (refused, 0)


@pytest.mark.logs("returned no usage")
@pytest.mark.parametrize("kind", [str, str.encode, lambda text: bytearray(text.encode())])
@pytest.mark.parametrize("holder", [lambda text: (text, "label"), lambda text: ["label", text]])
def test_a_text_beside_something_else_is_no_word_of_the_server(
    kind: Callable[[str], Any], holder: Callable[[Any], Any]
) -> None:
    """What a model has written may look like a refusal, also as a part of a result."""
    limiter = asked(holder(kind(json.dumps(ERROR))))

    assert limiter.statistics().refused == 0
