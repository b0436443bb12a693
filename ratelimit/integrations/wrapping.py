"""The copy of a client that `RateLimiter.wrap` returns.

Owns what may be wrapped, how an SDK client and an HTTP client are copied, and which of
the two closes their shared connections. Must never change the client that was given.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ratelimit.control.engine import Engine
from ratelimit.errors import InvalidArgument
from ratelimit.integrations.rebinding import Rebinding
from ratelimit.integrations.requests import readable
from ratelimit.integrations.transport import AsyncTransport, HTTPMetering, Transport

C = TypeVar("C")


def wrap(
    engine: Engine, client: C, *, timeout: float | None, patience: float, tenant: str = ""
) -> C:
    """Return a client of the same type that waits for its turn at every attempt.

    The client that was given stays as it was, unmetered. The copy shares its
    connections, which belong to the given client: a copy that is forgotten closes
    nothing, and closing a copy closes the connections only when nothing else holds the
    given client any more, as after ``limiter.wrap(OpenAI())``.

    A decorator or a context manager of the same limiter around the call has paid for
    its first attempt; that one uses its lease.

    :param client: `openai.OpenAI`, `AsyncOpenAI`, their Azure forms and subclasses,
        clients of SDKs that are built alike (Anthropic's, Groq's), or a bare `httpx` or
        `httpx2` client, sync or async. Wrapping a client twice with one limiter and the
        same settings changes nothing more.
    :param timeout: seconds that an attempt may wait at most; raises `WaitTimeout` out
        of the call, which the SDK does not retry. The SDK's own timeout does not run
        while an attempt waits here.
    :param patience: seconds by which later attempts of less patience may overtake.
    :param tenant: for whom the calls are; "": for nobody in particular.
    :raises InvalidArgument: no such client, or one that cannot be copied whole: its
        methods were replaced by functions that call the given client.
    """
    metering = HTTPMetering(engine, timeout, patience, tenant)
    if _is_http_client(client):
        wrapped = _metered_http_client(client, metering)
    elif _is_sdk_client(client):
        http = vars(client)["_client"]
        metered = _metered_http_client(http, metering)
        wrapped = client if metered is http else _metered_sdk_client(client, metered)
    else:
        raise InvalidArgument(
            "wrap() takes a client of OpenAI's SDK, or of one that is built like it (Anthropic's,"
            f" Groq's), or an httpx or httpx2 client, not {type(client).__name__}. If that holds"
            " an OpenAI client, wrap the client and build it around the wrapped one; if it takes an"
            " HTTP client, as Google's and Mistral's SDKs do, give it"
            " http_client=limiter.wrap(httpx.Client()), by the name it has there;"
            " other clients use the decorator or limiter.reserve(...)"
        )

    engine.listen()
    return wrapped  # type: ignore[no-any-return]  # a copy of `client`


def _is_http_client(client: object) -> bool:
    transport = getattr(client, "_transport", None)
    return isinstance(getattr(client, "_mounts", None), dict) and (
        hasattr(transport, "handle_request") or hasattr(transport, "handle_async_request")
    )


def _is_sdk_client(client: object) -> bool:
    """Tell an SDK's client from an object that only passes look-ups on to one.

    A copy of the client inside would lose what such an object does.
    """
    fields = getattr(client, "__dict__", {})
    return (
        type(client) is client.__class__
        and callable(getattr(type(client), "copy", None))
        and _is_http_client(fields.get("_client"))
    )


def _metered_http_client(client: Any, metering: HTTPMetering) -> Any:
    """Copy an HTTP client and put a metering transport before each of its transports.

    Return the client itself when all of them are there already.
    """
    transports = [client._transport, *filter(None, client._mounts.values())]  # noqa: SLF001  # httpx has no public way to its transports
    if all(_meters(transport, metering) for transport in transports):
        return client

    connections = SharedConnections(client)
    wrapped = _shallow_copy(client)
    rebinding = Rebinding(client, wrapped)
    for name, value in vars(client).items():
        if callable(getattr(type(client), name, None)):
            setattr(wrapped, name, rebinding.method(name, value))

    wrapped._transport = _before(client._transport, client, metering, connections)  # noqa: SLF001
    wrapped._mounts = {  # noqa: SLF001
        pattern: transport and _before(transport, client, metering, connections)
        for pattern, transport in client._mounts.items()  # noqa: SLF001
    }
    wrapped._headers = client.headers.copy()  # noqa: SLF001
    wrapped._headers["accept-encoding"] = readable(client.headers.get("accept-encoding", ""))  # noqa: SLF001
    wrapped._cookies = type(client.cookies)(client.cookies)  # noqa: SLF001
    wrapped._event_hooks = {event: list(hooks) for event, hooks in client.event_hooks.items()}  # noqa: SLF001
    if not client.is_closed:
        # A client that has sent something cannot be entered by `with` any more; its
        # copy has sent nothing.
        wrapped._state = type(client._state).UNOPENED  # noqa: SLF001

    return wrapped


def _meters(transport: Any, metering: HTTPMetering) -> bool:
    return isinstance(transport, (Transport, AsyncTransport)) and transport.metering == metering


def _before(
    transport: Any, client: Any, metering: HTTPMetering, connections: SharedConnections
) -> Transport | AsyncTransport:
    """Put a metering transport before `transport`.

    It takes the place of one of this limiter with other settings: an attempt pays once.
    """
    sender = transport
    if (
        isinstance(transport, (Transport, AsyncTransport))
        and transport.metering.engine is metering.engine
    ):
        sender = transport.sender

    # Some transports, as the libraries' mocks, serve both kinds of clients.
    kind = AsyncTransport if hasattr(client, "aclose") else Transport
    return kind(metering, sender, transport, connections.are_used)


def _metered_sdk_client(client: Any, http: Any) -> Any:
    """Copy an SDK client onto another HTTP client.

    `client.copy` would call the constructor, which a subclass may have changed, and
    lose what was added to the instance.
    """
    wrapped = _shallow_copy(client)
    wrapped._client = http  # noqa: SLF001  # as the SDK names it
    Rebinding(client, wrapped).fields({"_client"})
    return wrapped


def _shallow_copy(client: Any) -> Any:
    try:
        copied = copy.copy(client)
    except Exception as error:
        raise InvalidArgument(
            f"wrap() cannot copy this {type(client).__name__} ({error!r}). Meter the HTTP client"
            " below it instead: http_client=limiter.wrap(openai.DefaultHttpxClient()), or"
            " DefaultAsyncHttpxClient()"
        ) from error
    if type(copied) is not type(client) or copied is client:
        raise InvalidArgument(
            f"wrap() cannot copy this {type(client).__name__}: copy.copy makes a"
            f" {type(copied).__name__} of it. Meter the HTTP client below it instead:"
            " http_client=limiter.wrap(openai.DefaultHttpxClient()), or DefaultAsyncHttpxClient()"
        )
    return copied


class SharedConnections:
    """The given HTTP client, kept as long as a copy uses its connections.

    The SDK's HTTP clients close their connections when they are collected, so a copy
    must hold the one that it was made of.
    """

    __slots__ = ("_given",)

    _HELD_HERE = 2
    """References that `are_used` itself sees: the field and the argument."""

    def __init__(self, given: object) -> None:
        self._given = given

    def are_used(self) -> bool:
        """Tell whether anything but the copies holds the given client.

        True where Python does not count references: then the connections are closed
        with the given client.
        """
        count: Callable[[object], int] | None = getattr(sys, "getrefcount", None)
        return count is None or count(self._given) > self._HELD_HERE
