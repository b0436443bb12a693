"""The metered transports of a client.

Every attempt, the SDK's own retries included, is admitted by the limiter, and every
answer corrects it. Owns the two transports, for threads and for tasks, which only
translate: admit, send, read the answer. Imports no HTTP library: any transport of
httpx's or httpx2's shape is used by its names (`handle_request` or
`handle_async_request`, `close` or `aclose`). Must never calculate, wait by itself, or
know what a body means (`requests.py` and `metering.py` do).

Realtime and Responses over WebSocket do not use HTTP, so they pass unmetered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self

from ratelimit.control.engine import Engine
from ratelimit.errors import LimiterError, LimiterWarning
from ratelimit.feedback import REFUSING_STATUSES, read_refusal
from ratelimit.integrations.bodies import (
    AsyncMeteredBody,
    AsyncReplayedBody,
    BodyStart,
    MeteredBody,
    ReplayedBody,
)
from ratelimit.integrations.metering import BodyMeter, body_meter, explained, plain_body
from ratelimit.integrations.requests import metered_call
from ratelimit.integrations.settlement import warn_once
from ratelimit.lease import AdmittedLease as Lease
from ratelimit.lease import enclosing_lease
from ratelimit.reservation import CallReservation

READ_EVERY: Final = 0.1
"""Seconds after an answer in which the headers of another one are not read.

In that time other users of a limit can take 0.2 % of a minute's amount at most, and the
client's own calls are known. Reading all of them costs 4 % of a call: `overhead_ratio`
of ``benchmarks/transport.py overhead`` is 0.04 higher then. Answers of one moment, as
virtual clocks have them, are all read, and so are those that show windows.
"""


@dataclass(frozen=True, slots=True)
class HTTPMetering:
    """What all transports of one client share.

    The limiter's engine, how long and how urgently an attempt waits, and what an answer
    settles.
    """

    engine: Engine
    timeout: float | None
    """Seconds that one attempt may wait at most."""
    patience: float
    """Seconds by which later attempts of less patience may overtake."""
    tenant: str = ""
    """For whom the calls are, where tenants have shares."""

    def admission(self, request: Any) -> CallReservation | Lease | None:
        """Find what admits a request; None when it costs nothing.

        A lease that was taken for it, or a reservation that has to be waited for.
        """
        call = metered_call(request)
        if call is None:
            return None

        engine = self.engine
        if call.endpoint == "files" and engine.only is None:
            # An upload is one request of limits that hold for all models: no model
            # answers it.
            return None

        lease = enclosing_lease()
        if (
            lease is not None
            and lease.belongs_to(engine.estimator)
            and lease.family is engine.family(call.model)
            and call.fits(lease.estimate)
            and lease.claim()
        ):
            return lease

        only_a_request = {"requests": 1.0} if call.body is None else None
        attempt = CallReservation(
            engine,
            {"model": call.model} if call.body is None else call.body,
            explicit_cost=only_a_request,
            timeout=self.timeout,
            patience=self.patience,
            endpoint=call.endpoint,
        ).for_attempt()
        return attempt.of(self.tenant) if self.tenant else attempt

    def answered(self, lease: Lease, response: Any, host: str) -> BodyMeter | None:
        """Read the head of an answer that is no refusal; return the meter of its body.

        None when no body will pass.

        :param host: the server's name: one code means different things elsewhere.
        """
        status: int = response.status_code
        if 300 <= status < 400:
            # The call is the request that follows the redirect.
            lease.redirect()
            return None

        raw = response.headers.raw
        family = lease.family
        now = family.admission.now()
        shows_windows = family.controller.windows.shown
        if status < 300 and 0 < now - family.headers_read_at < READ_EVERY and not shows_windows:
            lease.headers_arrived()
        else:
            family.headers_read_at = now
            lease.observe(raw, status=status)
        if status >= 400:
            _fail(lease, status)
            return None

        read = _read_already(response) if response.is_closed else None
        meter = body_meter(lease, raw, host, plain=read is not None)
        if read is None:
            return meter

        meter.feed(read)
        meter.end(complete=True)
        return None

    def refused(self, lease: Lease, response: Any, raw: bytes, host: str) -> bytes:
        """Settle a refusal; return the body to hand on.

        It is `raw` unless there is advice to add.

        :param host: the server's name: one code means different things elsewhere.
        """
        headers = response.headers
        body = plain_body(raw, headers)
        refusal = read_refusal(response.status_code, headers, body, host)
        if refusal is None:
            lease.observe(headers.raw, status=response.status_code)
            _fail(lease, response.status_code)
            return raw

        refusal = lease.refuse(refusal, response)
        if not refusal.hopeless:
            return raw

        headers["x-should-retry"] = "false"
        advised = explained(body, refusal)
        if advised is None:
            warn_once(refusal.advice, refusal.advice, LimiterWarning)
            return raw

        headers.pop("content-encoding", None)
        if "content-length" in headers:
            headers["content-length"] = str(len(advised))
        return advised


def as_sdk_error(error: LimiterError) -> LimiterError:
    """Make a limiter's error one of the SDK's kind as well, which it raises at once.

    Before 3.57 the SDK takes every exception that is not its own `OpenAIError` for a
    broken connection, tries again and raises an APIConnectionError instead (2.x even
    for its own ones, with the limiter's as the `__cause__`). The class of the error is
    replaced, not the error: its traceback, notes and figures stay.
    """
    sdk = getattr(sys.modules.get("openai"), "OpenAIError", None)
    if sdk is not None and not isinstance(error, sdk):
        error.__class__ = _sdk_kind(type(error), sdk)  # type: ignore[arg-type]  # can be hashed
    return error


@lru_cache(maxsize=16)
def _sdk_kind(kind: type[LimiterError], sdk: type[BaseException]) -> type[LimiterError]:
    """Return the class that is both kinds; see `LimiterError` for its pickling."""
    namespace = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, sdk), namespace)


def _fail(lease: Lease, status: int) -> None:
    """Settle an attempt that failed by this status, and was not refused."""
    if status < 500 and lease.estimate is not None and status not in {408, 409}:
        # A bad request is charged like a good one (13 of 13 recorded 400s), and no
        # more: it has no output.
        lease.settle(tokens=lease.estimate.charge, output_tokens=0)
    else:
        lease.abandon()


def _read_already(response: Any) -> bytes | None:
    """Return the plain body of an answer that no client will iterate.

    A mock's or a cache's, made of bytes; None where the body is still to come.
    """
    content = response.content
    return content if isinstance(content, bytes) else None


class Transport:
    """Meters a sync transport; any object with `handle_request` and `close` can be one.

    :param sender: sends the requests.
    :param given: the transport of the given client, which is closed with its
        connections.
    :param are_used: whether the given client still uses these connections; they are
        closed when it does not.
    """

    def __init__(
        self, metering: HTTPMetering, sender: Any, given: Any, are_used: Callable[[], bool]
    ) -> None:
        self.metering = metering
        self.sender = sender
        self._given = given
        self._are_used = are_used

    def handle_request(self, request: Any) -> Any:
        """Admit the request, send it, settle by the answer."""
        admission = self.metering.admission(request)
        if admission is None:
            return self.sender.handle_request(request)

        try:
            lease = admission if isinstance(admission, Lease) else admission.admit()
        except LimiterError as error:
            raise as_sdk_error(error)  # noqa: B904  # it is the same error

        try:
            response = self.sender.handle_request(request)
        except BaseException as error:
            lease.fail(error)
            raise

        if response.status_code in REFUSING_STATUSES:
            response.stream = self._refused(lease, response, request.url.host)
        else:
            meter = self.metering.answered(lease, response, request.url.host)
            if meter is not None:
                response.stream = MeteredBody(response.stream, meter)
        return response

    def _refused(self, lease: Lease, response: Any, host: str) -> ReplayedBody:
        start = BodyStart()
        rest = iter(response.stream)
        try:
            for chunk in rest:
                if start.is_full_with(chunk):
                    break
        except Exception as error:  # noqa: BLE001  # raised again where the client reads the body
            start.broken = error
        except BaseException:
            self.metering.refused(lease, response, start.read(), host)
            raise

        start.replace(self.metering.refused(lease, response, start.read(), host))
        return ReplayedBody(response.stream, start, rest)

    def close(self) -> None:
        """Close the connections, unless the given client uses them."""
        if not self._are_used():
            self._given.close()

    def __enter__(self) -> Self:
        self._given.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._are_used():
            self._given.__exit__(kind, error, trace)


class AsyncTransport:
    """Meters an async transport.

    Any object with `handle_async_request` and `aclose` can be one. The parameters are
    those of `Transport`.
    """

    def __init__(
        self, metering: HTTPMetering, sender: Any, given: Any, are_used: Callable[[], bool]
    ) -> None:
        self.metering = metering
        self.sender = sender
        self._given = given
        self._are_used = are_used

    async def handle_async_request(self, request: Any) -> Any:
        """Admit the request, send it, settle by the answer."""
        admission = self.metering.admission(request)
        if admission is None:
            return await self.sender.handle_async_request(request)

        try:
            lease = admission if isinstance(admission, Lease) else await admission.admit_async()
        except LimiterError as error:
            raise as_sdk_error(error)  # noqa: B904  # it is the same error

        try:
            response = await self.sender.handle_async_request(request)
        except BaseException as error:
            lease.fail(error)
            raise

        if response.status_code in REFUSING_STATUSES:
            response.stream = await self._refused(lease, response, request.url.host)
        else:
            meter = self.metering.answered(lease, response, request.url.host)
            if meter is not None:
                response.stream = AsyncMeteredBody(response.stream, meter)
        return response

    async def _refused(self, lease: Lease, response: Any, host: str) -> AsyncReplayedBody:
        start = BodyStart()
        rest = aiter(response.stream)
        try:
            async for chunk in rest:
                if start.is_full_with(chunk):
                    break
        except Exception as error:  # noqa: BLE001  # raised again where the client reads the body
            start.broken = error
        except BaseException:
            self.metering.refused(lease, response, start.read(), host)
            raise

        start.replace(self.metering.refused(lease, response, start.read(), host))
        return AsyncReplayedBody(response.stream, start, rest)

    async def aclose(self) -> None:
        """Close the connections, unless the given client uses them."""
        if not self._are_used():
            await self._given.aclose()

    async def __aenter__(self) -> Self:
        await self._given.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._are_used():
            await self._given.__aexit__(kind, error, trace)
