"""Which member has the prompt of a call cached.

Owns what makes two prompts alike, and the member that served each first. Must never
choose a member.

OpenAI caches the longest common prefix of at least 1,024 tokens, tools included, on the
machine that served it; `prompt_cache_key` and `user` send calls to the same one.
Source: the guide on prompt caching.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

MOST: Final = 10_000
"""Prompts that are kept, the last used."""

SHORTEST: Final = 4_096
"""Bytes of a prompt's beginning that are compared, about 1,024 tokens: nothing shorter
is cached.
"""


def prompt_of(body: Mapping[str, Any] | None, model: str) -> str | None:
    """Return what calls with one cached prefix share; None: nothing is cached."""
    if body is None:
        return None
    for name in ("prompt_cache_key", "user", "safety_identifier"):
        key = body.get(name)
        if isinstance(key, str) and key:
            return _digest(model, name, key)
    parts = [body.get(name) for name in ("tools", "instructions", "messages", "input")]
    start = ""
    for part in parts:
        if part:
            start += _beginning(part)
        if len(start) >= SHORTEST:
            return _digest(model, "prompt", start[:SHORTEST])
    return None


def _beginning(part: object) -> str:
    if isinstance(part, str):
        return part[:SHORTEST]
    text = ""
    for item in part if isinstance(part, list) else [part]:
        text += json.dumps(item, default=str)
        if len(text) >= SHORTEST:
            break
    return text


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=12).hexdigest()


class Homes:
    """The member that served each prompt, by what `prompt_of` returns."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, prompt: str | None) -> str | None:
        """Return the name of the member; None: nobody has served it yet."""
        if prompt is None:
            return None
        with self._lock:
            return self._of.get(prompt)

    def served(self, prompt: str | None, member: str, *, moves: bool) -> None:
        """Take note that a member serves it.

        :param moves: whether it takes the place of one that served it before.
        """
        if prompt is None:
            return
        with self._lock:
            if moves or prompt not in self._of:
                self._of[prompt] = member
            self._of.move_to_end(prompt)
            while len(self._of) > MOST:
                self._of.popitem(last=False)
