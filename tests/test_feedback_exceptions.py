import asyncio
import socket
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
import requests
import urllib3

from ratelimit.errors import RequestTooLarge
from ratelimit.feedback.exceptions import Outcome, read_exception

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
MESSAGE = "Rate limit reached for x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."


def raised(
    outer: BaseException, cause: BaseException | None = None, context: BaseException | None = None
) -> BaseException:
    """Give an exception the chain that `raise` would give it."""
    if cause is not None:
        outer.__cause__ = cause
    outer.__context__ = context
    return outer


UNSENT = [
    httpx2.ConnectError("refused", request=REQUEST),
    httpx2.ConnectTimeout("late", request=REQUEST),
    httpx2.PoolTimeout("full", request=REQUEST),
    raised(
        openai.APIConnectionError(request=REQUEST),
        cause=httpx2.ConnectError("dns", request=REQUEST),
    ),
    raised(
        openai.APITimeoutError(request=REQUEST),
        cause=httpx2.ConnectTimeout("late", request=REQUEST),
    ),
    raised(
        requests.ConnectionError("x"),
        context=raised(
            urllib3.exceptions.HTTPError("x"), cause=urllib3.exceptions.ConnectTimeoutError("y")
        ),
    ),
    requests.ConnectTimeout("late"),
    aiohttp.ClientConnectorDNSError(None, OSError("dns")),  # type: ignore[arg-type]  # only its class is looked at
    aiohttp.ConnectionTimeoutError("late"),
    ConnectionRefusedError("no"),
    socket.gaierror("dns"),
    raised(RuntimeError("wrapped by the user"), cause=httpx2.ConnectError("x", request=REQUEST)),
    RequestTooLarge("an inner limiter"),
    ExceptionGroup(
        "task group",
        [
            ConnectionRefusedError("no"),
            ExceptionGroup("inner", [httpx2.PoolTimeout("full", request=REQUEST)]),
        ],
    ),
]
UNKNOWN = [
    httpx2.ReadTimeout("late", request=REQUEST),
    httpx2.RemoteProtocolError("cut", request=REQUEST),
    raised(
        openai.APITimeoutError(request=REQUEST), cause=httpx2.ReadTimeout("late", request=REQUEST)
    ),
    openai.APIConnectionError(request=REQUEST),
    requests.ReadTimeout("late"),
    requests.ConnectionError("cut"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.SocketTimeoutError("late"),
    ConnectionResetError("cut"),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    TimeoutError(),
    ValueError("the user's own"),
    raised(
        httpx2.ReadTimeout("the fallback was sent", request=REQUEST),
        context=httpx2.ConnectError("the first was not", request=REQUEST),
    ),
    raised(
        ValueError("raised in a handler"),
        context=httpx2.ConnectError("of an earlier call", request=REQUEST),
    ),
    ExceptionGroup("mixed", [ConnectionRefusedError("no"), ValueError("sent")]),
    openai.BadRequestError("bad", response=httpx2.Response(400, request=REQUEST), body=None),
]


@pytest.mark.parametrize("error", UNSENT, ids=lambda error: type(error).__name__)
def test_a_call_that_never_left_is_told(error: BaseException) -> None:
    """Only when no byte reached the server may everything be given back."""
    assert read_exception(error) == Outcome("nothing_sent")


@pytest.mark.parametrize("error", UNKNOWN, ids=lambda error: type(error).__name__)
def test_in_doubt_nothing_is_given_back(error: BaseException) -> None:
    """What may have been counted by the server stays paid."""
    assert read_exception(error) == Outcome("unknown")


def test_a_connection_that_is_really_refused_was_not_sent() -> None:
    """The class names hold for what the libraries raise in fact, not only for objects
    made in a test.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

        async def by_aiohttp() -> None:
            async with aiohttp.ClientSession() as session, session.post(url):
                pass

        client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
        calls: list[Any] = [
            lambda: httpx2.post(url),
            lambda: requests.post(url, timeout=5),
            lambda: asyncio.run(by_aiohttp()),
            client.models.list,
        ]
        for call in calls:
            with pytest.raises(Exception) as caught:  # noqa: PT011 -- each library has its own
                call()
            assert read_exception(caught.value).kind == "nothing_sent", caught.value
        client.close()


def test_a_refusal_is_read_from_whatever_exception_carries_it() -> None:
    """The SDK's error, httpx's and aiohttp's status errors all lead to the same
    figures.
    """
    body = {"error": {"message": MESSAGE, "type": "requests", "code": "rate_limit_exceeded"}}
    response = httpx2.Response(429, request=REQUEST, json=body)
    errors = [
        openai.RateLimitError("429", response=response, body=body["error"]),
        httpx2.HTTPStatusError("429", request=REQUEST, response=response),
        raised(
            RuntimeError("wrapped"),
            cause=openai.RateLimitError("429", response=response, body=body["error"]),
        ),
        ExceptionGroup(
            "group", [ValueError(), openai.RateLimitError("429", response=response, body=body)]
        ),
    ]
    for error in errors:
        outcome = read_exception(error)
        assert outcome.kind == "refused"
        assert outcome.refusal is not None
        assert (outcome.refusal.kind, outcome.refusal.limit) == ("requests", 3)
        assert outcome.refusal.wait == pytest.approx(20.001)

    bare = aiohttp.ClientResponseError(None, (), status=429, headers={"retry-after": "3"})  # type: ignore[arg-type]
    assert read_exception(bare).kind == "refused"


def test_a_chain_that_bites_its_tail_ends() -> None:
    """Chains of causes are made by strangers and may be circles."""
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one

    assert read_exception(one) == Outcome("unknown")
