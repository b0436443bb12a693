"""How a call failed: by an exception, or by an error that came as its answer.

Owns the class names by which HTTP libraries say "the connection was never made", the
way through the chain of causes, and the error objects inside answers with status 200.
Must never import those libraries (any of them may be installed, or none), do I/O, read
a clock or act on anything. Never raises.

Giving back what was not sent is right, giving back what the server has counted brings
the next 429: where it is not sure, the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ratelimit.errors import LimiterError
from ratelimit.feedback.finality import OVERLOADED_CODES, is_refusing
from ratelimit.feedback.refusals import REFUSING_STATUSES, Refusal, codes_of, read_refusal
from ratelimit.feedback.replies import host_of, kept_body, status_of
from ratelimit.feedback.untrusted import amount, decoded, field, items

_UNSENT: Final = frozenset(
    {
        # httpx, httpx2, httpcore
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "InvalidURL",
        # aiohttp
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientProxyConnectionError",
        "ConnectionTimeoutError",
        "ClientConnectorCertificateError",
        "InvalidUrlClientError",
        "NonHttpUrlClientError",
        # requests and urllib3
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeoutError",
        "EmptyPoolError",
        "InvalidSchema",
        "MissingSchema",
        # Python
        "ConnectionRefusedError",
        "gaierror",
        "SSLCertVerificationError",
    }
)
"""Exceptions after which no byte of the request has reached the server."""

_SENT: Final = frozenset(
    {
        # httpx, httpx2, httpcore
        "ReadTimeout",
        "WriteTimeout",
        "ReadError",
        "WriteError",
        "CloseError",
        "RemoteProtocolError",
        "DecodingError",
        # aiohttp
        "SocketTimeoutError",
        "ServerDisconnectedError",
        "ClientPayloadError",
        "ClientResponseError",
        "ClientOSError",
        # requests and urllib3
        "ReadTimeoutError",
        "ProtocolError",
        "IncompleteRead",
        "ChunkedEncodingError",
        # Python, asyncio, trio
        "ConnectionResetError",
        "ConnectionAbortedError",
        "BrokenPipeError",
        "CancelledError",
        "Cancelled",
        "KeyboardInterrupt",
    }
)
"""Exceptions after which the server may have counted the request."""

_LIBRARIES: Final = frozenset(
    {"openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests", "urllib3"}
)
_LONGEST_CHAIN: Final = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended that raised an exception, or was answered by an error."""

    kind: Literal["nothing_sent", "refused", "unknown"]
    """"nothing_sent": no byte of the request reached the server, give everything back.
    "refused": `refusal` says how. "unknown": it may have been counted, keep what was
    reserved.
    """
    refusal: Refusal | None = None


_UNKNOWN: Final = Outcome("unknown")
_NOTHING_SENT: Final = Outcome("nothing_sent")


def read_exception(error: BaseException) -> Outcome:
    """Tell how a call ended that raised ``error``.

    Of an exception group: what all its members say, else the first refusal, else
    unknown.
    """
    return _read(error, 0)


def read_response(response: object) -> Refusal | None:
    """Read an HTTP library's response object as a refusal; None when it is none.

    Works for the responses of httpx, requests and aiohttp; a body that has not been
    read is left alone.
    """
    return _refusal(response)


def read_error(error: object, host: str = "") -> Refusal | None:
    """Read an error object as a refusal; None when it is none.

    For errors that come inside an answer that began with 200: in a stream, in a failed
    Response.

    :param error: the mapping or object that holds `message`, `code` or `type`.
    :param host: the server's host name, as for `read_refusal`.
    """
    status = _status(error)
    if status in REFUSING_STATUSES:
        return read_refusal(status, None, {"error": error}, host)

    codes = codes_of(error)
    if OVERLOADED_CODES.intersection(codes):
        return read_refusal(503, None, {"error": error}, host)

    return read_refusal(429, None, {"error": error}, host) if is_refusing(codes) else None


def read_error_answer(answer: object, host: str = "") -> Outcome | None:
    """Tell an error that came with status 200 from an answer; None when it is one.

    OpenRouter, Azure's content filter and relays send an error object as the body of a
    200: an `error`, of the answer or of a choice. A refusal may come after a part of
    the answer, which does not undo it; beside any other error nothing was generated.

    :param answer: bytes, text, the decoded JSON, or an SDK's object.
    :param host: the server's host name, as for `read_refusal`.
    """
    found = decoded(answer)
    if isinstance(found, list) and found:  # Google wraps its errors in a list
        found = found[0]
    if found is None or isinstance(found, (str, int, float, list)):
        return None

    error = error_of(found)
    if not error and "error" in [field(found, "object"), field(found, "type")]:
        error = found
    if not error or isinstance(error, (bool, int, float)):
        return None

    refusal = read_error({"message": error} if isinstance(error, str) else error, host)
    if refusal is not None:
        return Outcome("refused", refusal)
    return None if _generated(found) else _UNKNOWN


def error_of(answer: object) -> object:
    """Return the error of an answer, or of one of its choices; falsy without one."""
    error = field(answer, "error")
    if not error:
        for choice in items(field(answer, "choices")):
            error = error or field(choice, "error")
    return error


def _generated(answer: object) -> bool:
    """Tell whether an answer holds anything that was generated."""
    if any(field(answer, name) for name in ("output", "data", "candidates", "content")):
        return True

    parts = ("content", "tool_calls", "function_call", "refusal", "audio")
    return any(
        field(choice, "text") or any(field(field(choice, "message"), part) for part in parts)
        for choice in items(field(answer, "choices"))
    )


def _status(error: object) -> int | None:
    """Return the HTTP status that an error object names, as a number or as text."""
    for name in ("code", "status", "status_code"):
        found = amount(field(error, name))
        if found is not None and 400 <= found < 600 and found == int(found):
            return int(found)
    return None


def _read(error: BaseException, depth: int) -> Outcome:
    if isinstance(error, BaseExceptionGroup):
        members = error.exceptions[:_LONGEST_CHAIN] if depth < _LONGEST_CHAIN else ()
        inner = [_read(member, depth + 1) for member in members]
        if inner and all(outcome.kind == "nothing_sent" for outcome in inner):
            return _NOTHING_SENT
        return next((outcome for outcome in inner if outcome.kind == "refused"), _UNKNOWN)

    for link in _chain(error):
        outcome = _said_by(link)
        if outcome is not None:
            return outcome
    return _UNKNOWN


def _said_by(error: BaseException) -> Outcome | None:
    """Return what one exception of a chain says; None when only its cause can."""
    refusal = _refusal(error)
    if refusal is not None:
        return Outcome("refused", refusal)

    if isinstance(error, LimiterError):  # an inner limiter, or this one, did not let it out
        return _NOTHING_SENT

    for kind in type(error).__mro__:
        if kind.__name__ in _UNSENT:
            return _NOTHING_SENT
        if kind.__name__ in _SENT:
            return _UNKNOWN
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from the outermost exception to its causes.

    An implicit context is followed out of HTTP libraries only, which raise their own
    kind over a lower one. Out of anybody else's code it may belong to an earlier call:
    a fallback that fails inside `except ConnectError` was sent.
    """
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen and len(seen) < _LONGEST_CHAIN:
        yield here
        seen.add(id(here))
        if here.__cause__ is not None or here.__suppress_context__:
            here = here.__cause__
        elif type(here).__module__.partition(".")[0] in _LIBRARIES:
            here = here.__context__
        else:
            here = None


def _refusal(holder: object) -> Refusal | None:
    """Read the HTTP answer that an exception carries, or that an object is.

    The answer of openai's, httpx's and requests' exceptions is their `response`;
    aiohttp's and Python's exceptions have status and headers themselves.
    """
    response = field(holder, "response")
    status = status_of(holder) or status_of(response)
    body = _first(field(holder, "body"))
    host = host_of(response) or host_of(holder)
    if isinstance(holder, BaseException) and (status is None or status < 400):
        # an SDK's, of an error inside a stream that began with 200
        error = decoded(body)
        inner = field(error, "error")
        return read_error(error if inner is None else inner, host)

    if status not in REFUSING_STATUSES:
        return None

    headers = _first(field(holder, "headers"), field(response, "headers"))
    if body is None:
        body = kept_body(response) or kept_body(holder)
    return read_refusal(status, headers, body, host)  # type: ignore[arg-type]  # foreign headers


def _first(*values: object) -> object:
    """Return the first value that is not None, nor a method; None without one."""
    return next((value for value in values if value is not None and not callable(value)), None)
