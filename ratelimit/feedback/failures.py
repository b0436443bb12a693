"""How a call failed: by an exception, or by a response that was refused.

Owns the class names by which HTTP libraries say "the connection was never made", and
the way through the chain of causes. Must never import those libraries (any of them may
be installed, or none), do I/O, read a clock or act on anything. Never raises.

Giving back what was not sent is right, giving back what the server has counted brings
the next 429: where it is not sure, the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

from ratelimit.errors import LimiterError
from ratelimit.feedback.answers import (
    UNKNOWN,
    Outcome,
    host_of,
    kept_body,
    read_error,
    read_error_answer,
    status_of,
)
from ratelimit.feedback.refusals import REFUSING_STATUSES, Refusal, read_refusal
from ratelimit.feedback.untrusted import decoded, field, items

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


_NOTHING_SENT: Final = Outcome("nothing_sent")

_Behind: TypeAlias = Callable[[BaseException], Outcome | None]
"""Finds the refusal that was being handled where an error was raised."""


def read_exception(error: BaseException) -> Outcome:
    """Tell how a call ended that raised ``error``.

    Of an exception group: what all its members say, else the first refusal, else
    unknown.
    """
    return _read(error, 0, _handled_inside)


def read_exception_of_block(error: BaseException, handled: BaseException | None) -> Outcome:
    """Tell how a call ended of which the block, as of `with`, was left by ``error``.

    :param handled: what was being handled when the block was entered: that was of an
        earlier call.
    """
    return _read(error, 0, partial(_handled_since, before=handled))


def read_response(response: object) -> Refusal | None:
    """Read an HTTP library's response object as a refusal; None when it is none.

    Works for the responses of httpx, requests and aiohttp; a body that has not been
    read is left alone.
    """
    return _refusal(response)


def refusal_among(members: object) -> Refusal | None:
    """Read the first refusal in a tuple or list of answers, bodies and exceptions.

    A text among them is taken for a model's.
    """
    for member in islice(items(members), _LONGEST_CHAIN):
        if isinstance(member, (str, bytes, bytearray, memoryview)):
            continue
        if isinstance(member, BaseException):
            outcome: Outcome | None = read_exception(member)
        elif (refusal := read_response(member)) is not None:
            return refusal
        else:
            outcome = None if isinstance(member, list) else read_error_answer(member)
        if outcome is not None and outcome.refusal is not None:
            return outcome.refusal
    return None


def _read(error: BaseException, depth: int, behind: _Behind) -> Outcome:
    if isinstance(error, BaseExceptionGroup):
        members = error.exceptions[:_LONGEST_CHAIN] if depth < _LONGEST_CHAIN else ()
        inner = [_read(member, depth + 1, behind) for member in members]
        if inner and all(outcome.kind == "nothing_sent" for outcome in inner):
            return _NOTHING_SENT
        return next((outcome for outcome in inner if outcome.kind == "refused"), UNKNOWN)

    said = next(filter(None, map(_said_by, _chain(error))), UNKNOWN)
    return said if said.refusal is not None else behind(error) or said


def _said_by(error: BaseException) -> Outcome | None:
    """Return what one exception of a chain says; None when only its cause can."""
    refused = _refused_by(error)
    if refused is not None:
        return refused

    if isinstance(error, LimiterError):  # an inner limiter, or this one, did not let it out
        return _NOTHING_SENT

    for kind in type(error).__mro__:
        if kind.__name__ in _UNSENT:
            return _NOTHING_SENT
        if kind.__name__ in _SENT:
            return UNKNOWN
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
        reason = here.__dict__.get("reason")  # urllib's URLError names its cause so
        if isinstance(reason, BaseException):
            here = reason
        elif here.__cause__ is not None or here.__suppress_context__:
            here = here.__cause__
        elif type(here).__module__.partition(".")[0] in _LIBRARIES:
            here = here.__context__
        else:
            here = None


def _refused_by(error: BaseException) -> Outcome | None:
    refusal = _refusal(error)
    return None if refusal is None else Outcome("refused", refusal, error)


def _handled_inside(error: BaseException) -> Outcome | None:
    """Read the refusal that was being handled where an error was raised.

    Only one that was caught inside the call: in a frame that the error has passed,
    below the one that looks at it. What the caller handles is of an earlier call.
    """
    trace, here = error.__traceback__, error.__context__
    passed: set[object] = set()
    for _ in range(_LONGEST_CHAIN):
        if here is None or here.__traceback__ is None:
            return None
        while trace is not None:
            trace = trace.tb_next
            passed.add(trace and trace.tb_frame)
        trace = here.__traceback__
        if trace.tb_frame not in passed:
            return None
        refused = _refused_by(here)
        if refused is not None:
            return refused
        here = here.__context__
    return None


def _handled_since(error: BaseException, before: BaseException | None) -> Outcome | None:
    """Read the refusal that was being handled where an error was raised in a block.

    Only one that came after `before`, which was being handled around the block.
    """
    here = error.__context__
    for _ in range(_LONGEST_CHAIN):
        if here is None or here is before:
            return None
        refused = _refused_by(here)
        if refused is not None:
            return refused
        here = here.__context__
    return None


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
