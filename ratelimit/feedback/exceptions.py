"""What an exception tells about the call it ended: was anything sent, was it refused,
or is nothing known.

Owns: the class names by which HTTP libraries say "the connection was never made", and
the way through the chain of causes. Must never come in: those libraries (any of them
may be installed, or none), I/O, clocks, decisions. Never raises.

Giving back what was not sent is right, giving back what the server has counted brings
the next 429: in doubt the answer is "unknown".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ratelimit.errors import LimiterError
from ratelimit.feedback.refusals import Refusal, read_refusal
from ratelimit.feedback.untrusted import field

_UNSENT = frozenset(
    {
        # httpx, httpx2, httpcore
        *(
            "ConnectError",
            "ConnectTimeout",
            "PoolTimeout",
            "ProxyError",
            "UnsupportedProtocol",
            "InvalidURL",
        ),
        # aiohttp
        *(
            "ClientConnectorError",
            "ClientConnectorDNSError",
            "ClientProxyConnectionError",
            "ConnectionTimeoutError",
        ),
        *(
            "ClientConnectorCertificateError",
            "InvalidURL",
            "InvalidUrlClientError",
            "NonHttpUrlClientError",
        ),
        # requests and urllib3
        *(
            "NewConnectionError",
            "NameResolutionError",
            "ConnectTimeoutError",
            "EmptyPoolError",
            "InvalidSchema",
            "MissingSchema",
        ),
        # Python
        *("ConnectionRefusedError", "gaierror", "SSLCertVerificationError"),
    }
)
_SENT = frozenset(
    {
        *(
            "ReadTimeout",
            "WriteTimeout",
            "ReadError",
            "WriteError",
            "CloseError",
            "RemoteProtocolError",
            "DecodingError",
        ),
        *(
            "SocketTimeoutError",
            "ServerDisconnectedError",
            "ClientPayloadError",
            "ClientResponseError",
            "ClientOSError",
        ),
        *("ReadTimeoutError", "ProtocolError", "IncompleteRead", "ChunkedEncodingError"),
        *(
            "ConnectionResetError",
            "ConnectionAbortedError",
            "BrokenPipeError",
            "CancelledError",
            "Cancelled",
            "KeyboardInterrupt",
        ),
    }
)
_LIBRARIES = frozenset(
    {"openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests", "urllib3"}
)
_LONGEST_CHAIN = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    `kind`: "nothing_sent" (no byte of the request reached the server: give everything
    back), "refused" (`refusal` says how), or "unknown" (it may have been counted: keep
    what was reserved).
    """

    kind: Literal["nothing_sent", "refused", "unknown"]
    refusal: Refusal | None = None


_UNKNOWN = Outcome("unknown")
_NOTHING_SENT = Outcome("nothing_sent")


def read_exception(error: BaseException) -> Outcome:
    """Tell what `error`, raised out of a call, says about it. Of a group: what all its
    members say, else the first refusal, else unknown.
    """
    return _read(error, 0)


def _read(error: BaseException, depth: int) -> Outcome:
    if isinstance(error, BaseExceptionGroup):
        inner = (
            [_read(one, depth + 1) for one in error.exceptions[:_LONGEST_CHAIN]]
            if depth < _LONGEST_CHAIN
            else []
        )
        if inner and all(outcome.kind == "nothing_sent" for outcome in inner):
            return _NOTHING_SENT
        return next((outcome for outcome in inner if outcome.kind == "refused"), _UNKNOWN)
    return next(
        (outcome for one in _chain(error) if (outcome := _said_by(one)) is not None), _UNKNOWN
    )


def _said_by(error: BaseException) -> Outcome | None:
    """What this one exception of a chain says; None when that is nothing, and its cause
    has to be asked.
    """
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
    """Walk from the outermost exception to its causes, in the order in which they say
    what happened to this call.

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


def _refusal(error: BaseException) -> Refusal | None:
    """Read the HTTP answer that an exception carries: openai's, httpx's and requests'
    `.response`, aiohttp's own `.status`.
    """
    response = field(error, "response")
    status = next(
        (
            found
            for holder in (error, response)
            for name in ("status_code", "status")
            if isinstance(found := field(holder, name), int)
        ),
        None,
    )
    if status is None:
        return None
    headers = field(error, "headers")
    if headers is None:
        headers = field(response, "headers")
    body = field(error, "body")
    if body is None:
        body = field(response, "_content")
    return read_refusal(status, headers, body)  # type: ignore[arg-type]  # it takes anything, and says what it expects
