"""What a server may falsely say of its limits, and a transport that says it.

Owns the catalogue of lies and the choice of the answers that carry one.
Must never contain the limiter, clocks or measurements.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx2

Times = Literal["once", "twice", "one in ten"]

TIMES: Final[tuple[Times, ...]] = ("once", "twice", "one in ten")
"""How often a lie is said: in one answer, two in a row, every tenth of a hundred."""


@dataclass(frozen=True, slots=True)
class Lie:
    """One false statement.

    Headers and usage are laid over an honest answer; a refusal takes its place.
    """

    kind: str
    name: str
    headers: dict[str, str] = field(default_factory=dict)
    usage: dict[str, int] | None = None
    refusal: dict[str, Any] | None = None
    """The `error` of a 429; None: the answer stays a success."""

    def apply(self, answer: httpx2.Response, body: bytes) -> httpx2.Response:
        """Return the answer as a lying server sends it."""
        headers = {**dict(answer.headers), **self.headers}
        headers.pop("content-length", None)
        if self.refusal is not None:
            return httpx2.Response(429, headers=headers, json={"error": self.refusal})
        if self.usage is None:
            return httpx2.Response(answer.status_code, headers=headers, content=body)
        document = json.loads(body)
        document["usage"] = self.usage
        return httpx2.Response(answer.status_code, headers=headers, json=document)


def _usage(prompt: int, output: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }


def _refusal(message: str, code: str = "rate_limit_exceeded", kind: str = "tokens") -> Any:
    return {"message": message, "type": kind, "param": None, "code": code}


def _tokens(per: str, figures: str, again: str) -> Any:
    message = f"Rate limit reached for gpt-4o on tokens per {per}: {figures}."
    return _refusal(f"{message} Please try again in {again}.")


PLAIN: Final = _refusal("Rate limit reached.")
"""A refusal that names neither limit nor wait."""

LIES: Final = (
    Lie("limit", "tokens 100", {"x-ratelimit-limit-tokens": "100"}),
    Lie("limit", "tokens 1e12", {"x-ratelimit-limit-tokens": "1000000000000"}),
    Lie("limit", "requests 1", {"x-ratelimit-limit-requests": "1"}),
    Lie("limit", "project 100", {"x-ratelimit-limit-project-tokens": "100"}),
    Lie("level", "tokens 0", {"x-ratelimit-remaining-tokens": "0"}),
    Lie("level", "requests 0", {"x-ratelimit-remaining-requests": "0"}),
    Lie("level", "tokens full", {"x-ratelimit-remaining-tokens": "12000"}),
    Lie("reset", "tokens 99999h", {"x-ratelimit-reset-tokens": "99999h"}),
    Lie(
        "reset",
        "empty for a month",
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "720h"},
    ),
    Lie("usage", "1e12 tokens", usage=_usage(10**12, 10)),
    Lie("usage", "1e12 output", usage=_usage(10, 10**12)),
    Lie("usage", "1e6 tokens", usage=_usage(10**6, 10)),
    Lie("usage", "nothing", usage=_usage(0, 0)),
    Lie("retry-after", "a day", {"retry-after": "86400"}, refusal=PLAIN),
    Lie("retry-after", "11 days", {"retry-after": "1000000"}, refusal=PLAIN),
    Lie("retry-after", "an hour in ms", {"retry-after-ms": "3600000"}, refusal=PLAIN),
    Lie("refusal", "limit 1000", refusal=_tokens("min (TPM)", "Limit 1000, Used 990", "6s")),
    Lie("refusal", "limit 1", refusal=_tokens("min (TPM)", "Limit 1, Used 1", "60s")),
    Lie("refusal", "again in 20 h", refusal=_tokens("min (TPM)", "Limit 12000", "20h")),
    Lie("refusal", "names nothing", refusal=PLAIN),
    Lie(
        "refusal",
        "no quota",
        refusal=_refusal(
            "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"
        ),
    ),
    Lie("period", "refusal per day", refusal=_tokens("day (TPD)", "Limit 200, Used 200", "12h")),
    Lie(
        "period",
        "headers per day",
        {"x-ratelimit-remaining-tokens": "11000", "x-ratelimit-reset-tokens": "2h0m0s"},
    ),
    Lie(
        "period",
        "a month of 5 tokens",
        {"x-ratelimit-limit-tokens-month": "5", "x-ratelimit-remaining-tokens-month": "0"},
    ),
)
"""At least three statements of each kind; the server in truth allows 12,000 tokens and
600 requests a minute.
"""


def schedule(times: Times) -> Iterator[bool]:
    """Which answers lie, one after the other, until the last lie."""
    if times == "one in ten":
        for number in range(100):
            yield number % 10 == 9
        return
    yield from [True] * (1 if times == "once" else 2)


class Lying(httpx2.AsyncBaseTransport):
    """A transport whose answers lie by a schedule once `begin` was called.

    `ended` is called when the last lie has been sent.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, ended: Callable[[], None]) -> None:
        self._inner = inner
        self._ended = ended
        self._lie: Lie | None = None
        self._schedule: list[bool] = []

    def begin(self, lie: Lie, times: Times) -> None:
        """Lie from the next answer on."""
        self._lie, self._schedule = lie, list(schedule(times))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass the request on, and the answer back as it is or as a lie."""
        answer = await self._inner.handle_async_request(request)
        if self._lie is None or not self._schedule:
            return answer

        lies = self._schedule.pop(0)
        if not self._schedule:
            self._ended()
        if not lies:
            return answer
        return self._lie.apply(answer, await answer.aread())
