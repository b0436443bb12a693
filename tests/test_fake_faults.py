"""Injected failures, the ledger, and the small forms: durations, words, the pytest
fixture.
"""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.errors import InvalidArgument
from ratelimit.testing import FakeOpenAI, Fault
from ratelimit.testing.answers import words
from ratelimit.testing.faults import FaultKind
from ratelimit.testing.headers import duration

pytest_plugins = ["pytester"]


def ask(api: openai.OpenAI, *, stream: bool = False) -> object:
    """One call, a stream read to its end."""
    answer = api.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=stream, max_tokens=9
    )
    return list(answer) if isinstance(answer, openai.Stream) else answer


@pytest.mark.parametrize(
    ("kind", "error", "status", "charged"),
    [
        ("429", openai.RateLimitError, 429, False),
        ("quota", openai.RateLimitError, 429, False),
        ("slow_down", openai.RateLimitError, 429, False),
        ("flex", openai.RateLimitError, 429, False),
        ("500", openai.InternalServerError, 500, True),
        ("503", openai.InternalServerError, 503, True),
        ("broken_stream", openai.InternalServerError, 500, True),
        ("drop", openai.APIConnectionError, 0, True),
    ],
)
def test_a_fault_hits_the_next_call_and_no_other(
    kind: FaultKind, error: type[Exception], status: int, charged: bool
) -> None:
    """The client sees the error, the ledger records it, and the call after it succeeds;
    refusals before the buckets cost nothing.
    """
    server = FakeOpenAI("I", latency=0)
    server.inject(kind, count=1)
    with server.serve() as url, openai.OpenAI(base_url=url, api_key="x", max_retries=0) as api:
        with pytest.raises(error) as seen:
            ask(api)
        ask(api)

    first, second = server.ledger
    assert (first.status, first.reason, first.admitted, first.charge > 0) == (
        status,
        kind,
        charged,
        charged,
    )
    assert (second.status, second.reason) == (200, "")
    if kind == "429":
        headers = seen.value.response.headers  # type: ignore[attr-defined]
        assert not [name for name in headers if "ratelimit" in name or "retry" in name]


def test_a_retry_of_the_sdk_is_an_attempt_of_its_own() -> None:
    """The ledger has every attempt with the header that counts them."""
    server = FakeOpenAI("I", latency=0, faults=[Fault("500", count=1), Fault("drop", count=1)])
    with server.serve() as url, openai.OpenAI(base_url=url, api_key="x", max_retries=2) as api:
        ask(api)

    assert [entry.status for entry in server.ledger] == [500, 0, 200]
    assert [entry.headers["x-stainless-retry-count"] for entry in server.ledger] == ["0", "1", "2"]


@pytest.mark.parametrize("endpoint", ["chat.completions", "responses"])
def test_a_broken_stream_fails_inside_its_200(endpoint: str) -> None:
    """The stream starts well and ends with an error event; its usage is never sent."""
    server = FakeOpenAI(latency=0, faults=[Fault("broken_stream")])
    with server.serve() as url, openai.OpenAI(base_url=url, api_key="x", max_retries=0) as api:
        if endpoint == "responses":
            events = list(api.responses.create(model="m", input="hi", stream=True))

            assert [event.type for event in events][-1] == "response.failed"
        else:
            with pytest.raises(openai.APIError, match="had an error"):
                ask(api, stream=True)

    assert (server.ledger[0].status, server.ledger[0].reason, server.ledger[0].usage) == (
        200,
        "broken_stream",
        None,
    )


def test_a_slow_answer_is_an_answer() -> None:
    """`slow` adds its seconds and nothing else."""
    server = FakeOpenAI(latency=0, faults=[Fault("slow", count=1, seconds=0.05)])
    with server.serve() as url, openai.OpenAI(base_url=url, api_key="x") as api:
        ask(api)

    entry = server.ledger[0]
    assert entry.status == 200
    assert (entry.ended or 0) - entry.time >= 0.05


def test_probable_faults_are_the_same_for_the_same_seed() -> None:
    """Faults by probability hit about their share, reproducibly, only their endpoint,
    and end with heal().
    """

    async def play(server: FakeOpenAI) -> None:
        http = httpx2.AsyncClient(transport=server.transport(), base_url="http://fake/v1")
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(60):
            await http.post("/chat/completions", json=body)
        server.heal()
        await http.post("/chat/completions", json=body)

    def statuses(seed: int) -> list[int | None]:
        server = FakeOpenAI("I", latency=0, seed=seed)
        server.inject("500", probability=0.3, endpoint="chat.completions")
        server.inject("503", endpoint="embeddings")
        asyncio.run(play(server))
        return [entry.status for entry in server.ledger]

    first = statuses(1)

    assert 8 <= first.count(500) <= 28
    assert 503 not in first
    assert first[-1] == 200
    assert first == statuses(1)
    assert first != statuses(2)


@pytest.mark.parametrize(
    "arguments",
    [{"kind": "oops"}, {"count": 0}, {"probability": 0}, {"probability": 1.1}, {"seconds": -1}],
)
def test_a_fault_that_cannot_be_is_refused(arguments: dict[str, object]) -> None:
    """Unknown kinds, counts below one and shares outside (0, 1] say so at once."""
    with pytest.raises(InvalidArgument, match="fault"):
        Fault(**{"kind": "500", **arguments})  # type: ignore[arg-type]


def test_the_ledger_forgets_when_told() -> None:
    """After clear() only new entries are there, numbered on."""
    server = FakeOpenAI("I", latency=0)
    with server.serve() as url, openai.OpenAI(base_url=url, api_key="x") as api:
        ask(api)
        server.ledger.clear()
        ask(api)

    assert [entry.number for entry in server.ledger] == [1]
    assert repr(server.ledger) == "<Ledger: 1 admitted, 0 refused>"
    assert server.ledger.admitted == [server.ledger[0]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0009, "0s"),
        (0.012, "12ms"),
        (1.001, "1.001s"),
        (1.31, "1.31s"),
        (8.64, "8.64s"),
        (60, "1m0s"),
        (100.31, "1m40.31s"),
        (360, "6m0s"),
        (4105.745, "1h8m25.745s"),
        (299439.057, "83h10m39.057s"),
        (-1, "0s"),
    ],
)
def test_durations_have_the_recorded_form(seconds: float, text: str) -> None:
    """Milliseconds below a second, then Go's form without trailing zeros."""
    assert duration(seconds) == text


@given(start=st.integers(0, 9_000), length=st.integers(0, 9_000))
def test_answers_have_as_many_words_as_tokens(start: int, length: int) -> None:
    """Any stretch of the endless text has exactly its number of words, and joins with
    its neighbours.
    """
    text = words(start, start + length)

    assert len(text.split()) == length
    assert words(0, start) + text == words(0, start + length)


def test_the_fixture_serves_and_forgets(pytester: pytest.Pytester) -> None:
    """The plugin's fixture starts servers with any arguments and stops them after the
    test.
    """
    pytester.makepyfile(
        """
        import pathlib
        import httpx2
        import pytest
        pytest_plugins = ["ratelimit.testing.plugin"]

        def test_it(fake_openai):
            server, url = fake_openai("I", rpm=1, latency=0)
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            answers = [httpx2.post(f"{url}/chat/completions", json=body) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 429]
            assert len(server.ledger.refused) == 1
            pathlib.Path("url").write_text(url)

        def test_stopped():
            with pytest.raises(httpx2.ConnectError):
                httpx2.get(pathlib.Path("url").read_text() + "/models")
        """
    )

    pytester.runpytest_inprocess().assert_outcomes(passed=2)
