"""Which requests of a wrapped HTTP client are metered.

OpenAI's endpoints exactly, other APIs by what they name, redirects as the call that
they lead to.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import openai
import pytest

from ratelimit import Limit, LimiterWarning, Limits, RateLimiter
from ratelimit.integrations import settlement
from ratelimit.testing import FakeOpenAI, ThreadClock

ASK: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Hello, who are you?"}],
    "max_tokens": 100,
}
USAGE = {"prompt_tokens": 13, "completion_tokens": 3, "total_tokens": 16}
CHAT = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}


@pytest.fixture(autouse=True)
def _nothing_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "_warned", set())


def limiter() -> RateLimiter:
    """Limits of a model of each API, on a clock that stands still."""
    limits = Limits(Limit("requests", 100), Limit("tokens", 10_000))
    return RateLimiter(
        limits=dict.fromkeys(("gpt-4o*", "claude*", "gemini*", "rerank*", "anthropic*"), limits),
        arrival_slack=0,
        clock=ThreadClock(),
    )


def taken(of: RateLimiter) -> dict[str, tuple[int, float, float]]:
    """Calls admitted, requests and tokens taken, of every family that has any."""
    return {
        name: (
            family.admitted,
            round(100 - family.levels["requests/60s"], 3),
            round(10_000 - family.levels["tokens/60s"], 3),
        )
        for name, family in of.statistics().families.items()
        if family.admitted and not family.in_flight
    }


def wrapped(of: RateLimiter, answer: Any = None, **headers: str) -> httpx2.Client:
    """A wrapped HTTP client before a server that gives this answer."""
    body = {} if answer is None else answer
    return of.wrap(
        httpx2.Client(
            base_url="http://x",
            transport=httpx2.MockTransport(
                lambda _: httpx2.Response(200, json=body, headers=headers)
            ),
        )
    )


# ---- other APIs ---------------------------------------------------------------------


CLAUDE = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
}
GEMINI = {
    "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
    "generationConfig": {"maxOutputTokens": 50},
}
USED_BY_CLAUDE = {"usage": {"input_tokens": 10, "output_tokens": 5}}
USED_BY_GEMINI = {
    "usageMetadata": {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "totalTokenCount": 15,
    }
}


@pytest.mark.parametrize(
    ("path", "body", "answer", "family", "tokens"),
    [
        ("/v1/messages", CLAUDE, USED_BY_CLAUDE, "claude*", 15),
        (
            "/v1beta/models/gemini-2.5-pro:generateContent",
            GEMINI,
            USED_BY_GEMINI,
            "gemini*",
            15,
        ),
        (
            "/v1/projects/p/publishers/google/models/gemini-2.5-pro:streamGenerateContent",
            GEMINI,
            [{"candidates": []}, USED_BY_GEMINI],
            "gemini*",
            15,
        ),
        (
            "/model/anthropic.claude-3/invoke",
            {k: v for k, v in CLAUDE.items() if k != "model"},
            USED_BY_CLAUDE,
            "anthropic*",
            15,
        ),
        ("/v1/rerank", {"model": "rerank-2", "query": "a", "documents": []}, {}, "rerank*", 0),
        (
            "/v1/rerank",
            {"model": "rerank-2", "query": "a", "documents": []},
            {"usage": {"total_tokens": 9}},
            "rerank*",
            9,
        ),
    ],
)
def test_another_api_is_metered_by_the_model_that_it_names(
    path: str, body: Any, answer: Any, family: str, tokens: float
) -> None:
    """At least as a request of that model, and settled by the usage of its answer."""
    held = limiter()
    wrapped(held, answer).post(path, json=body)

    assert taken(held) == {family: (1, 1, tokens)}


@pytest.mark.logs("answer of claude.* without usage", "answer of gemini.* without usage")
def test_another_apis_call_reserves_what_it_asks_for() -> None:
    """A second call waits for the tokens that the first may use."""
    held = limiter()
    seen: list[float] = []

    def handle(_: httpx2.Request) -> httpx2.Response:
        families = held.statistics().families
        seen.append(10_000 - min(families[one].levels["tokens/60s"] for one in families))
        return httpx2.Response(200, json={})

    client = held.wrap(httpx2.Client(transport=httpx2.MockTransport(handle)))
    client.post("http://x/v1/messages", json=CLAUDE)
    client.post("http://x/v1beta/models/gemini-2.5-pro:generateContent", json=GEMINI)

    assert 50 < seen[0] < 80
    assert 50 < seen[1] < 80


def test_a_429_of_another_api_is_counted_and_obeyed() -> None:
    """The queue pauses as the answer says."""
    held = limiter()
    refusing = httpx2.MockTransport(
        lambda _: httpx2.Response(429, headers={"retry-after": "7"}, json={"type": "error"})
    )
    held.wrap(httpx2.Client(transport=refusing)).post("http://x/v1/messages", json=CLAUDE)
    family = held.statistics().families["claude*"]

    assert (family.refused, family.closed_for) == (1, 7)


@pytest.mark.parametrize("body", [{"query": "a"}, None, [1]])
def test_what_names_no_model_passes_with_one_warning(body: Any) -> None:
    """It is sent as it is, and said once for each kind of path."""
    held = limiter()
    client = wrapped(held)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for number in range(3):
            assert client.post(f"/v1/search/{number}", json=body).status_code == 200
            assert client.post("/v1/graphql", json=body).status_code == 200

    assert [warning.category for warning in given] == [LimiterWarning] * 2
    assert "POST /v1/search/0 is no endpoint of OpenAI's and names no model" in str(
        given[0].message
    )
    assert taken(held) == {}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/vector_stores/vs_1/files",
        "/v1/vector_stores",
        "/v1/containers/c_1/files",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/input_tokens",
        "/v1/chat/completions/chatcmpl_1",
        "/v1/conversations/c_1/items",
        "/v1/uploads/u_1/parts",
        "/v1/messages/count_tokens",
        "/v1beta/models/gemini-2.5-pro:countTokens",
        "/oauth/token",
    ],
)
def test_what_costs_nothing_passes_in_silence(path: str) -> None:
    """Storage, jobs, counts and cancellations are under no model's limits."""
    held = limiter()
    wrapped(held).post(path, json={"model": "gpt-4o"})

    assert taken(held) == {}


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/assistants/chat/completions",
        "/openai/deployments/files/new/endpoint",
        "/organization/acme/v1/chat/completions",
        "/realtime/v1beta/embeddings",
        "/files/v1/messages",
        "/responses/v1/rerank",
        "/v1/engines/batches/completions",
        "/model/files/invoke",
    ],
)
def test_a_name_of_the_users_own_hides_no_call(path: str) -> None:
    """A gateway's prefix and a deployment may be named as a free collection is."""
    held = limiter()
    wrapped(held, {"usage": {"total_tokens": 9}}).post(
        path, json={"model": "gpt-4o", "input": "Hello", "prompt": "Hello"}
    )

    assert [calls for calls, *_ in taken(held).values()] == [1]


def test_the_model_is_named_behind_the_users_prefix() -> None:
    """The last name in a path is the model's, where the body has none."""
    held = limiter()
    wrapped(held, {"usage": {"total_tokens": 9}}).post(
        "/models/v1/deployments/gpt-4o-mine/embeddings", json={"input": "Hello"}
    )

    assert taken(held) == {"gpt-4o*": (1, 1, 9)}


def test_an_upload_is_a_request_and_a_store_s_file_is_none() -> None:
    """Under limits that hold for all models."""
    held = RateLimiter(rpm=100, arrival_slack=0, clock=ThreadClock())
    client = wrapped(held, {"id": "f"})
    client.post("/v1/vector_stores/vs_1/files", json={"file_id": "f"})
    client.post("/v1/files", content=b"")

    assert held.statistics().families["*"].admitted == 1


def test_compacting_a_response_is_metered() -> None:
    """It answers with a usage, as any Response."""
    held = limiter()
    used = {"usage": {"input_tokens": 20, "output_tokens": 4, "total_tokens": 24}}
    wrapped(held, used).post("/v1/responses/compact", json={"model": "gpt-4o", "input": "Hello"})

    assert taken(held) == {"gpt-4o*": (1, 1, 24)}


# ---- redirects ----------------------------------------------------------------------


class Redirecting:
    """A server that sends every first request to another path."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.bodies: list[bytes] = []

    def answer(self, library: Any, request: Any) -> Any:
        self.bodies.append(request.read())
        if not request.url.path.startswith("/moved"):
            location = "http://x/moved" + request.url.path + "/"
            return library.Response(self.status, headers={"location": location})
        return library.Response(200, json=CHAT | {"usage": USAGE})


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("decorated", [False, True], ids=["wrapped", "decorated and wrapped"])
def test_a_redirect_costs_nothing_and_leads_to_the_call(
    library: Any, status: int, decorated: bool
) -> None:
    """The redirected request has the body and the model; five calls are five calls."""
    held = limiter()
    server = Redirecting(status)
    http = library.Client(
        transport=library.MockTransport(lambda request: server.answer(library, request)),
        follow_redirects=True,
    )
    client = held.wrap(openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http))

    def ask(**body: Any) -> Any:
        return client.chat.completions.create(**body)

    asking = held(ask) if decorated else ask
    for _ in range(5):
        assert asking(**ASK).usage.total_tokens == 16

    assert len(server.bodies) == 10
    assert {json.loads(body)["model"] for body in server.bodies} == {"gpt-4o"}
    family = held.statistics().families["gpt-4o*"]
    assert taken(held)["gpt-4o*"][1:] == (5, 80)
    assert list(taken(held)) == ["gpt-4o*"], "no family without limits"
    assert family.refused == 0


def test_a_redirect_that_is_not_followed_costs_nothing() -> None:
    """An HTTP client hands it on by default."""
    held = limiter()
    server = Redirecting(307)
    client = held.wrap(
        httpx2.Client(transport=httpx2.MockTransport(lambda one: server.answer(httpx2, one)))
    )

    assert client.post("http://x/v1/chat/completions", json=ASK).status_code == 307
    assert taken(held)["gpt-4o*"][1:] == (0, 0)


def test_a_redirected_form_keeps_its_model() -> None:
    """A multipart body is read from its fields, the second time as well."""
    held = limiter()
    server = Redirecting(308)
    http = httpx2.Client(
        transport=httpx2.MockTransport(lambda one: server.answer(httpx2, one)),
        follow_redirects=True,
    )
    held.wrap(http).post(
        "http://x/v1/audio/transcriptions",
        data={"model": "gpt-4o-transcribe"},
        files={"file": b"sound"},
    )

    assert list(taken(held)) == ["gpt-4o*"]
    assert taken(held)["gpt-4o*"][1] == 1


# ---- errors inside a 200 ------------------------------------------------------------


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server on loopback."""
    with FakeOpenAI(rpm=100_000, tpm=10_000_000, latency=0).serve() as base_url:
        yield base_url


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ({"code": "rate_limit_exceeded", "message": "Please try again in 7s."}, 1),
        ({"type": "server_error", "message": "broken"}, 0),
    ],
)
def test_an_error_in_a_200_is_a_refusal_or_a_failure(error: Any, refused: int) -> None:
    """Counted by its code; what it used is not known."""
    held = limiter()
    wrapped(held, {"error": error}).post("/v1/chat/completions", json=ASK)
    family = held.statistics().families["gpt-4o*"]

    assert (family.admitted, family.refused, family.in_flight) == (1, refused, 0)
    assert taken(held)["gpt-4o*"][2] == 113


def test_a_wrapped_stream_without_usage_says_once_what_helps(url: str) -> None:
    """A reasoning model's text is not all that it bills: its reserve stays, and asking
    for usage is the remedy that works.
    """
    held = RateLimiter(limits=Limits(Limit("tokens", 100_000, 1e9)), arrival_slack=0)
    body: Any = ASK | {"model": "o3-mini", "max_completion_tokens": 100, "stream": True}
    del body["max_tokens"]
    reserve = held.estimate(body).prompt_tokens + 100

    def spent() -> float:
        (level,) = held.statistics().families["*"].levels.values()
        return round(100_000 - level)

    with held.wrap(openai.OpenAI(base_url=url, api_key="x")) as client:
        with pytest.warns(LimiterWarning, match="o3-mini ended without usage"):
            list(client.chat.completions.create(**body))
        assert spent() == reserve
        list(client.chat.completions.create(**body))
        assert spent() == 2 * reserve
        last = list(client.chat.completions.create(**body, stream_options={"include_usage": True}))[
            -1
        ]
        assert spent() == 2 * reserve + last.usage.total_tokens
