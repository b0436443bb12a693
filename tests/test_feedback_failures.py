"""How calls fail: exceptions, refused responses, and errors that come as answers."""

from __future__ import annotations

import asyncio
import json
import socket
from http import HTTPStatus
from http.client import HTTPMessage
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from urllib.error import HTTPError

import aiohttp
import httpx2
import numpy as np
import openai
import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from ratelimit.errors import RequestTooLarge
from ratelimit.feedback import (
    Outcome,
    read_error,
    read_error_answer,
    read_exception,
    read_refusal,
    read_response,
)
from ratelimit.feedback.answers import status_of

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
MESSAGE = (
    "Rate limit reached for x on requests per min (RPM): Limit 3, Used 3, Requested 1. "
    "Please try again in 20s."
)


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
            with pytest.raises(Exception) as caught:  # noqa: PT011  # each library has its own
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


@pytest.mark.parametrize(
    "body",
    [
        {"message": MESSAGE, "code": "rate_limit_exceeded"},
        {"error": {"message": MESSAGE, "code": 429}},
        json.dumps({"error": {"message": MESSAGE, "type": "rate_limit_error"}}),
    ],
)
@pytest.mark.parametrize("status", [None, 200])
def test_a_refusal_inside_a_stream_is_read_from_the_sdks_error(
    status: int | None, body: object
) -> None:
    """There it has no status, or the 200 that the stream began with."""
    error: Any = openai.APIError(MESSAGE, request=REQUEST, body=body)
    if status is not None:
        error.status_code = status
    refusal = read_exception(error).refusal

    assert refusal is not None
    assert refusal.wait == pytest.approx(20.001)


def test_a_refusal_inside_a_stream_is_judged_by_its_host() -> None:
    """The SDK's error knows the request, though not the status."""
    url = "https://api.openai.com/v1/chat/completions"
    refusals = [
        read_exception(openai.APIError("", request=request, body=QUOTA["error"])).refusal
        for request in (REQUEST, httpx2.Request("POST", url))
    ]

    assert [refusal.hopeless for refusal in refusals if refusal] == [False, True]


def test_a_bad_request_about_a_quota_is_no_refusal() -> None:
    """A status that names no refusal counts before the code."""
    error = openai.BadRequestError(
        "bad", response=httpx2.Response(400, request=REQUEST), body=QUOTA["error"]
    )

    assert read_exception(error) == Outcome("unknown")


def test_a_refusal_of_the_standard_librarys_client_is_read_with_its_headers() -> None:
    """Those are no mapping, but have pairs like one."""
    headers = HTTPMessage()
    headers["Retry-After"] = "7"
    refusal = read_exception(HTTPError("http://x/v1", 429, "slow", headers, None)).refusal

    assert refusal is not None
    assert refusal.wait == 7


def test_a_chain_that_bites_its_tail_ends() -> None:
    """Chains of causes are made by strangers and may be circles."""
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one

    assert read_exception(one) == Outcome("unknown")


QUOTA = {"error": {"code": "insufficient_quota", "message": "Allocated quota exceeded"}}


def answered(url: str) -> list[Any]:
    """Make the refused response of one URL as each HTTP library holds it."""
    body = json.dumps(QUOTA).encode()
    by_requests = requests.Response()
    by_requests.status_code, by_requests.url, by_requests._content = 429, url, body
    by_aiohttp = SimpleNamespace(
        status=429, headers={}, url=httpx2.URL(url), _body=body, read=lambda: None
    )
    return [
        httpx2.Response(429, request=httpx2.Request("POST", url), content=body),
        by_requests,
        by_aiohttp,
    ]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_refused_response_is_read_with_its_host(kind: int) -> None:
    """A response of any library that is handed on instead of raised is a refusal too,
    and its host decides what its code means.
    """
    there = read_response(answered("https://dashscope.aliyuncs.com/v1")[kind])
    here = read_response(answered("https://api.openai.com/v1/chat/completions")[kind])

    assert there is not None
    assert here is not None
    assert (there.may_be_final, there.hopeless) == (True, False)
    assert (here.may_be_final, here.hopeless) == (False, True)


STATUSES = [429, HTTPStatus.TOO_MANY_REQUESTS, np.int64(429), np.int16(429)]


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: type(status).__name__)
@pytest.mark.parametrize("name", ["status_code", "status"])
def test_a_status_is_a_number_of_any_class(name: str, status: Any) -> None:
    """Frameworks hand on their own enumeration of statuses."""
    response = SimpleNamespace(**{name: status, "headers": {"retry-after": "3"}})
    error = type("Refused", (Exception,), {name: status})()
    refusals = [
        read_response(response),
        read_exception(error).refusal,
        read_refusal(status, {}, b""),
    ]

    assert None not in refusals
    assert read_error({name: status, "message": "slow"}) is not None


@pytest.mark.parametrize("status", [True, "429", 429.5, 10**400, -429, None, MagicMock()])
def test_what_cannot_be_a_status_is_none(status: Any) -> None:
    """A truth, a text and a mock name no status of HTTP."""
    assert read_response(SimpleNamespace(status_code=status, status=status)) is None
    assert status_of(SimpleNamespace(status_code=status, status=status)) is None


def test_an_exceptions_host_decides_what_its_code_means() -> None:
    """The SDK's error knows where it came from."""
    errors = [
        openai.RateLimitError("429", response=response, body=QUOTA["error"])
        for response in (answered("https://api.openai.com/v1")[0], answered("https://x.y/v1")[0])
    ]
    refusals = [read_exception(error).refusal for error in errors]

    assert [refusal.hopeless for refusal in refusals if refusal] == [True, False]


def test_what_is_no_refused_response_is_none() -> None:
    """Answers, unread responses and other things are left alone."""
    unread = httpx2.Response(200, stream=httpx2.ByteStream(b"{}"))

    assert [read_response(each) for each in (unread, requests.Response(), 5, None)] == [None] * 4


FAILURES: list[tuple[Any, tuple[bool, float | None]]] = [
    ({"error": {"code": 429, "message": "slow, try again in 5s"}}, (True, 5.001)),
    ({"error": {"code": "429", "message": "slow"}}, (True, None)),
    ({"error": {"code": 503, "message": "busy"}}, (True, None)),
    ({"error": {"code": 529}}, (True, None)),
    ({"error": {"code": 402, "message": "Insufficient credits"}}, (True, None)),
    ({"error": {"code": 502, "message": "Provider returned error"}}, (False, None)),
    ({"error": {"code": "500", "message": "oops"}}, (False, None)),
    ({"error": {"code": 400, "message": "bad"}}, (False, None)),
    ({"error": {"code": "content_filter", "message": "no"}}, (False, None)),
    ({"error": {"code": "rate_limit_exceeded", "message": "slow"}}, (True, None)),
    ({"error": {"code": "server_is_overloaded"}}, (True, None)),
    ({"error": {"code": "limit_requests"}}, (True, None)),
    ({"error": "something broke"}, (False, None)),
    ({"error": {"code": 429}, "choices": []}, (True, None)),
    (
        {
            "error": {"code": 429},
            "choices": [{"message": {"content": ""}, "finish_reason": "error"}],
        },
        (True, None),
    ),
    ({"choices": [{"error": {"code": 502}, "finish_reason": "error"}]}, (False, None)),
    ({"error": {"code": 429}, "choices": None, "output": []}, (True, None)),
    ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], (True, None)),
    ({"type": "error", "error": {"type": "overloaded_error"}}, (True, None)),
    ({"object": "error", "message": "boom", "code": 500}, (False, None)),
    ({"choices": [{"message": {"content": "hi"}, "error": {"code": 429}}]}, (True, None)),
    (
        {"status": "failed", "output": [{}], "error": {"code": "rate_limit_exceeded"}},
        (True, None),
    ),
]


@pytest.mark.parametrize(("body", "expected"), FAILURES, ids=lambda case: str(case)[:60])
def test_an_error_that_comes_as_an_answer_is_told_from_one(
    body: Any, expected: tuple[bool, float | None]
) -> None:
    """Relays send errors with status 200: by its code it is a refusal or a failure,
    whether decoded, as text or as bytes.
    """
    for form in (body, json.dumps(body), json.dumps(body).encode()):
        found = read_error_answer(form)
        assert found is not None
        wait = None if found.refusal is None else found.refusal.wait
        assert (found.refusal is not None, wait) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": "hi"}}]},
        {"choices": [{"message": {"content": "hi"}}], "error": {"code": 502}},
        {"choices": [{"message": {"content": None, "tool_calls": [{}]}}], "error": {"code": 502}},
        {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
        {"choices": [{"text": "hi"}], "error": {"code": 502}},
        {"id": "resp_1", "output": [{}], "error": None},
        {"object": "list", "data": [{}], "error": {"code": 500}},
        {"error": None},
        {"error": {}},
        {"error": False},
        {},
        [],
        [1],
        "text",
        b"not JSON",
        "",
        5,
        None,
        {"error": 5},
    ],
)
def test_an_answer_is_no_error(body: Any) -> None:
    """What holds no error, or something generated and no refusal, is an answer."""
    assert read_error_answer(body) is None


def test_an_sdk_object_that_holds_an_error_is_told() -> None:
    """The SDK builds a completion of whatever a 200 holds."""
    broken = ChatCompletion.construct(error={"code": 502, "message": "boom"}, choices=None)

    assert read_error_answer(broken) == Outcome("unknown")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "code", "message", "type", "status", "choices", "object"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_garbage_as_an_error_never_raises(answer: object) -> None:
    """What is found is a failure with at most a plausible wait."""
    found = read_error_answer(answer)
    refusal = read_error(answer)

    assert found is None or found.kind in {"refused", "unknown"}
    assert refusal is None or refusal.wait is None or refusal.wait > 0
