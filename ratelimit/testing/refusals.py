"""How the server says no: the JSON of every error, and the headers that go with it.

Owns: error texts, types and codes. What must never come in: deciding. Source of the
texts: 429 answers in public issue threads and recordings; they obey `wait = (Used +
Requested - Limit) * period / Limit`, truncated to milliseconds.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from ratelimit.testing.buckets import RESIDUE
from ratelimit.testing.headers import duration

if TYPE_CHECKING:
    from ratelimit.testing.admission import Refusal
    from ratelimit.testing.headers import Headers
    from ratelimit.testing.requests import Call, Problem
    from ratelimit.testing.variants import Style

__all__ = ["error", "message_of", "problem_body", "refusal_body", "retry_headers"]

SLOW_DOWN = "Slow down: your traffic grew too fast. Reduce your request rate to its original level, keep it for 15 minutes, then raise it gradually."
_VISIT = "Visit https://platform.openai.com/account/rate-limits to learn more."
_OPERATIONS = {
    "chat.completions": "ChatCompletions_Create",
    "completions": "Completions_Create",
    "embeddings": "Embeddings_Create",
    "responses": "Responses_Create",
}


def error(message: str, kind: str | None, code: str | None, param: str | None = None) -> bytes:
    """The body of an error."""
    return json.dumps(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}
    ).encode()


def problem_body(problem: Problem) -> bytes:
    """The body of a 400, 401 or 404."""
    return error(problem.message, "invalid_request_error", problem.code, problem.param)


def message_of(body: bytes) -> str:
    """The sentence in an error's body."""
    content = json.loads(body)
    return str(content.get("error", content)["message"])


def refusal_body(refusal: Refusal, call: Call, style: Style) -> bytes:
    """The body of a 429 for a call that was not let in."""
    if style == "azure":
        return _azure(refusal, call)
    if style == "mistral":
        return json.dumps(
            {
                "object": "error",
                "message": "Rate limit exceeded",
                "type": "rate_limited",
                "param": None,
                "code": "1300",
            }
        ).encode()
    who = f"for {call.model} in organization {call.organisation}"
    if refusal.reason == "in_flight":
        return error(
            f"Too many requests in flight {who}: Limit {refusal.limit}, Used {refusal.used}, Requested 1.",
            "requests",
            "rate_limit_exceeded",
        )
    if refusal.reason == "slow_down":
        return error(SLOW_DOWN, "rate_limit_error", "slow_down")
    if refusal.dimension is None:
        raise ValueError(f"a refusal for {refusal.reason!r} has to name its limit")
    on = f"{who} on {refusal.dimension.label}: Limit {refusal.limit}"
    if refusal.reason == "too_large":
        advice = "The input or output tokens must be reduced in order to run successfully."
        text = f"Request too large {on}, Requested {refusal.requested}. {advice} {_VISIT}"
    else:
        pause = duration(refusal.wait or 0.0)
        text = f"Rate limit reached {on}, Used {refusal.used}, Requested {refusal.requested}. Please try again in {pause}. {_VISIT}"
    return error(text, refusal.dimension.unit, "rate_limit_exceeded")


def retry_headers(refusal: Refusal, style: Style) -> Headers:
    """`retry-after-ms` and `retry-after` of a refusal that ends; nothing for one that
    never does.
    """
    if refusal.wait is None:
        return []
    milliseconds = int(refusal.wait * 1000 + RESIDUE)
    seconds = str(math.ceil(refusal.wait)).encode()
    return (
        [(b"retry-after", seconds)]
        if style == "groq"
        else [(b"retry-after-ms", b"%d" % milliseconds), (b"retry-after", seconds)]
    )


def _azure(refusal: Refusal, call: Call) -> bytes:
    """Azure's sentence, which names neither limit nor use."""
    what = "token" if refusal.reason in {"tokens", "too_large"} else "call"
    operation = _OPERATIONS.get(call.endpoint, "Unknown")
    again = (
        f" Please retry after {math.ceil(refusal.wait)} seconds."
        if refusal.wait is not None
        else ""
    )
    text = (
        f"Requests to the {operation} Operation under Azure OpenAI API version 2024-10-21 have exceeded {what} rate limit of your current "
        f"OpenAI S0 pricing tier.{again}"
    )
    return json.dumps({"error": {"code": "429", "message": text}}).encode()
