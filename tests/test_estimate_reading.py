"""Requests come as JSON, as the SDK's objects, with sentinels and generators inside,
and as garbage.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import UserDict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from openai import NOT_GIVEN
from openai.types.chat import ChatCompletionMessage

from ratelimit.errors import EstimateWarning
from ratelimit.estimate import Estimator, offload
from ratelimit.estimate.models import traits_of
from ratelimit.estimate.totals import UNREAD_TOKENS
from ratelimit.estimate.untrusted import as_count, as_mapping, as_sequence, as_str, utf8_size
from ratelimit.limits import LARGEST

USER = {"role": "user", "content": "What is the weather in Ulm today?"}


@dataclasses.dataclass
class Message:
    role: str
    content: str


class Furious(Mapping[str, object]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> object:
        raise RuntimeError(f"no {key} for you")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys for you")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("named", "body", "endpoint"),
    [
        ("chat.completions", {}, "chat.completions"),
        ("/v1/chat/completions", {"input": ""}, "chat.completions"),
        (
            "https://x.openai.azure.com/openai/deployments/a/chat/completions?api-version=1",
            {},
            "chat.completions",
        ),
        ("/v1/completions", {}, "completions"),
        ("/v1/responses", {}, "responses"),
        ("/v1/embeddings", {}, "embeddings"),
        ("/v1/images/generations", {}, "images"),
        ("/v1/audio/speech", {}, "audio"),
        ("/v1/moderations", {}, "moderations"),
        ("/v1/batches", {}, "other"),
        ("/v1/files", {}, "files"),
        ("/v1/vector_stores/vs_1/files", {}, "other"),
        ("/v1/responses/compact", {}, "responses"),
        ("audio.speech", {}, "audio"),
        ("images.generations", {}, "images"),
        ("chat.completions.create", {}, "chat.completions"),
        (None, {"messages": []}, "chat.completions"),
        (None, {"input": "Hi"}, "responses"),
        (None, {"model": "text-embedding-3-small", "input": "Hi"}, "embeddings"),
        (None, {"input": "Hi", "dimensions": 3}, "embeddings"),
        (None, {"model": "omni-moderation-latest", "input": "Hi"}, "moderations"),
        (None, {"model": "tts-1", "input": "Hi", "voice": "alloy"}, "audio"),
        (None, {"model": "whisper-1", "file": b""}, "audio"),
        (None, {"model": "gpt-4o-mini-tts", "input": "Hi"}, "audio"),
        (None, {"model": "prod", "input": ["Hi", "Ho"]}, "embeddings"),
        (None, {"model": "prod", "input": [[1, 2], [3]]}, "embeddings"),
        (None, {"model": "prod", "input": [{"role": "user", "content": "Hi"}]}, "responses"),
        (None, {"model": "nomic-embed-text", "input": "Hi"}, "embeddings"),
        (None, {"input": ["Hi"]}, "moderations"),
        (None, {"extra_body": {"input": "Hi"}}, "responses"),
        (None, {"prompt": "Hi"}, "completions"),
        (None, {"prompt": {"id": "pmpt_1"}}, "responses"),
        (None, {"model": "gpt-image-1", "prompt": "A cat"}, "images"),
        (None, {"model": "gpt-4o"}, "other"),
    ],
)
def test_the_endpoint_is_named_or_guessed(
    named: str | None, body: dict[str, Any], endpoint: str
) -> None:
    """An endpoint's name, a path or an Azure address tells the endpoint; without one
    the body's keys do.
    """
    assert Estimator().estimate(body, endpoint=named).endpoint == endpoint


@pytest.mark.parametrize(
    ("model", "name", "encoding", "reasoning", "openai"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "o200k_base", False, True),
        ("ft:gpt-4o-mini:acme::abc", "gpt-4o-mini", "o200k_base", False, True),
        ("openai/gpt-5-mini", "gpt-5-mini", "o200k_base", True, True),
        ("my-gpt5-deployment", "my-gpt5-deployment", "o200k_base", True, True),
        ("gpt-5-chat-latest", "gpt-5-chat-latest", "o200k_base", False, True),
        ("gpt-3.5-turbo", "gpt-3.5-turbo", "cl100k_base", False, True),
        ("o3", "o3", "o200k_base", True, True),
        ("o4-mini-2025-04-16", "o4-mini-2025-04-16", "o200k_base", True, True),
        ("claude-opus-4", "claude-opus-4", "o200k_base", False, False),
        ("solo1-turbo", "solo1-turbo", "o200k_base", False, False),
        ("openai/gpt-oss-120b", "gpt-oss-120b", "o200k_harmony", True, False),
        ("cerebras-gpt-13b", "cerebras-gpt-13b", "o200k_base", False, False),
        ("gpt-j-6b", "gpt-j-6b", "o200k_base", False, False),
        ("", "", "o200k_base", False, False),
    ],
)
def test_a_name_tells_the_model(
    model: str, name: str, encoding: str, reasoning: bool, openai: bool
) -> None:
    """Dates, fine-tunes, providers and deployment names are seen through; other makers'
    models are known to be foreign.
    """
    traits = traits_of(model)

    assert (traits.name, traits.encoding, traits.reasoning, traits.openai) == (
        name,
        encoding,
        reasoning,
        openai,
    )


@pytest.mark.parametrize(
    ("model", "table_name"),
    [
        ("gpt-6-sol", "gpt-5.6-sol"),
        ("openai/gpt-6.1-sol", "gpt-5.6-sol"),
        ("ft:gpt-6-mini:acme::abc", "gpt-5.6-mini"),
        ("my-gpt6", "gpt-5.6"),
        ("gpt-5.10", "gpt-5.6"),
        ("gpt-10", "gpt-5.6"),
        ("gpt-100", "gpt-5.6"),
        ("gpt-350m", "gpt-350m"),
        ("gpt-5-4-nano", "gpt-5.4-nano"),
        ("gpt-5-2025-08-07", "gpt-5-2025-08-07"),
        ("my-gpt41", "gpt-4.1"),
        ("gpt-4-1-mini", "gpt-4.1-mini"),
        ("gpt-35-turbo", "gpt-3.5-turbo"),
        ("gpt-4-1106-preview", "gpt-4-1106-preview"),
        ("gpt-4-32k", "gpt-4-32k"),
        ("gpt-oss-120b", "gpt-oss-120b"),
        ("o3-mini", "o3-mini"),
        ("mygpt6-eu", "gpt-5.6-eu"),
        ("us.openai.gpt-6-v1:0", "gpt-5.6-v1"),
        ("openai:gpt-6-sol", "gpt-5.6-sol"),
        ("chatgpt-6-latest", "gpt-5.6-latest"),
        ("my-o4-mini", "o4-mini"),
        ("o4mini-prod", "o4-mini-prod"),
        ("gpt4omini", "gpt-4o-mini"),
        ("gpt-4-o-mini", "gpt-4o-mini"),
        ("gpt41nano-eu", "gpt-4.1-nano-eu"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("gpt-4-turbo", "gpt-4-turbo"),
        ("o5", "o4-mini"),
        ("o10-mini", "o4-mini"),
        ("cerebras-gpt-13b", "cerebras-gpt-13b"),
        ("cerebras-gpt-6.7b", "cerebras-gpt-6.7b"),
    ],
)
def test_a_version_is_read_by_its_number(model: str, table_name: str) -> None:
    """Azure's spellings are OpenAI's models, and what is newer than the newest known
    one is treated like it.
    """
    assert traits_of(model).table_name == table_name


@pytest.mark.parametrize("model", ["gpt-6-astra", "gpt-6.1-sol", "gpt-7-mini", "my-gpt6"])
def test_a_newer_model_reasons_like_the_newest_known(model: str) -> None:
    """Its answer is held at what reasoning models need, its prompt is counted so."""
    body = {"messages": [USER, {"role": "assistant", "content": "Sun."}, USER]}
    newer = Estimator().estimate({"model": model, **body})
    known = Estimator().estimate({"model": "gpt-5.6", **body})

    figures = newer._replace(model="gpt-5.6", confidence="exact", basis=known.basis)

    assert figures == known
    assert newer.basis == known.basis._replace(known=False)
    assert newer.output_tokens == 1_024
    assert traits_of(model).gpt54


@pytest.mark.parametrize(
    "model", ["o4mini-prod", "o5", "o10-mini", "codex-mini-latest", "openai/gpt-oss-120b", "mygpt6"]
)
def test_a_model_that_reasons_is_known_by_its_name(model: str) -> None:
    """What a reasoning model thinks before it answers is held for, whatever number or
    deployment its name has.
    """
    made = Estimator().estimate({"model": model, "messages": [USER]})

    assert made.output_tokens == 1_024


def test_a_size_is_no_version() -> None:
    """Another maker's "gpt" with 13 billion parameters is no GPT-13."""
    made = Estimator().estimate({"model": "cerebras-gpt-13b", "messages": [USER]})

    assert made.output_tokens == 256


@pytest.mark.parametrize(
    ("deployed", "model"),
    [
        ("my-gpt-4-0613", "gpt-4-0613"),
        ("gpt-4-0613-eu", "gpt-4-0613"),
        ("prod-gpt-4-32k-0613-b", "gpt-4-32k-0613"),
        ("gpt-35-turbo-0613", "gpt-3.5-turbo-0613"),
        ("eu-o1-preview", "o1-preview"),
        ("my-gpt5-chat", "gpt-5-chat"),
        ("team-o4-mini", "o4-mini"),
        ("openai:gpt-4", "gpt-4"),
        ("openai/gpt-4:free", "gpt-4"),
        ("openai/ft:gpt-4-0613:acme::id", "gpt-4-0613"),
        ("openai:ft:gpt-6-sol-2026-09-01:acme::id", "gpt-6-sol"),
    ],
)
def test_a_deployment_costs_what_its_model_costs(deployed: str, model: str) -> None:
    """A name of the user's own before OpenAI's changes no figure."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    properties = {"zone": {"type": "string", "title": "Zone"}}
    function = {"name": "now", "description": "The time", "parameters": {"properties": properties}}
    body = {
        "messages": [USER, {"role": "user", "content": [picture]}],
        "tools": [{"type": "function", "function": function}],
    }
    made = Estimator().estimate({"model": deployed, **body})

    assert made._replace(model=model) == Estimator().estimate({"model": model, **body})


def test_generations_differ() -> None:
    """What a model is shown of tools and calls changed with gpt-4's first update, gpt-5
    and gpt-5.4.
    """
    assert [
        traits_of(model).early for model in ("gpt-4", "gpt-4-0613", "gpt-4-turbo", "gpt-4o")
    ] == [
        True,
        True,
        False,
        False,
    ]
    assert [
        traits_of(model).gpt54 for model in ("gpt-5", "gpt-5.1", "gpt-5.4-nano", "gpt-5.6")
    ] == [
        False,
        False,
        True,
        True,
    ]


def test_objects_of_the_sdk_are_read_once_dumped() -> None:
    """A message of an earlier answer, put back in the list, counts as its JSON does; so
    do mappings and dataclasses.
    """
    said = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
            ],
        }
    )
    result = {"role": "tool", "tool_call_id": "1", "content": "noon"}
    estimator = Estimator()
    plain = estimator.estimate({"messages": [USER, said.model_dump(), result]})

    assert estimator.estimate({"messages": (UserDict(USER), said, UserDict(result))}) == plain
    assert estimator.estimate({"messages": [Message(**USER)]}) == estimator.estimate(
        {"messages": [USER]}
    )


def test_sentinels_count_as_absent() -> None:
    """What the SDK writes for "not given" is not given."""
    bare = Estimator().estimate({"model": "gpt-4o", "messages": [USER]})
    keys = (
        "tools",
        "tool_choice",
        "response_format",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "functions",
        "stop",
    )

    assert (
        Estimator().estimate(
            {"model": "gpt-4o", "messages": [USER], **dict.fromkeys(keys, NOT_GIVEN)}
        )
        == bare
    )


def test_an_unreadable_request_is_a_guess_and_one_warning() -> None:
    """A request that raises when it is read has an estimate all the same, and the
    warning is given once a kind.
    """
    estimator = Estimator()
    with pytest.warns(EstimateWarning, match="no .* for you") as caught:
        first = estimator.estimate(Furious(), site="here")

    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimator.estimate(Furious(), site="here") == first
    assert (first.confidence, first.endpoint, first.basis.site) == ("guess", "other", "here")
    assert first.prompt_tokens == first.charge == UNREAD_TOKENS
    assert estimator.statistics().warnings == ("unreadable:RuntimeError",)


@pytest.mark.parametrize("model", ["gpt-6-sol", "openai/gpt-6.1-sol-2026-09-01", "o5-mini"])
def test_a_model_without_a_recorded_call_is_never_exact(model: str) -> None:
    """What is newer than the newest known model is taken to be like it, which no bill
    has shown.
    """
    for body in ({"messages": [USER]}, {"input": "Hi"}):
        assert Estimator().estimate({"model": model, **body}).confidence == "formula"


def test_a_context_that_the_server_may_shorten_is_not_exact() -> None:
    """Bills of calls that let the server compact them are a few tokens off."""
    managed = {"context_management": [{"type": "compaction", "compact_threshold": 1_000}]}
    bare = {"model": "gpt-4.1", "input": "Hi"}

    assert Estimator().estimate(bare).confidence == "exact"
    assert Estimator().estimate({**bare, **managed}).confidence == "formula"


def test_confidence_says_where_a_figure_comes_from() -> None:
    """Plain messages of OpenAI's models are exact, tools a formula, foreign models a
    guess.
    """
    estimator = Estimator()

    assert estimator.estimate({"model": "gpt-4o", "messages": [USER]}).confidence == "exact"
    assert (
        estimator.estimate(
            {"model": "gpt-4o", "messages": [USER], "functions": [{"name": "now"}]}
        ).confidence
        == "formula"
    )
    assert estimator.estimate({"model": "qwen-max", "messages": [USER]}).confidence == "guess"


def test_the_kind_names_what_a_prompt_holds() -> None:
    """What is learned about pictures elsewhere with tools is not mixed with what is
    learned about texts, nor about pictures that show their size.
    """
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    body = {"messages": [{"role": "user", "content": [part]}], "functions": [{"name": "now"}]}

    assert Estimator().estimate({"messages": [USER]}).basis.kind == "text"
    assert Estimator().estimate(body).basis.kind == "images+remote+tools"


def test_only_uncounted_text_is_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is worth a thread for text that is not counted yet: not twice, not for
    pictures, but while a vocabulary is unloaded.
    """
    estimator = Estimator()
    long = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "sunny " * 10_000}, {**USER}],
    }
    picture = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {"url": "data:image/png;base64," + "A" * 99_999},
                    }
                ],
            }
        ]
    }
    estimator.estimate({"model": "gpt-4o", "messages": [USER]})

    assert estimator.needs_thread(long)
    estimator.estimate(long)
    assert not estimator.needs_thread(long)
    assert not estimator.needs_thread(picture)
    assert not estimator.needs_thread({"messages": [USER] * 100})
    assert estimator.needs_thread({"messages": [USER] * 10_000})
    assert estimator.needs_thread({"messages": [Message("user", "cloudy " * 10_000)]})
    assert estimator.needs_thread({"model": "text-embedding-3-small", "input": [[1] * 20_000]})
    assert not estimator.needs_thread(None)
    monkeypatch.setattr(offload, "is_ready", lambda encoding: encoding == "nothing")
    assert estimator.needs_thread({"messages": [USER]})


def test_an_unreadable_request_is_heavy() -> None:
    """What cannot be read is left to a thread, where it can block nobody."""
    with pytest.warns(EstimateWarning):
        assert Estimator().needs_thread(Furious())


def test_text_of_a_stream_is_counted() -> None:
    """What a broken stream has said so far is counted in its model's encoding."""
    assert Estimator().count_text("Hello world", "gpt-4o") == 2


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (3.9, 3),
        (0, 0),
        (-5, 0),
        (True, None),
        ("3", None),
        (None, None),
        (math.nan, None),
        (math.inf, LARGEST),
        (10**400, LARGEST),
    ],
)
def test_counts_are_tamed(value: object, number: int | None) -> None:
    """A count is a whole number that is not negative and not absurd; what is no number
    is none.
    """
    assert as_count(value) == number


def test_each_question_has_an_empty_answer() -> None:
    """An object, a list and a text are themselves; anything else is the empty one."""
    nothing: tuple[object, ...] = (None, "a", 3, [1], object(), Message)

    assert as_mapping({"a": 1}) == {"a": 1}
    assert [dict(as_mapping(value)) for value in nothing] == [{}] * 6
    assert as_sequence((1, 2)) == (1, 2)
    assert [list(as_sequence(value)) for value in (None, "ab", {"a": 1}, iter([1]))] == [[]] * 4
    assert [as_str(value) for value in ("a", b"a", None, 3)] == ["a", "a", "", ""]
    assert utf8_size("aä€😀") == 10
    assert utf8_size("\ud800") == 3
