"""What a call really used: the token counts that an answer, a chunk, or a usage object
carries.

Owns: every provider's names for those counts, and where in an answer they are found.
Must never come in: I/O (a body that has not been read is not read here), estimates,
decisions. Never raises: an answer without usage, or with nonsense in its place, is
None. Streams are `usage.py`'s.

Names understood: Chat Completions, legacy completions and embeddings (`prompt_tokens`,
`completion_tokens`, `total_tokens`), Responses, images and audio (`input_tokens`,
`output_tokens`), Anthropic (cache reads and writes counted beside the input), Gemini
(`promptTokenCount` ...), DeepSeek (`prompt_cache_hit_tokens`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ratelimit.feedback.untrusted import MOST, amount, decoded, field

_LARGE = 65_536
"""Bytes from which on a body is not decoded whole for its usage: an embeddings answer
may be tens of megabytes of numbers.
"""

_DECODER = json.JSONDecoder()
_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count")
_TOTAL = ("total_tokens", "totalTokenCount", "total_token_count")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHED_DETAIL, _THOUGHT_DETAIL = ("cached_tokens",), ("reasoning_tokens",)
_WRITTEN = ("cache_creation_input_tokens",)
_CACHED = (
    "cache_read_input_tokens",
    "prompt_cache_hit_tokens",
    "cachedContentTokenCount",
    "cached_content_token_count",
)
_CHAT = frozenset([_PROMPT[0], _OUTPUT[0], _TOTAL[0], _PROMPT_DETAILS[0], _OUTPUT_DETAILS[0]])
_NONE: dict[str, Any] = {}
_HOLDERS = ("usage", "usage_metadata", "usageMetadata")
_WRAPPERS = ("response", "message", "x_groq", "http_response")


class Usage(NamedTuple):
    """Tokens as billed: `total_tokens` is at least `prompt_tokens` + `output_tokens`.

    `cached_tokens` are part of the prompt, `reasoning_tokens` of the output.
    `response_id` names a Response that the server may keep, else "".
    """

    prompt_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    response_id: str = ""


def read_usage(answer: object) -> Usage | None:
    """Find the usage in an answer: an SDK object, a mapping, JSON bytes or text, a read
    HTTP response, or a usage object itself.

    None when there is none, as in a stream's earlier chunks. Counts that are negative,
    not finite or beyond 1e15 are ignored.
    """
    return _within(answer, 2)


def _within(answer: object, depth: int) -> Usage | None:
    """Look at `answer`, and at what it wraps, `depth` wrappers deep."""
    if isinstance(answer, Usage):
        return answer
    if answer is None or isinstance(answer, (int, float, list, tuple)):
        return None
    if isinstance(answer, (bytes, bytearray, memoryview, str)):
        return _from_body(answer, depth)
    for name in _HOLDERS:
        holder = field(answer, name)
        if holder is not None and (found := _counts(holder)) is not None:
            named = field(answer, "id")
            return (
                found._replace(response_id=named)
                if isinstance(named, str) and named.startswith("resp_")
                else found
            )
    found = _counts(answer)
    return _from_wrapped(answer, depth - 1) if found is None and depth > 0 else found


def _from_wrapped(answer: object, depth: int) -> Usage | None:
    """Look into what wraps an answer: a Responses event, an SDK's raw response, an HTTP
    response whose body was read.
    """
    for name in _WRAPPERS:
        inner = field(answer, name)
        if not isinstance(inner, (str, bytes)) and (found := _within(inner, depth)) is not None:
            return found
    # httpx and requests keep a body that was read in _content, aiohttp in _body: their
    # public doors would read the network, or raise.
    for name in ("_content", "_body"):
        body = field(answer, name)
        if isinstance(body, bytes) and (found := _from_body(body, depth)) is not None:
            return found
    return None


def _counts(holder: object) -> Usage | None:
    """Read a usage object; None when it holds no count that can be believed."""
    if holder.__class__ is dict and (found := _chat_counts(holder)) is not None:
        return found
    look = _looker(holder)
    prompt, output, total = _first(look, _PROMPT), _first(look, _OUTPUT), _first(look, _TOTAL)
    if prompt is None and output is None and total is None:
        return None
    cached = _first(look, _CACHED)
    if cached is None:
        cached = _detail(look, _PROMPT_DETAILS, _CACHED_DETAIL)
    written = _first(look, _WRITTEN)
    if written is not None:  # Anthropic: input_tokens is what no cache has touched
        prompt = (prompt or 0) + written + (cached or 0)
    if prompt is None:
        prompt = max((total or 0) - (output or 0), 0)
    if output is None:
        output = max((total or 0) - prompt, 0)
    if total is not None and total > prompt + output:  # Gemini's thoughts are in the total only
        output = total - prompt
    thought = _detail(look, _OUTPUT_DETAILS, _THOUGHT_DETAIL)
    return Usage(
        prompt, output, prompt + output, min(cached or 0, prompt), min(thought or 0, output)
    )


def _chat_counts(holder: dict[str, Any]) -> Usage | None:
    """Read a usage of Chat Completions, as nearly all answers bring it, in one step;
    None when anything about it is unusual.
    """
    prompt, output = holder.get("prompt_tokens"), holder.get("completion_tokens")
    if prompt.__class__ is not int or output.__class__ is not int or not _CHAT.issuperset(holder):
        return None
    asked, answered = (
        holder.get("prompt_tokens_details") or _NONE,
        holder.get("completion_tokens_details") or _NONE,
    )
    if asked.__class__ is not dict or answered.__class__ is not dict:
        return None
    cached, thought = asked.get("cached_tokens") or 0, answered.get("reasoning_tokens") or 0
    if cached.__class__ is not int or thought.__class__ is not int:
        return None
    if (
        0 <= cached <= prompt <= MOST
        and 0 <= thought <= output <= MOST
        and holder.get("total_tokens") == prompt + output
    ):
        return Usage(prompt, output, prompt + output, cached, thought)
    return None


def _looker(holder: object) -> Callable[[str], object]:
    """What looks a name up in `holder`: a dozen are asked of every usage, so what kind
    of holder it is is found out once.
    """
    return holder.get if holder.__class__ is dict else partial(field, holder)


def _detail(
    look: Callable[[str], object], holders: tuple[str, ...], names: tuple[str, ...]
) -> int | None:
    """Read a count of an object inside the usage."""
    for name in holders:
        inner = look(name)
        if inner is not None and (tokens := _first(_looker(inner), names)) is not None:
            return tokens
    return None


def _first(look: Callable[[str], object], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = look(name)
        if value is None:
            continue
        if value.__class__ is int and 0 <= value <= MOST:
            return value
        if not isinstance(value, str):
            count = amount(value)
            if count is not None:
                return int(count)
    return None


def _from_body(body: bytes | bytearray | memoryview | str, depth: int) -> Usage | None:
    """Find the usage in JSON; a large body is searched from its end first, where every
    provider puts it.
    """
    if len(body) > _LARGE:
        found = tail_usage(body if isinstance(body, str) else bytes(body[-_LARGE:]))
        if found is not None:
            return found
    answer = decoded(body)
    return _within(answer, depth) if isinstance(answer, Mapping) else None


def tail_usage(tail: bytes | str, *, outermost: bool = False) -> Usage | None:
    """Find the last "usage" in the end of a JSON document, without decoding the
    beginning of it.

    A quoted key cannot occur inside a JSON string, where its quotes would be escaped,
    so what is found is a key (or a value: skipped). `outermost`: only if the document
    itself is sure to hold it: when nothing but its own bracket closes after it.
    """
    text = tail if isinstance(tail, str) else tail.decode("utf-8", "replace")
    text = text[-_LARGE:]
    end = len(text)
    for _ in range(8):
        start = text.rfind('"usage"', 0, end)
        if start < 0:
            return None
        colon = text.find("{", start, start + 16)
        if colon >= 0:
            holder: object
            try:
                holder, past = _DECODER.raw_decode(text, colon)
            except (ValueError, RecursionError):  # cut off, or not JSON
                holder, past = None, colon
            found = _counts(holder)
            if found is not None:
                return found if not outermost or text.count("}", past) == 1 else None
        end = start
    return None
