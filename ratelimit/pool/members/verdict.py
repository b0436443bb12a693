"""What a member's answer, or the lack of one, means for the call and for the member.

Owns that judgement. Must never send, wait or park.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ratelimit.errors import LimiterError
from ratelimit.feedback import REFUSING_STATUSES, Refusal, read_refusal
from ratelimit.feedback.untrusted import decoded
from ratelimit.pool.members.health import (
    FAILING,
    NO_CREDIT,
    NO_MODEL,
    REFUSED_KEY,
    SILENT,
    UNREACHABLE,
    Fault,
)

_NO_MODEL_CODES: Final = frozenset(
    {"model_not_found", "deploymentnotfound", "model_not_supported", "unsupported_model"}
)
"""Codes of OpenAI, Azure and relays, in lower case."""

_NO_STATE_CODES: Final = frozenset({"previous_response_not_found"})

_SLOW: Final = frozenset({"ReadTimeout", "WriteTimeout", "SocketTimeoutError"})
"""Exceptions that a call with a short timeout of its own meets as well."""

_OWN: Final = frozenset({"PoolTimeout"})
"""Exceptions that say nothing of the server: too many connections are in use here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an answer."""

    moves: bool = False
    """Whether another member may be asked instead."""
    fault: Fault | None = None
    """What parks the member; None: it works."""
    of_model: bool = False
    """Whether the fault is of one model there."""
    excludes: bool = False
    """Whether the call does not come back to this member."""
    says_nothing: bool = False
    """Whether nothing follows for the member, not even that it works."""


ANSWERED: Final = Verdict()
UNKNOWN: Final = Verdict(says_nothing=True)
BAD: Final = Verdict()
"""The body is refused as bad: another member would do the same."""

_LIMITED: Final = Verdict(moves=True)
"""A rate: the member's limiter has paused by itself."""

_TOO_LARGE: Final = Verdict(moves=True, excludes=True)
_ELSEWHERE: Final = Verdict(moves=True, excludes=True)
"""What it asks for is not on this server."""

_FAILS: Final = Verdict(moves=True, fault=FAILING)

_BY_STATUS: Final[Mapping[int, Verdict]] = {
    401: Verdict(moves=True, fault=REFUSED_KEY),
    402: Verdict(moves=True, fault=NO_CREDIT),
    403: Verdict(moves=True, fault=NO_MODEL, of_model=True),
    408: _FAILS,
    425: _FAILS,
    498: _FAILS,
}
"""What statuses below 500 mean where their bodies name no limit."""


def has_to_be_read(status: int) -> bool:
    """Return whether the body decides what an answer of this status means."""
    return status in REFUSING_STATUSES or status in {400, 404}


def of_error(error: BaseException) -> Verdict:
    """Judge a call that ended without an answer."""
    if not isinstance(error, Exception):
        return UNKNOWN  # it was cancelled
    name = type(error).__name__
    if name in _OWN:
        return Verdict(moves=True, says_nothing=True)
    return Verdict(moves=True, fault=SILENT if name in _SLOW else UNREACHABLE)


def of_exception(error: BaseException) -> Verdict:
    """Judge a call by the exception that a client has raised in a user's own code.

    An SDK's error carries the answer, or has the HTTP library's as its cause.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and response is not None:
        body = getattr(response, "content", b"")
        host = str(getattr(getattr(response, "url", None), "host", ""))
        return of_answer(status, response.headers, body, host, has_state=False)
    if isinstance(error, LimiterError):
        return UNKNOWN
    return of_error(error) if _is_of_http(error) else UNKNOWN


def _is_of_http(error: BaseException) -> bool:
    libraries = {"openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests"}
    named = type(error).__module__.partition(".")[0] in libraries
    return named or isinstance(error, ConnectionError)


def of_answer(
    status: int, headers: Mapping[str, str], body: bytes, host: str, *, has_state: bool
) -> Verdict:
    """Judge an answer.

    :param body: as far as `has_to_be_read`.
    :param has_state: whether the call names something that is stored on a server.
    """
    if status < 400:
        return ANSWERED
    refusal = read_refusal(status, headers, body, host) if has_to_be_read(status) else None
    if refusal is not None:
        return _of_refusal(refusal)
    if status in {400, 404}:
        return _of_missing(status, _error_in(body), has_state=has_state)
    if status >= 500:
        return _FAILS
    return _BY_STATUS.get(status, BAD)


def _of_refusal(refusal: Refusal) -> Verdict:
    if refusal.overloaded:
        return _FAILS
    if not refusal.hopeless:
        return _LIMITED
    is_size = refusal.kind is not None and refusal.limit is not None
    return _TOO_LARGE if is_size else Verdict(moves=True, fault=NO_CREDIT)


def _of_missing(status: int, error: Mapping[str, Any], *, has_state: bool) -> Verdict:
    code = str(error.get("code") or "").lower()
    message = str(error.get("message") or "").lower()
    if code in _NO_MODEL_CODES or (status == 404 and "model" in message and "not exist" in message):
        return Verdict(moves=True, fault=NO_MODEL, of_model=True)
    if has_state and (status == 404 or code in _NO_STATE_CODES or "not found" in message):
        return _ELSEWHERE
    return BAD


def _error_in(body: bytes) -> Mapping[str, Any]:
    answer = decoded(body) if body else None
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}
