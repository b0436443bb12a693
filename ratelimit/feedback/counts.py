"""What a call really used: the token counts of an answer, a chunk or a usage object.

Owns every provider's names for those counts, and where in an answer they are found.
Must never do I/O (a body that has not been read is not read here), estimate or decide.
Never raises: an answer without usage, or with nonsense in its place, is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from ratelimit.feedback.answers import kept_body
from ratelimit.feedback.untrusted import LARGEST_USAGE, amount, decoded, field, text

_HOLDERS: Final = ("usage", "usage_metadata", "usageMetadata")
"""What holds the counts, in an answer."""

_WRAPPERS: Final = ("response", "message", "x_groq", "http_response", "chunk", "interaction")
"""What holds an answer: a Responses event, Anthropic's first event, Groq's last chunk,
an SDK's raw response, an event of the SDK's `chat.completions.stream`, Gemini's last
event of an interaction.
"""

_NO_NAME: Final = "ratelimit_knows_of_no_such_name"
"""What has an attribute of this name makes one of any name, as remote proxies do."""

_DEEPEST: Final = 2
"""Wrappers inside wrappers that are looked into."""

_Look: TypeAlias = Callable[[str], object]
"""Looks up a name in a usage object."""

_IMPOSSIBLE: Final = -1
"""Stands for a count that is there and cannot be."""


class Usage(NamedTuple):
    """Tokens as billed."""

    prompt_tokens: int
    output_tokens: int
    total_tokens: int
    """The sum of the two."""
    cached_tokens: int = 0
    """The part of the prompt that came from a cache."""
    reasoning_tokens: int = 0
    """The part of the output that is reasoning."""
    response_id: str = ""
    """Names a Response that the server may keep, else ""."""


class _Names(NamedTuple):
    """How one kind of server names its counts.

    A pair of names is a count in an object inside the usage.
    """

    prompt: tuple[str, ...]
    """Counts that add up to the prompt."""
    output: tuple[str, ...]
    """Counts that add up to the output."""
    total: str
    cached: tuple[str | tuple[str, str], ...] = ()
    """The part of the prompt that came from a cache; the first name that is there
    counts.
    """
    reasoning: tuple[str | tuple[str, str], ...] = ()
    """The part of the output that is reasoning; likewise."""


_SERVERS: Final = (
    _Names(  # Chat Completions, completions, embeddings; DeepSeek's cache
        ("prompt_tokens",),
        ("completion_tokens",),
        "total_tokens",
        (("prompt_tokens_details", "cached_tokens"), "prompt_cache_hit_tokens"),
        (("completion_tokens_details", "reasoning_tokens"),),
    ),
    _Names(  # Responses, images, audio; Anthropic counts its cache beside the input
        ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        ("output_tokens",),
        "total_tokens",
        ("cache_read_input_tokens", ("input_tokens_details", "cached_tokens")),
        (("output_tokens_details", "reasoning_tokens"),),
    ),
    _Names(  # Gemini
        ("promptTokenCount", "toolUsePromptTokenCount"),
        ("candidatesTokenCount", "thoughtsTokenCount"),
        "totalTokenCount",
        ("cachedContentTokenCount",),
        ("thoughtsTokenCount",),
    ),
    _Names(  # Gemini's Python SDK
        ("prompt_token_count", "tool_use_prompt_token_count"),
        ("candidates_token_count", "thoughts_token_count"),
        "total_token_count",
        ("cached_content_token_count",),
        ("thoughts_token_count",),
    ),
    _Names(  # Gemini's interactions
        ("total_input_tokens", "total_tool_use_tokens"),
        ("total_output_tokens", "total_thought_tokens"),
        "total_tokens",
        ("total_cached_tokens",),
        ("total_thought_tokens",),
    ),
    _Names(  # Bedrock's Converse
        ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        ("outputTokens",),
        "totalTokens",
        ("cacheReadInputTokens",),
    ),
)


def read_usage(answer: object) -> Usage | None:
    """Find the usage in an answer.

    None when there is none, as in a stream's earlier chunks, when every count of it is
    0, and when one of them cannot be (negative, not finite, beyond a billion): what is
    not known to be less is held in full.

    :param answer: an SDK object, a mapping, JSON bytes or text, an HTTP response with
        its body read, or a usage object itself.
    """
    return _within(answer, _DEEPEST)


def is_impossible(answer: object) -> bool:
    """Tell whether an answer has a usage of which a count cannot be."""
    for name in _HOLDERS:
        holder = field(answer, name)
        if holder is not None and _counts_impossibly(partial(field, holder)):
            return True
    return False


def _counts_impossibly(look: _Look) -> bool:
    return any(
        _IMPOSSIBLE
        in {_sum(look, names.prompt), _sum(look, names.output), _count(look(names.total))}
        for names in _SERVERS
    )


def _within(answer: object, depth: int) -> Usage | None:
    """Look at `answer`, and at what it wraps, `depth` wrappers deep."""
    if answer is None or isinstance(answer, (int, float, list, Usage)):
        return answer if isinstance(answer, Usage) else None

    if isinstance(answer, (bytes, bytearray, memoryview, str)):
        return _from_body(answer, depth)

    for name in _HOLDERS:
        holder = field(answer, name)
        found = None if holder is None else _counts(holder)
        if found is not None:
            named = text(field(answer, "id"), 200)
            return found._replace(response_id=named) if named.startswith("resp_") else found

    choices = field(answer, "choices")
    if isinstance(choices, (list, tuple)):
        return _from_choices(choices) or _from_wrapped(answer, depth - 1, ("x_groq",))

    return _counts(answer) or _from_wrapped(answer, depth - 1, _WRAPPERS)


def _from_choices(choices: Sequence[object]) -> Usage | None:
    """Find the usage that Moonshot puts into the first choice of a stream's end."""
    holder = field(choices[0], "usage") if choices else None
    return None if holder is None else _counts(holder)


def _from_wrapped(answer: object, depth: int, wrappers: tuple[str, ...]) -> Usage | None:
    """Look into what wraps an answer, unless that is too deep, or wraps anything."""
    if depth < 0 or field(answer, _NO_NAME) is not None:
        return None

    for name in wrappers:
        inner = field(answer, name)
        if isinstance(inner, (str, bytes)):
            continue
        found = _within(inner, depth)
        if found is not None:
            return found

    body = kept_body(answer)
    return None if body is None else _from_body(body, depth)


def _from_body(body: bytes | bytearray | memoryview | str, depth: int) -> Usage | None:
    """Find the usage in JSON; of a list of chunks, as Gemini streams, the last one."""
    answer = decoded(body)
    if isinstance(answer, list):
        for chunk in reversed(answer):
            found = _within(chunk, depth) if isinstance(chunk, Mapping) else None
            if found is not None:
                return found
        return None
    return _within(answer, depth) if isinstance(answer, Mapping) else None


def _counts(holder: object) -> Usage | None:
    """Read a usage object by the first server's names that it has counts of.

    A total alone is taken for the prompt's, as of embeddings.
    """
    look: _Look = holder.get if type(holder) is dict else partial(field, holder)
    alone = 0
    for names in _SERVERS:
        prompt, output = _sum(look, names.prompt), _sum(look, names.output)
        total = _count(look(names.total))
        if _IMPOSSIBLE in {prompt, output, total}:
            return None

        if prompt is None and output is None:
            alone = alone or total or 0
            continue

        found = _usage(look, names, prompt, output, total)
        if found.total_tokens > 0:
            return found
    return Usage(alone, 0, alone) if alone > 0 else None


def _usage(
    look: _Look, names: _Names, prompt: int | None, output: int | None, total: int | None
) -> Usage:
    """Make a usage of its counts.

    Where a part is missing it is what remains of the total; where the total is more
    than the parts, the rest is output (Gemini's thoughts).
    """
    if total is not None and prompt is not None and output is not None and prompt + output > total:
        first = _count(look(names.prompt[0])) or 0
        if first + output == total:  # what was cached is part of it
            prompt = first

    if prompt is None:
        prompt = max((total or 0) - (output or 0), 0)
    if output is None or (total is not None and total > prompt + output):
        output = max((total or 0) - prompt, 0)
    cached = min(_part(look, names.cached), prompt)
    reasoning = min(_part(look, names.reasoning), output)
    return Usage(prompt, output, prompt + output, cached, reasoning)


def _sum(look: _Look, names: tuple[str, ...]) -> int | None:
    """Add up the counts that are there; None where the first one is not."""
    total = _count(look(names[0]))
    if total is None or total == _IMPOSSIBLE:
        return total

    for name in names[1:]:
        more = _count(look(name))
        if more == _IMPOSSIBLE:
            return more
        total += more or 0
    return total


def _part(look: _Look, names: tuple[str | tuple[str, str], ...]) -> int:
    """Return the first count that is there, else 0."""
    for name in names:
        value = look(name) if isinstance(name, str) else field(look(name[0]), name[1])
        found = _count(value)
        if found is not None:
            return max(found, 0)
    return 0


def _count(value: object) -> int | None:
    """Read one count; None where there is none, `_IMPOSSIBLE` where it cannot be."""
    if value is None or (type(value) is int and 0 <= value <= LARGEST_USAGE):
        return value

    found = None if isinstance(value, str) else amount(value)
    if found is None or found > LARGEST_USAGE:
        return _IMPOSSIBLE
    return int(found)
