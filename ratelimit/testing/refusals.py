"""How the server refuses: the body of every error, and the headers that go with it.

Owns error texts, types and codes. Must never decide. Source of the texts: 429 answers
in public issue threads and recordings; they obey `wait = (Used + Requested - Limit) *
period / Limit`, truncated to milliseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.testing.buckets import RESIDUE
from ratelimit.testing.headers import WINDOWED, duration

if TYPE_CHECKING:
    from ratelimit.testing.admission import Refusal
    from ratelimit.testing.headers import Headers
    from ratelimit.testing.requests import Call, Problem
    from ratelimit.testing.variants import NamedWait, Style

__all__ = [
    "FAILURES",
    "ErrorBody",
    "error",
    "error_in_200",
    "problem_body",
    "refusal_body",
    "retry_headers",
]

BROKEN: Final = "The server had an error while processing your request. Sorry about that!"
_SLOW_DOWN: Final = (
    "Slow down: your traffic grew too fast. Reduce your request rate to its original level, keep "
    "it for 15 minutes, then raise it gradually."
)
_QUOTA: Final = "You exceeded your current quota, please check your plan and billing details."
_FLEX: Final = (
    "Flex does not have sufficient resources available to process your request. Please try again "
    "later."
)
_BARE: Final = "Rate limit reached. Please slow down and try again."
_OVERLOADED: Final = (
    "The server is currently overloaded with other requests. Sorry about that! You can retry your "
    "request."
)
_VISIT: Final = "Visit https://platform.openai.com/account/rate-limits to learn more."
_NGINX: Final = (
    "<html>\r\n<head><title>429 Too Many Requests</title></head>\r\n<body>\r\n"
    "<center><h1>429 Too Many Requests</h1></center>\r\n<hr><center>nginx</center>\r\n"
    "</body>\r\n</html>\r\n"
)
_OPERATIONS: Final = {
    "chat.completions": "ChatCompletions_Create",
    "completions": "Completions_Create",
    "embeddings": "Embeddings_Create",
    "responses": "Responses_Create",
}


class Failure(NamedTuple):
    """What an injected fault answers."""

    status: int
    message: str
    kind: str | None = None
    code: str | None = None

    def body(self) -> ErrorBody:
        """Return it as a body."""
        return error(self.message, self.kind, self.code)


FAILURES: Final = {
    "429": Failure(429, _BARE, "requests", "rate_limit_exceeded"),
    "wrong_wait": Failure(429, _BARE, "requests", "rate_limit_exceeded"),
    "quota": Failure(429, _QUOTA, "insufficient_quota", "insufficient_quota"),
    "slow_down": Failure(429, _SLOW_DOWN, "rate_limit_error", "slow_down"),
    "flex": Failure(429, _FLEX),
    "redirect": Failure(308, "Permanent Redirect"),
    "500": Failure(500, BROKEN, "server_error"),
    "broken_stream": Failure(500, BROKEN, "server_error"),
    "503": Failure(503, _OVERLOADED, "server_error", "server_is_overloaded"),
}
"""By the kind of the fault."""


class ErrorBody(NamedTuple):
    """The body of an error, its sentence and its type."""

    data: bytes
    message: str
    kind: bytes = b"application/json"


def error(message: str, kind: str | None, code: str | None, param: str | None = None) -> ErrorBody:
    """Return the body of an error in OpenAI's form."""
    content = {"message": message, "type": kind, "param": param, "code": code}
    return ErrorBody(json.dumps({"error": content}).encode(), message)


def error_in_200(code: int) -> ErrorBody:
    """Return the error object that some relays send with status 200."""
    message = _BARE if code == 429 else "Provider returned error"
    content = {"message": message, "code": code, "metadata": {"provider_name": "fake"}}
    return ErrorBody(json.dumps({"error": content, "user_id": None}).encode(), message)


def problem_body(problem: Problem) -> ErrorBody:
    """Return the body of a 400, 401 or 404."""
    return error(problem.message, "invalid_request_error", problem.code, problem.param)


def refusal_body(refusal: Refusal, call: Call, style: Style) -> ErrorBody:
    """Return the body of a 429 for a call that was not admitted."""
    return _BODIES.get("plain" if style in WINDOWED else style, _openai)(refusal, call)


def retry_headers(refusal: Refusal, style: Style, named: NamedWait = None) -> Headers:
    """Return the headers that name the wait of a refusal; none where it never ends.

    :param named: what a plain server names, see `Rules.retry_after`.
    """
    is_plain = style in {"nginx", "plain"} or style in WINDOWED
    if is_plain and named != "wait":
        return [] if named is None else [(b"retry-after", f"{named:g}".encode())]

    if refusal.wait is None or style in {"litellm", "qwen", "bedrock"}:
        return []

    milliseconds = int(refusal.wait * 1000 + RESIDUE)
    seconds = (b"retry-after", str(math.ceil(refusal.wait - RESIDUE)).encode())
    if is_plain:
        return [seconds]

    return [seconds] if style == "groq" else [(b"retry-after-ms", b"%d" % milliseconds), seconds]


def _openai(refusal: Refusal, call: Call) -> ErrorBody:
    place = f"for {call.model} in organization {call.organisation}"
    if refusal.reason == "in_flight":
        text = (
            f"Too many requests in flight {place}: Limit {refusal.limit}, Used {refusal.used}, "
            "Requested 1."
        )
        return error(text, "requests", "rate_limit_exceeded")

    if refusal.reason == "slow_down":
        return FAILURES["slow_down"].body()

    if refusal.dimension is None:
        raise ValueError(f"a refusal for {refusal.reason!r} has to name its limit")

    on = f"{place} on {refusal.dimension.label}: Limit {refusal.limit}"
    if refusal.reason == "too_large":
        advice = "The input or output tokens must be reduced in order to run successfully."
        text = f"Request too large {on}, Requested {refusal.requested}. {advice} {_VISIT}"
    else:
        text = (
            f"Rate limit reached {on}, Used {refusal.used}, Requested {refusal.requested}. "
            f"Please try again in {duration(refusal.wait or 0.0)}. {_VISIT}"
        )

    return error(text, refusal.dimension.unit, "rate_limit_exceeded")


def _azure(refusal: Refusal, call: Call) -> ErrorBody:
    """Return Azure's sentence, which names neither limit nor use."""
    what = "token" if refusal.reason in {"tokens", "too_large"} else "call"
    operation = _OPERATIONS.get(call.endpoint, "Unknown")
    again = ""
    if refusal.wait is not None:
        again = f" Please retry after {math.ceil(refusal.wait)} seconds."

    text = (
        f"Requests to the {operation} Operation under Azure OpenAI API version 2024-10-21 have "
        f"exceeded {what} rate limit of your current OpenAI S0 pricing tier.{again}"
    )
    return ErrorBody(json.dumps({"error": {"code": "429", "message": text}}).encode(), text)


def _mistral(_refusal: Refusal, _call: Call) -> ErrorBody:
    text = "Rate limit exceeded"
    content = {
        "object": "error",
        "message": text,
        "type": "rate_limited",
        "param": None,
        "code": "1300",
    }
    return ErrorBody(json.dumps(content).encode(), text)


def _qwen(refusal: Refusal, _call: Call) -> ErrorBody:
    """Return Qwen's sentence; one of tokens looks like a quota that is used up."""
    match refusal.reason:
        case "slow_down":
            code = "limit_burst_rate"
            text = (
                "Request rate increased too quickly. To ensure system stability, please adjust "
                "your client logic to scale requests more smoothly over time."
            )
        case "tokens" | "too_large":
            code = "insufficient_quota"
            text = "You exceeded your current quota: the TPM limit was triggered."
        case _:
            code = "limit_requests"
            text = "You exceeded your current requests limit."

    return error(text, code, code)


def _litellm(refusal: Refusal, _call: Call) -> ErrorBody:
    """Return the sentence of LiteLLM's proxy, which names no moment."""
    text = (
        "LiteLLM Rate Limit Handler for rate limit type = key. Crossed TPM / RPM / Max Parallel "
        f"Request Limit. current {refusal.reason}: {refusal.used}, limit: {refusal.limit}"
    )
    content = {"message": text, "type": "None", "param": "None", "code": "429"}
    return ErrorBody(json.dumps({"error": content}).encode(), text)


def _nginx(_refusal: Refusal, _call: Call) -> ErrorBody:
    return ErrorBody(_NGINX.encode(), "429 Too Many Requests", b"text/html")


def _plain(_refusal: Refusal, _call: Call) -> ErrorBody:
    return ErrorBody(b'{"detail":"Too Many Requests"}', "Too Many Requests")


def _bedrock(_refusal: Refusal, _call: Call) -> ErrorBody:
    return error("Too many tokens, please wait before trying again.", None, None)


_BODIES: Final[dict[str, Callable[[Refusal, Call], ErrorBody]]] = {
    "azure": _azure,
    "mistral": _mistral,
    "nginx": _nginx,
    "litellm": _litellm,
    "plain": _plain,
    "qwen": _qwen,
    "bedrock": _bedrock,
}
"""By the style, where it is not OpenAI's."""
