"""The HTTP door: every attempt of a client, the SDK's own retries included, passes the
limiter, and every answer steers it.

Owns how a client is wrapped, and the two transports, for threads and for tasks, which
only translate: admit, send, hear. Imports no HTTP library: any transport of httpx's or
httpx2's shape is wrapped by its names (`handle_request` or `handle_async_request`,
`close` or `aclose`). Must never come in: arithmetic, waiting of its own, knowledge of
bodies (`transport_metering.py` has it).

What is wrapped is the client's inner transport and those of its proxies, in a *copy* of
the client: the client that was given stays as it was, unmetered, and shares its
connections with the copy. Close one of them, when both are done. Copies made of the
copy (`with_options`) are metered as well, since all of them share one HTTP client.
Realtime and Responses over WebSocket go past HTTP, and so past this door.
"""

from __future__ import annotations

import copy
import sys
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from ratelimit.control.engine import Engine
from ratelimit.errors import InvalidArgument, LimiterError, LimiterWarning
from ratelimit.feedback import REFUSING_STATUSES, read_refusal
from ratelimit.integrations.bodies import LARGEST_ERROR, AsyncMeteredBody, MeteredBody, ReplayedBody
from ratelimit.integrations.metering import (
    BodyMeter,
    body_meter,
    body_of,
    endpoint_of,
    explained,
    plain_body,
    readable,
    warn_once,
)
from ratelimit.lease import AdmittedLease as Lease
from ratelimit.lease import enclosing_lease
from ratelimit.reservation import Reservation

C = TypeVar("C")

READ_EVERY: Final = 0.1
"""Seconds. Of a faster series of answers not all have their headers read: they say the
same, and it is a quarter of the work.
"""


def wrap(
    engine: Engine,
    client: C,
    *,
    timeout: float | None,
    patience: float,
) -> C:
    """Return a client of the same type whose every HTTP attempt waits for its turn at
    `limiter`.

    :param client: `openai.OpenAI`, `AsyncOpenAI`, their Azure forms and subclasses, or
        a bare `httpx` or `httpx2` client, sync or async. Wrapping a client twice with
        one limiter changes nothing more.
    :param timeout: seconds that an attempt may wait at most; raises `WaitTimeout` out
        of the call, which the SDK does not retry. The SDK's own timeout does not run
        while an attempt waits here.
    :param priority: of all calls of this client; as in `RateLimiter.reserve`.

    The limiter hears the headers of every answer from now on: it starts with one call,
    learns the limits that were not given, and follows the server's levels. A call that
    the decorator or a context manager of the same limiter has admitted is not paid
    twice: its first attempt uses that lease.
    """
    door = Door(engine, timeout, patience)
    inner = client if _is_http_client(client) else getattr(client, "_client", None)
    if not _is_http_client(inner) or not (
        inner is client or callable(getattr(client, "copy", None))
    ):
        raise InvalidArgument(
            f"wrap() takes an OpenAI or AsyncOpenAI client, or an httpx or httpx2 client, not {type(client).__name__}; around other clients"
            " use the decorator or limiter.reserve(...)"
        )
    engine.listen()
    wrapped = door.http_client(inner)
    return wrapped if inner is client else client.copy(http_client=wrapped)  # type: ignore[no-any-return, attr-defined]  # the SDK's says Self


def _is_http_client(client: object) -> bool:
    transport = getattr(client, "_transport", None)
    return isinstance(getattr(client, "_mounts", None), dict) and (
        hasattr(transport, "handle_request") or hasattr(transport, "handle_async_request")
    )


class Door:
    """What both transports of one client share: the limiter, how long and how urgently
    to wait, and what an answer means.
    """

    __slots__ = ("engine", "patience", "timeout")

    def __init__(self, engine: Engine, timeout: float | None, patience: float) -> None:
        self.engine = engine
        self.timeout = timeout
        self.patience = patience

    def http_client(self, client: Any) -> Any:
        """Copy an HTTP client and put the door before each of its transports."""
        wrapped = copy.copy(client)
        wrapped._transport = self._before(client._transport, client)  # noqa: SLF001  # httpx has no public way to its transports
        wrapped._mounts = {  # noqa: SLF001
            pattern: transport and self._before(transport, client)
            for pattern, transport in client._mounts.items()  # noqa: SLF001
        }
        wrapped._headers = client.headers.copy()  # noqa: SLF001
        wrapped._headers["accept-encoding"] = readable(client.headers.get("accept-encoding", ""))  # noqa: SLF001
        return wrapped

    def _before(self, transport: Any, client: Any) -> Any:
        if (
            isinstance(transport, (Transport, AsyncTransport))
            and transport.door.engine is self.engine
        ):
            return transport
        # of the client: some transports, as the libraries' mocks, serve both kinds
        if hasattr(client, "aclose"):
            return AsyncTransport(self, transport, client)
        return Transport(self, transport, client)

    def claim(self, request: Any) -> Reservation | Lease | None:
        """Find what a request has to pay: a reservation still to be admitted, a lease
        that was admitted for it, or None: nothing.
        """
        if request.method != "POST":
            return None
        metered = endpoint_of(request.url.path)
        if metered is None:
            return None
        endpoint, deployment = metered
        engine = self.engine
        if endpoint == "files":
            if engine.only is None:
                return None
            return Reservation(
                engine,
                {},
                explicit_cost={"requests": 1},
                timeout=self.timeout,
                patience=self.patience,
            )
        lease = enclosing_lease()
        if lease is not None and lease.belongs_to(engine.estimator) and lease.claim():
            return lease
        return Reservation(
            engine,
            body_of(request, endpoint, deployment),
            timeout=self.timeout,
            patience=self.patience,
            endpoint=endpoint,
        )

    def heard(self, lease: Lease, response: Any) -> BodyMeter | None:
        """Hear the head of an answer that is no refusal; the tap sees its body, None
        when there is nothing to see pass.
        """
        status: int = response.status_code
        family = lease.family
        now = family.admission.now()
        raw = response.headers.raw
        answered = 200 <= status < 300
        if answered and 0 < now - family.headers_read_at < READ_EVERY:
            lease.headers_arrived()
        else:
            family.headers_read_at = now
            lease.observe(raw, status=status)
        if not answered:
            if 400 <= status < 500 and lease.estimate is not None and status not in {408, 409}:
                # A bad request is charged like a good one (13 of 13 recorded 400s), and
                # no more: it has no output.
                lease.settle(tokens=lease.estimate.charge, output_tokens=0)
            else:
                lease.abandon()
            return None
        read = _read_already(response) if response.is_closed else None
        tap = body_meter(lease, raw, plain=read is not None)
        if read is None:
            return tap
        tap.feed(read)
        tap.end()
        return None

    def refused(self, lease: Lease, response: Any, raw: bytes) -> bytes:
        """Hear a refusal; return the body to hand on, which is `raw` unless there is
        advice to add.
        """
        headers = response.headers
        body = plain_body(raw, headers)
        refusal = read_refusal(response.status_code, headers, body)
        if refusal is None:
            lease.close()
            return raw
        refusal = lease.refuse(refusal)
        if not refusal.hopeless:
            return raw
        headers["x-should-retry"] = "false"
        told = explained(body, refusal)
        if told is None:
            warn_once(refusal.advice, refusal.advice, LimiterWarning)
            return raw
        headers.pop("content-encoding", None)
        if "content-length" in headers:
            headers["content-length"] = str(len(told))
        return told


def final(error: LimiterError) -> LimiterError:
    """Make an error of ours one that the SDK hands on at once.

    Before 3.57 it takes every exception that is not its own `OpenAIError` for a broken
    connection, tries again and hides it behind an APIConnectionError (2.x even its own,
    where ours is the `__cause__`). So ours becomes one of its kind as well, and stays
    what it was.
    """
    sdk = getattr(sys.modules.get("openai"), "OpenAIError", None)
    if sdk is not None and not isinstance(error, sdk):
        ours = type(error)
        error.__class__ = type(
            ours.__name__, (ours, sdk), {"__module__": ours.__module__, "__doc__": ours.__doc__}
        )
    return error


def _read_already(response: Any) -> bytes | None:
    """The plain body of an answer that no client will iterate: a mock's or a cache's,
    made of bytes.
    """
    content = response.content
    return content if isinstance(content, bytes) else None


class Transport:
    """Stands before a sync transport; any object with `handle_request` and `close` can
    be one.
    """

    def __init__(self, door: Door, inner: Any, owner: object) -> None:
        self.door = door
        self._inner = inner
        # the client that was copied closes its connections when it is collected: keep
        # it
        self._owner = owner

    def handle_request(self, request: Any) -> Any:
        """Admit the request, send it, hear the answer."""
        claim = self.door.claim(request)
        if claim is None:
            return self._inner.handle_request(request)
        try:
            lease = claim if isinstance(claim, Lease) else claim.admit()
        except LimiterError as error:
            raise final(error)  # noqa: B904  # it is the same one
        try:
            response = self._inner.handle_request(request)
        except BaseException as error:
            lease.fail(error)
            raise
        if response.status_code in REFUSING_STATUSES:
            response.stream = self._refused(lease, response)
        else:
            tap = self.door.heard(lease, response)
            if tap is not None:
                response.stream = MeteredBody(response.stream, tap)
        return response

    def _refused(self, lease: Lease, response: Any) -> Any:
        chunks: list[bytes] = []
        rest = iter(response.stream)
        broken: BaseException | None = None
        try:
            size = 0
            for chunk in rest:
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST_ERROR:
                    break
        except Exception as error:  # noqa: BLE001  # raised again where the client reads the body
            broken = error
        except BaseException:
            lease.close()
            raise
        return ReplayedBody(
            response.stream, [self.door.refused(lease, response, b"".join(chunks))], rest, broken
        )

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)


class AsyncTransport:
    """Stands before an async transport; any object with `handle_async_request` and
    `aclose` can be one.
    """

    def __init__(self, door: Door, inner: Any, owner: object) -> None:
        self.door = door
        self._inner = inner
        self._owner = owner

    async def handle_async_request(self, request: Any) -> Any:
        """Admit the request, send it, hear the answer."""
        claim = self.door.claim(request)
        if claim is None:
            return await self._inner.handle_async_request(request)
        try:
            lease = claim if isinstance(claim, Lease) else await claim.admit_async()
        except LimiterError as error:
            raise final(error)  # noqa: B904  # it is the same one
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            lease.fail(error)
            raise
        if response.status_code in REFUSING_STATUSES:
            response.stream = await self._refused(lease, response)
        else:
            tap = self.door.heard(lease, response)
            if tap is not None:
                response.stream = AsyncMeteredBody(response.stream, tap)
        return response

    async def _refused(self, lease: Lease, response: Any) -> Any:
        chunks: list[bytes] = []
        rest = aiter(response.stream)
        broken: BaseException | None = None
        try:
            size = 0
            async for chunk in rest:
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST_ERROR:
                    break
        except Exception as error:  # noqa: BLE001  # raised again where the client reads the body
            broken = error
        except BaseException:
            lease.close()
            raise
        return ReplayedBody(
            response.stream, [self.door.refused(lease, response, b"".join(chunks))], rest, broken
        )

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)
