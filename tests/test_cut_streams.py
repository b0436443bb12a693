"""A stream whose server breaks off in silence keeps its reserve by every door."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import RateLimiter
from ratelimit.feedback import StreamUsage
from ratelimit.testing import ThreadClock

pytestmark = pytest.mark.usefixtures("vocabulary")

BODY: dict[str, Any] = {
    "model": "gpt-4o-2024-11-20",  # what is warned once of a model is warned here
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 800,
}
RESERVED = 808
USED = {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40}


def words(usage: Any = None) -> list[Any]:
    """Make the first five chunks of a chat."""
    return [
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o",
            "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
            "usage": usage,
        }
        for _ in range(5)
    ]


def spent(held: RateLimiter) -> float:
    """Tokens that are held or used; nothing may be in flight any more."""
    family = held.statistics().families["*"]
    assert family.in_flight == 0
    return 10_000 - family.levels["tokens/60s"]


def read(chunks: list[Any], *, wrapped: bool, done: bool = False) -> float:
    """Stream these chunks to the end of the connection; return the tokens taken."""
    held = RateLimiter(rpm=100, tpm=10_000, arrival_slack=0, clock=ThreadClock())
    lines = [*map(json.dumps, chunks), *(["[DONE]"] if done else [])]
    content = "".join(f"data: {line}\n\n" for line in lines)

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, text=content, headers={"content-type": "text/event-stream"})

    http_client = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(api_key="none", base_url="http://x/v1", http_client=http_client)
    ask = client.chat.completions.create
    ask = held.wrap(client).chat.completions.create if wrapped else held(ask)
    assert len(list(ask(stream=True, **BODY))) == len(chunks)
    return spent(held)


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrap", "decorator"])
@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(None, marks=pytest.mark.logs("(returned no|without) usage"), id="texts"),
        pytest.param(USED, id="usage with every chunk"),
    ],
)
def test_a_chat_that_ends_without_its_last_word_keeps_its_reserve(
    *, wrapped: bool, usage: Any
) -> None:
    """A proxy that closes the connection after five words says nothing of the bill."""
    assert read(words(usage), wrapped=wrapped) == RESERVED


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrap", "decorator"])
def test_a_chat_that_ends_in_its_usage_settles_by_it(*, wrapped: bool) -> None:
    """Some servers send the usage and no finish reason before it."""
    chunks = [*words(), words(USED)[0] | {"choices": []}]

    assert read(chunks, wrapped=wrapped) == 40


def test_a_chat_that_is_said_to_be_done_settles_by_its_text() -> None:
    """The mark of the end is a last word as well, where it is seen."""
    assert read(words(), wrapped=True, done=True) < 30


@pytest.mark.parametrize(
    ("events", "cut"),
    [
        ([{"type": "message_start", "message": {"usage": {"input_tokens": 9}}}], True),
        ([{"type": "message_start", "message": {}}, {"type": "message_stop"}], False),
        ([{"type": "response.created"}, {"type": "response.output_text.delta"}], True),
        ([{"type": "response.created"}, {"type": "response.incomplete"}], False),
        ([{"type": "transcript.text.delta", "delta": "a"}], False),
        ([{"candidates": [], "usageMetadata": {"promptTokenCount": 5}}], False),
        ([{"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}], False),
        ([{"choices": []}], False),
        ([], False),
    ],
)
def test_whether_a_stream_lacks_its_last_word(events: list[Any], cut: bool) -> None:
    """Only a form with a known last word can lack it."""
    stream = StreamUsage()
    for event in events:
        stream.feed(event)

    assert stream.is_cut is cut
