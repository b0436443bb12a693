"""What a server answers where a limiter is watched: headers, and 429s.

Owns one spelling of each. Must never say how a limiter takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from ratelimit import RateLimiter
from ratelimit.events import Refused

HEADERS: Final = {
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "2s",
}
LIMIT_REACHED: Final = (
    "Rate limit reached for gpt-4o in organization org-secret on tokens per min (TPM): "
    "Limit {limit}, Used {used}, Requested 30. Please try again in {wait}s."
)


class TooMany(Exception):
    """A 429 as an SDK raises it, which may quote a prompt and a key."""

    def __init__(
        self,
        message: str = "Slow down, sk-secret: a private prompt",
        code: str = "rate_limit_exceeded",
    ) -> None:
        super().__init__(message)
        self.status_code = 429
        self.body = {"error": {"message": message, "code": code}}


def refuse(
    limiter: RateLimiter, error: TooMany | None = None, request: Mapping[str, Any] | None = None
) -> None:
    """Make one call that is refused."""
    reservation = limiter.reserve(tokens=1) if request is None else limiter.reserve(request)
    with pytest.raises(TooMany), reservation:
        raise error or TooMany()


def refused_for(limit: str | None, family: str = "*", *, at: float = 0.0) -> Refused:
    """Return the record of a refusal that says nothing more."""
    return Refused(
        at=at,
        family=family,
        limit=limit,
        code="",
        server_limit=None,
        server_used=None,
        server_wait=None,
        believed_level=None,
        believed_limit=None,
        in_flight=1,
        waiting=0,
        pause=1.0,
        final=False,
        overloaded=False,
        slow_down=False,
        refusals=1,
        remedy="",
    )
