"""What the server's token limiter takes when a call arrives.

Owns the recorded rules, written a second time on purpose: the limiter predicts them on
its own, and a mistake in one of the two shows as a difference. Must never import
`ratelimit.estimate`, hold a bucket, or compute what a call is billed (that is
`answers`; only the Responses rule builds on it).

Source: 4,564 recorded chat admissions of 2025-03-20 and later (within {0, +1} on 99.2
%), 4,385 of the year before (98.7 %), 68 legacy completions, 396 embeddings, and the
Responses rows of the same recordings. U is the UTF-8 length of all text content of all
messages, M the number of messages, n the number of choices, max the body's `max_tokens`
(16 when absent; `max_completion_tokens` was never charged; servers with the rule
"whole" charge any bound).

    chat         ceil(U / 4) + M + 765 * (images + files) + n
                 until 2025-03-19: n * max in place of n
    completions  floor(U / 4) + n * prompts
                 until 2025-03-19: n * max * prompts in place of n * prompts
    embeddings   floor(U / 4); of token arrays their length
    responses    input tokens + hidden prompt, or 765 * images
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ratelimit.testing.variants import ChargeRule

__all__ = ["Charge", "charge", "choices", "most_output"]

Body = Mapping[str, Any]

PER_IMAGE: Final = 765
"""Tokens charged for a picture or a file of whatever size."""
ABSENT_MAX: Final = 16
"""Tokens charged for the answer when the body sets no bound."""

_HIDDEN: Final = {
    "": (19, 217),
    "gpt-4o": (19, 217),
    "gpt-4.1": (19, 217),
    # With tools: 490 until 2025-12, 496 in five rows of 2026-08.
    "gpt-5": (217, 496),
    # With tools: 449 until 2026-05, 455 since 2026-07.
    "gpt-5.4": (163, 455),
    "gpt-5.5": (163, 455),
    # 143 in seven recorded rows; with tools none is recorded, so the difference is that
    # of its neighbours.
    "gpt-5.6": (143, 435),
    "o4-mini": (207, 264),
    "o3-mini": (61, 61),
    "gpt-3.5": (5, 5),
    "gpt-4": (5, 5),
}
"""Tokens of the prompt that Responses puts before the input, without and with a
function tool. The longest prefix of the model's name counts.
"""
_HIDDEN_BY_LENGTH: Final = sorted(_HIDDEN, key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call takes at admission."""

    tokens: int
    output: int = 0
    """How many of the tokens stand for the answer."""
    images: int = 0


def charge(endpoint: str, body: Body, rule: ChargeRule, prompt_tokens: Callable[[], int]) -> Charge:
    """Return the admission charge of `body`.

    :param prompt_tokens: returns the billed input; called only where the rule builds
        on it.
    """
    tokens, images = _input(endpoint, body, prompt_tokens)
    choice_count = choices(endpoint, body)
    bound = (
        most_output(body) if rule == "whole" or endpoint == "responses" else body.get("max_tokens")
    )
    most = choice_count * (bound if isinstance(bound, int) and bound > 0 else ABSENT_MAX)
    if rule == "nothing" or endpoint not in {"chat.completions", "responses", "completions"}:
        return Charge(0 if rule == "nothing" else tokens, images=images)
    if rule == "input":
        return Charge(tokens + (0 if endpoint == "responses" else choice_count), images=images)
    return Charge(max(tokens, most) if rule == "larger" else tokens + most, most, images)


def choices(endpoint: str, body: Body) -> int:
    """Return how many answers the body asks for.

    That is n, times the number of prompts for legacy completions.
    """
    count = body.get("n")
    count = count if isinstance(count, int) and count > 0 else 1
    if endpoint == "completions":
        return count * len(_prompts(body))
    return count if endpoint == "chat.completions" else 1


def most_output(body: Body) -> int | None:
    """Return the most tokens one choice may have, None without a bound."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        value = body.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _input(endpoint: str, body: Body, prompt_tokens: Callable[[], int]) -> tuple[int, int]:
    """Return the tokens taken for the input alone, and the number of its pictures."""
    match endpoint:
        case "chat.completions":
            messages = body.get("messages")
            messages = messages if isinstance(messages, list) else []
            size, attached = _measure(messages)
            images = sum(attached.values())
            return -(-size // 4) + len(messages) + PER_IMAGE * images, attached["image"]
        case "responses":
            given = body.get("input")
            images = _measure(given if isinstance(given, list) else [])[1]["image"]
            return (PER_IMAGE * images if images else prompt_tokens() + hidden_prompt(body)), images
        case "completions":
            return sum(_bytes_or_tokens(prompt) for prompt in _prompts(body)) // 4, 0
        case "embeddings":
            return sum(_bytes_or_tokens(text) for text in _prompts(body, "input")) // 4, 0
        case _:
            return 0, 0


def hidden_prompt(body: Body) -> int:
    """Return the tokens before the input of Responses, charged but not billed."""
    model = str(body.get("model", ""))
    tools = body.get("tools")
    with_tools = isinstance(tools, list) and any(
        isinstance(tool, Mapping) and tool.get("type") == "function" for tool in tools
    )
    return next(_HIDDEN[prefix] for prefix in _HIDDEN_BY_LENGTH if model.startswith(prefix))[
        with_tools
    ]


def _prompts(body: Body, name: str = "prompt") -> Sequence[Any]:
    """Return the prompts or inputs of a body as a list.

    A string is one prompt, and so is a list of token numbers.
    """
    given = body.get(name)
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [given]


def _bytes_or_tokens(text: object) -> int:
    """Return a text's bytes.

    Token numbers count four bytes each, so that a fourth of the sum is their number.
    """
    if isinstance(text, str):
        return _size(text)
    return 4 * len(text) if isinstance(text, list) else 0


def _measure(messages: Sequence[Any]) -> tuple[int, dict[str, int]]:
    """Return the bytes of the text of messages or input items, and what they carry.

    The second value has the number of pictures and of files.
    """
    size, attached = 0, {"image": 0, "file": 0}
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            size += _size(content)
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind in ("image_url", "input_image"):
                attached["image"] += 1
            elif kind in ("file", "input_file"):
                attached["file"] += 1
            elif kind is not None and isinstance(part.get("text"), str):
                size += _size(part["text"])
    return size, attached


def _size(text: str) -> int:
    """Return UTF-8 bytes; a lone surrogate is three, as most servers decode it."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
