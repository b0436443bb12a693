"""Lists of every kind are read, and what cannot be read is guessed on the safe side.

The SDK takes any iterable where the API has a list, and merges `extra_body` into the
body.
"""

from __future__ import annotations

import collections
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import EstimateWarning
from ratelimit.estimate import Estimate, Estimator
from ratelimit.limits import LARGEST

USER = {"role": "user", "content": "What is the weather in Ulm today?"}
TOOL = {"type": "function", "function": {"name": "now", "description": "The time of day"}}
PARTS = [{"type": "text", "text": "What is the weather in Ulm today?"}]
BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "messages": ({"messages": [USER, USER]}, "messages"),
    "tools": ({"messages": [USER], "tools": [TOOL]}, "tools"),
    "functions": ({"messages": [USER], "functions": [TOOL["function"]]}, "functions"),
    "input items": ({"input": [USER, USER]}, "input"),
    "input tools": ({"input": "Hi", "tools": [{**TOOL, "name": "now"}]}, "tools"),
    "embedded texts": ({"model": "text-embedding-3-small", "input": ["one", "two"]}, "input"),
    "embedded ids": ({"model": "text-embedding-3-small", "input": [1, 2, 3]}, "input"),
    "moderated texts": ({"model": "omni-moderation-latest", "input": ["one", "two"]}, "input"),
    "prompts": ({"model": "davinci-002", "prompt": ["one", "two"]}, "prompt"),
}
LISTS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "deque": collections.deque,
    "UserList": collections.UserList,
    "view": lambda items: dict(enumerate(items)).values(),
}


async def stream() -> AsyncIterator[object]:
    """Yield a message to a reader that awaits it."""
    yield USER


def once(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items to the first reader."""
    yield from items


ONCE: dict[str, Callable[[list[Any]], Any]] = {
    "generator": once,
    "iterator": iter,
    "map": lambda items: map(dict, items),
    "zip": zip,
    "async generator": lambda _items: stream(),
}


def estimate(body: dict[str, Any]) -> Estimate:
    """Estimate a body, for gpt-4o when it names no model."""
    return Estimator().estimate({"model": "gpt-4o", **body})


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("name", BODIES)
def test_every_collection_is_a_list(name: str, kind: str) -> None:
    """What can be read again and again costs what a list of the same items costs."""
    body, field = BODIES[name]

    assert estimate({**body, field: LISTS[kind](body[field])}) == estimate(body)


@pytest.mark.parametrize("kind", LISTS)
def test_parts_come_in_every_collection(kind: str) -> None:
    """The parts of a content are a list of the same kind."""
    message = {"role": "user", "content": LISTS[kind](PARTS)}

    assert estimate({"messages": [message]}) == estimate({"messages": [USER]})
    assert estimate({"input": [message]}) == estimate({"input": [USER]})


@pytest.mark.parametrize("kind", ONCE)
@pytest.mark.parametrize("name", BODIES)
def test_what_can_be_read_once_is_a_guess(name: str, kind: str) -> None:
    """Nothing is consumed, the figure is on the safe side and no "exact" one, and one
    warning says what would help.
    """
    body, field = BODIES[name]
    with pytest.warns(EstimateWarning, match=f"`{field}` are guessed .* Pass a list") as caught:
        guessed = estimate({**body, field: ONCE[kind](body[field])})

    assert len(caught) == 1
    assert guessed.confidence == "guess"
    assert guessed.prompt_tokens >= 2_000
    assert guessed.charge >= estimate(body).charge


def test_a_generator_is_left_for_the_call() -> None:
    """Messages that can be read only once are as they were."""
    messages = once([USER])
    with pytest.warns(EstimateWarning):
        estimate({"messages": messages})

    assert next(messages) is USER


def test_content_that_can_be_read_once_is_a_guess() -> None:
    """A message keeps its price, and its parts are guessed."""
    message = {"role": "user", "content": once(PARTS)}
    with pytest.warns(EstimateWarning, match="`content` are guessed"):
        guessed = estimate({"messages": [USER, message]})

    assert guessed.prompt_tokens > estimate({"messages": [USER]}).prompt_tokens + 2_000


def test_calls_that_can_be_read_once_are_a_guess() -> None:
    """The tool calls of an answer are no different."""
    said = {"role": "assistant", "content": None, "tool_calls": once([])}
    with pytest.warns(EstimateWarning, match="`tool_calls` are guessed"):
        guessed = estimate({"messages": [USER, said]})

    assert guessed.confidence == "guess"
    assert guessed.prompt_tokens > 2_000


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "What is the weather in Ulm today?")],
        [["user", "What is the weather in Ulm today?"]],
        [tuple(USER.items())],
        ["What is the weather in Ulm today?"],
        "What is the weather in Ulm today?",
        USER,
    ],
    ids=["pairs", "lists", "items", "texts", "text", "message"],
)
def test_messages_of_a_framework_are_read_by_their_texts(messages: object) -> None:
    """What a framework takes for messages costs at least its texts, and is a guess
    unless it is a message.
    """
    guessed = estimate({"messages": messages})

    assert guessed.prompt_tokens >= estimate({"messages": [USER]}).prompt_tokens - 1
    assert guessed.confidence == ("exact" if messages is USER else "guess")


class Prompt:
    """An object of which nothing is known."""


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": Prompt()}, "messages"),
        ({"messages": [Prompt()]}, "content"),
        ({"messages": [{"role": "user", "content": Prompt()}]}, "content"),
        ({"messages": [{"role": "user", "content": [Prompt()]}]}, "content"),
        ({"input": Prompt()}, "input"),
        ({"input": [Prompt()]}, "content"),
        ({"model": "text-embedding-3-small", "input": Prompt()}, "input"),
        ({"model": "davinci-002", "prompt": Prompt()}, "prompt"),
    ],
)
def test_an_unknown_object_is_a_guess(body: dict[str, Any], field: str) -> None:
    """An object where a body needs content stands for some, not for none."""
    with pytest.warns(EstimateWarning, match=f"`{field}` are guessed"):
        guessed = estimate(body)

    assert guessed.confidence == "guess"
    assert guessed.prompt_tokens >= 2_000


def test_a_container_that_promises_too_much_is_a_guess() -> None:
    """A range of a billion items is not read into memory."""
    with pytest.warns(EstimateWarning, match="`input` are guessed"):
        guessed = estimate({"model": "text-embedding-3-small", "input": range(10**9)})

    assert guessed.confidence == "guess"


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({"messages": [USER]}, {"max_tokens": 77}),
        ({"messages": [USER]}, {"tools": [TOOL], "n": 3}),
        ({"messages": [USER], "max_tokens": 5}, {"max_tokens": 700}),
        ({}, {"messages": [USER], "model": "gpt-4"}),
        ({}, {"input": "Hi", "instructions": "Be brief."}),
        ({"input": "Hi"}, {"encoding_format": "float", "model": "text-embedding-3-small"}),
    ],
)
def test_extra_body_is_the_body(body: dict[str, Any], extra: dict[str, Any]) -> None:
    """What the SDK merges into the body costs what it costs there, and wins over it."""
    assert estimate({**body, "extra_body": extra}) == estimate({**body, **extra})
    assert Estimator().needs_thread({**body, "extra_body": {"messages": [USER] * 20_000}})


def test_what_is_no_part_of_the_body_costs_nothing() -> None:
    """Headers, query and timeout of the SDK's methods are not sent in the body."""
    beside = {
        "extra_headers": {"input": "x" * 9_000, "voice": "alloy"},
        "extra_query": {"messages": [USER] * 50, "n": 9},
        "timeout": 3.0,
        "extra_body": None,
    }

    for body in ({"messages": [USER]}, {"input": "Hi"}, {"prompt": "a cat", "size": "8x8"}):
        assert estimate({**body, **beside}) == estimate(body)


class Endless(collections.UserDict[str, object]):
    """A mapping that never ends, and lies about its length."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        while True:
            yield "content"


class Angry:
    """An object that raises at every question."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __len__(self) -> int:
        raise ZeroDivisionError


def forever() -> Iterator[object]:
    """Yield without end."""
    while True:
        yield USER


MAKERS: list[Callable[[], object]] = [
    forever,
    stream,
    Endless,
    Angry,
    Prompt,
    object,
    lambda: range(10**12),
    lambda: b"x",
    lambda: 10**400,
    lambda: float("nan"),
    lambda: "\ud800\udfff",
    lambda: {1, 2},
    lambda: str,
    lambda: memoryview(b"x"),
]
HOSTILE = st.sampled_from(MAKERS).map(lambda make: make())
FIELDS = st.sampled_from(
    [
        *("model", "messages", "input", "prompt", "tools", "functions", "instructions", "text"),
        *("response_format", "text_format", "extra_body", "n", "max_tokens", "best_of", "role"),
        *("content", "type", "name", "tool_calls", "function_call", "function", "parameters"),
        *("properties", "items", "enum", "anyOf", "$ref", "arguments", "output", "image_url"),
        *("url", "file", "file_data", "input_audio", "conversation", "voice", "reasoning"),
        *("custom", "format", "definition", "source", "data", "refusal", "summary", "documents"),
        *("encrypted_content", "namespace", "reasoning_content", "variables", "suffix"),
    ]
)
WORDS = st.sampled_from(
    [
        *("user", "assistant", "tool", "function", "message", "object", "array", "json_schema"),
        *("gpt-4o", "gpt-5.4", "o1-preview", "text-embedding-3-small", "input_image", "#/items"),
        *("function_call", "function_call_output", "data:image/png;base64,iVBORw0KGgo=", ""),
        *("custom_tool_call", "custom_tool_call_output", "custom", "namespace", "web_search"),
        *("compaction", "web_search_call", "image", "video_url", "file", "unheard-of"),
        *("data:application/pdf;base64,JVBERi0xLjcK", "/v1/rerank"),
    ]
)
VALUES = st.recursive(
    HOSTILE | WORDS | st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(collections.deque)
        | st.lists(inner, max_size=4).map(iter)
        | st.dictionaries(FIELDS, inner, max_size=5)
    ),
    max_leaves=20,
)
ENDPOINTS = st.sampled_from(
    [
        *(None, "chat.completions", "responses", "embeddings", "completions", "moderations"),
        *("images", "audio", "files", "/v1/responses", "/v1/rerank", "\ud800"),
    ]
)


@pytest.mark.parametrize("field", ["n", "best_of", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("endpoint", ["chat.completions", "completions", "images"])
def test_no_count_in_a_body_is_beyond_what_a_limit_counts(field: str, endpoint: str) -> None:
    """Any estimate can be taken, settled and summed up."""
    body = {"model": "gpt-4o", "prompt": "Hi", "messages": [], "max_tokens": 1e15, field: 1e300}
    estimate = Estimator().estimate(body, endpoint=endpoint)

    amounts = [one for one in estimate if isinstance(one, int)]
    assert min(amounts) >= 0
    assert max(amounts) <= LARGEST


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(FIELDS, VALUES, max_size=6) | VALUES, ENDPOINTS)
def test_no_body_raises_or_hangs(body: object, endpoint: str | None) -> None:
    """Whatever is given for a request, the answer is an estimate of whole numbers."""
    estimator = Estimator()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = estimator.estimate(body, endpoint=endpoint)
        needs_thread = estimator.needs_thread(body)

    amounts = (result.prompt_tokens, result.output_tokens, result.charge, result.choices)
    assert [type(amount) for amount in amounts] == [int] * 4
    assert min(amounts) >= 0
    assert type(needs_thread) is bool
