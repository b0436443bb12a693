"""What the bodies of all endpoints are made from, and the form of a streamed event.

Owns the record `Answer`, the usage of chat and Responses, and server-sent events. Must
never hold the objects of one endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ratelimit.testing.answers import words
from ratelimit.testing.charges import choices

if TYPE_CHECKING:
    from ratelimit.testing.contents import Content
    from ratelimit.testing.ledger import Usage
    from ratelimit.testing.requests import Call

__all__ = ["Answer", "Event", "Json", "chat_usage", "response_usage", "server_sent_event"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """All that the body of one answer depends on."""

    call: Call
    content: Content
    usage: Usage
    """As the body shows it."""
    output: int
    """Tokens that the choices show together."""
    identity: str
    created: int
    """Unix time."""

    def lengths(self) -> list[int]:
        """Return the tokens of every choice, as even as can be."""
        parts = choices(self.call.endpoint, self.call.body)
        return [self.output // parts + (index < self.output % parts) for index in range(parts)]

    def text(self, length: int) -> str:
        """Return the whole text of a choice.

        :param length: its tokens.
        """
        return words(0, length) if self.content.text is None else self.content.text

    def pieces(self, length: int, count: int) -> Iterator[str]:
        """Return the text of a choice in `count` pieces, some of which may be empty."""
        text = self.content.text
        for piece in range(count):
            if text is None:
                yield words(length * piece // count, length * (piece + 1) // count)
            else:
                yield text[len(text) * piece // count : len(text) * (piece + 1) // count]


class Event(NamedTuple):
    """What is sent at once of a stream."""

    share: float
    """How much of the output has to be made before, 0 to 1."""
    data: bytes
    last: bool = False
    """Whether it ends the stream, which then is settled."""


def server_sent_event(data: Mapping[str, Any], *, named: bool = False) -> bytes:
    """Return one event; a named one carries the type of its data as its name."""
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def chat_usage(usage: Usage) -> Json:
    """Return the usage of chat and legacy completions."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def response_usage(usage: Usage) -> Json:
    """Return the usage of Responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
