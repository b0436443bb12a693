"""How many tokens a prompt is billed.

Owns the server's own count and its vocabulary, and what the prompt cache holds. Must
never import `ratelimit.estimate`: the limiter's estimates are judged by this count.

Tools, schemas and pictures are not counted; a workload with those passes its own
counter or sends `x-fake-usage`.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import tiktoken

__all__ = ["PromptCache", "PromptCounter", "count_prompt"]

PromptCounter = Callable[[str, Mapping[str, Any]], int]
_Encode = Callable[[str], Sequence[int]]

PER_MESSAGE: Final = 3
"""Tokens that chat bills for each message, and once more for the answer's start."""
PATIENCE: Final = 10.0
"""Seconds that a vocabulary's download may take before bytes are counted instead."""
BYTES_PER_TOKEN: Final = 4
"""Of text, where there is no vocabulary."""

_logger = logging.getLogger(__name__)
_encoders: dict[str, _Encode | None] = {}
_loading = threading.Lock()


def count_prompt(endpoint: str, body: Mapping[str, Any]) -> int:
    """Return the tokens of plain content, 3 a message and 3 at the end included."""
    encoding = _encoding(str(body.get("model", "")))
    if endpoint in {"embeddings", "completions"}:
        given = body.get("input" if endpoint == "embeddings" else "prompt")
        several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        texts = given if several and isinstance(given, list) else [given]
        return sum(_tokens(text, encoding) for text in texts)

    if endpoint not in {"chat.completions", "responses"}:
        return 0

    items = body.get("messages" if endpoint == "chat.completions" else "input")
    messages: list[Any] = items if isinstance(items, list) else [{"role": "user", "content": items}]
    if body.get("instructions"):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]

    found = (_message(each, encoding) for each in messages if isinstance(each, Mapping))
    return PER_MESSAGE + sum(found)


def _message(message: Mapping[str, Any], encoding: str) -> int:
    total = PER_MESSAGE + _tokens(str(message.get("role", "")), encoding)
    content = message.get("content", message.get("output"))
    parts = content if isinstance(content, list) else [{"text": content}]
    return total + sum(
        _tokens(part.get("text"), encoding) for part in parts if isinstance(part, Mapping)
    )


def _tokens(text: object, encoding: str) -> int:
    if isinstance(text, str):
        return _count(text, encoding)

    return len(text) if isinstance(text, list) else 0


@lru_cache(maxsize=4096)
def _count(text: str, encoding: str) -> int:
    encode = _encoder(encoding)
    if encode is None:
        return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)

    return len(encode(text.encode("utf-8", "replace").decode()))


def _encoding(model: str) -> str:
    """Return the name of a model's vocabulary; today's for an unknown model."""
    try:
        return tiktoken.encoding_name_for_model(model)
    except KeyError:
        return "o200k_base"


def _encoder(encoding: str) -> _Encode | None:
    """Return what encodes a text, None where no vocabulary can be had."""
    with _loading:
        if encoding not in _encoders:
            _encoders[encoding] = _from_package(encoding) or _from_tiktoken(encoding)

        return _encoders[encoding]


def _from_package(encoding: str) -> _Encode | None:
    """Read the vocabulary that the package quicktok carries, without a network."""
    try:
        import quicktok  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415  # an extra

        found: _Encode = quicktok.get_encoding(encoding).encode
    except (ImportError, RuntimeError):
        return None

    return found


def _from_tiktoken(encoding: str) -> _Encode | None:
    """Let tiktoken read its cache or download, for at most `PATIENCE` seconds."""
    found: list[_Encode] = []

    def load() -> None:
        try:
            found.append(tiktoken.get_encoding(encoding).encode_ordinary)
        except Exception as error:  # noqa: BLE001  # whatever the download raises
            _logger.info("%s cannot be loaded (%r): prompts are counted by bytes", encoding, error)

    thread = threading.Thread(target=load, name="vocabulary", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else None


class PromptCache:
    """What the server has cached of earlier prompts, as usage details show it.

    Source: OpenAI's prompt caching guide. Prompts of 1,024 tokens and more are cached,
    and found by their beginning, in steps of 128 tokens.
    """

    MINIMUM: Final = 1_024
    STEP: Final = 128
    LIFETIME: Final = 600.0
    """Seconds after the last use."""
    BLOCK: Final = 512
    """Characters that are compared at once, those of about one step."""
    BLOCKS: Final = 100_000
    """How many of them are remembered, over all prompts."""

    def __init__(self) -> None:
        self._used: OrderedDict[int, float] = OrderedDict()  # chained hash -> last use

    def look_up(
        self, owner: str, body: Mapping[str, Any], tokens: int, now: float, *, write: bool = True
    ) -> tuple[int, int]:
        """Return how many tokens were read from the cache and written to it.

        :param owner: what shares a cache, an organisation and a model.
        :param tokens: the prompt's.
        :param write: whether the prompt is cached from now on.
        """
        if tokens < self.MINIMUM:
            return 0, 0

        given = [
            body.get("instructions"),
            body.get("tools"),
            body.get("messages"),
            body.get("input"),
        ]
        text = json.dumps([each for each in given if each is not None])
        shared, found, chain = 0, True, hash(owner)
        for start in range(0, len(text) - self.BLOCK + 1, self.BLOCK):
            chain = hash((chain, text[start : start + self.BLOCK]))
            found = found and now - self._used.get(chain, -math.inf) < self.LIFETIME
            if found:
                shared += self.BLOCK

            if write:
                self._used[chain] = now
                self._used.move_to_end(chain)

        while len(self._used) > self.BLOCKS:
            self._used.popitem(last=False)

        whole = tokens // self.STEP * self.STEP
        read = int(tokens * shared / len(text)) // self.STEP * self.STEP
        read = read if read >= self.MINIMUM else 0
        return read, whole - read
