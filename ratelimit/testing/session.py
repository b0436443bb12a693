"""One request's way through the server, from the desk to the last byte.

Owns: the order of events and every wait. What must never come in: limits, arithmetic,
the shapes of bodies. An answer is billed when it is finished: in full when it is
delivered, up to the tokens made when its caller has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import httpx2

from ratelimit.testing import refusals, replies
from ratelimit.testing.ledger import Usage

if TYPE_CHECKING:
    from ratelimit.testing.faults import Fault, Faults
    from ratelimit.testing.headers import Headers
    from ratelimit.testing.requests import Call
    from ratelimit.testing.state import Desk, Setup, Visit

__all__ = ["Connections", "Session"]

Message = MutableMapping[str, Any]
Connections = MutableMapping[Hashable, asyncio.Transport]

EPOCH = 1_767_225_600  # 2026-01-01, so that `created` and `date` depend on the loop's time alone

_JSON = (b"content-type", b"application/json")
_TYPES = {"audio.speech": (b"content-type", b"audio/wav")}
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_FLEX = "Flex does not have sufficient resources available to process your request. Please try again later."
_BARE = "Rate limit reached. Please slow down and try again."
_BROKEN = "The server had an error while processing your request. Sorry about that!"
_OVERLOADED = "The server is currently overloaded with other requests. Sorry about that! You can retry your request."

# kind of fault: (status, message, type, code)
_FAILURES: dict[str, tuple[int, str, str | None, str | None]] = {
    "429": (429, _BARE, "requests", "rate_limit_exceeded"),
    "quota": (429, _QUOTA, "insufficient_quota", "insufficient_quota"),
    "slow_down": (429, refusals.SLOW_DOWN, "rate_limit_error", "slow_down"),
    "flex": (429, _FLEX, None, None),
    "500": (500, _BROKEN, "server_error", None),
    "broken_stream": (500, _BROKEN, "server_error", None),
    "503": (503, _OVERLOADED, "server_error", "server_is_overloaded"),
}


class Session:
    """One request and its answer."""

    def __init__(
        self,
        setup: Setup,
        desk: Desk,
        call: Call,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        *,
        connection: asyncio.Transport | None,
    ) -> None:
        self._setup, self._desk, self._call = setup, desk, call
        self._receive, self._send, self._connection = receive, send, connection
        self._arrived = desk.loop.time()
        self._made = 0.0  # share of the output that exists

    async def run(self, faults: Faults) -> None:
        """Decide and answer."""
        call = self._call
        await self._travel()
        if call.problem and call.problem.status != 400:
            await self._turn_away(
                call.problem.status, "bad_request", refusals.problem_body(call.problem)
            )
        elif call.endpoint == "models":
            await self._answer(200, [], replies.model_list(self._setup.quotas.models()))
        else:
            fault = faults.draw(call.endpoint)
            if fault and fault.before:
                status, message, kind, code = _FAILURES[fault.kind]
                await self._turn_away(status, fault.kind, refusals.error(message, kind, code))
            else:
                await self._admitted_or_not(fault)

    async def _turn_away(self, status: int, reason: str, body: bytes) -> None:
        self._desk.turn_away(self._call, status, reason, refusals.message_of(body))
        await self._answer(status, [], body)

    async def _admitted_or_not(self, fault: Fault | None) -> None:
        visit, style = self._desk.admit(self._call), self._setup.rules.style
        if visit.refusal:
            body = refusals.refusal_body(visit.refusal, self._call, style)
            self._desk.leave(visit, 429, None, message=refusals.message_of(body))
            await self._answer(
                429, visit.headers + refusals.retry_headers(visit.refusal, style), body, visit
            )
        elif self._call.problem:
            body = refusals.problem_body(self._call.problem)
            self._desk.leave(visit, 400, None, "bad_request", refusals.message_of(body))
            await self._answer(400, visit.headers, body, visit)
        else:
            try:
                await self._served(visit, fault)
            finally:  # the caller is gone: what was made is billed
                made = Usage(
                    visit.usage.prompt_tokens, int(visit.usage.completion_tokens * self._made)
                )
                self._desk.leave(visit, 499, made, "aborted")

    async def _served(self, visit: Visit, fault: Fault | None) -> None:
        latency = self._setup.latency
        factor = latency.draw(self._desk.random)
        first = latency.base * factor + (fault.seconds if fault else 0.0)
        rest = latency.per_token * visit.usage.completion_tokens * factor
        if (
            fault
            and fault.kind != "slow"
            and not (fault.kind == "broken_stream" and self._call.stream)
        ):
            await self._fail(visit, fault, first)
        elif self._call.stream and self._call.endpoint in {
            "chat.completions",
            "responses",
            "completions",
        }:
            await self._stream(
                visit, first, rest, broken=fault is not None and fault.kind == "broken_stream"
            )
        else:
            started = self._desk.loop.time()
            try:
                await _sleep(first + rest)
            finally:
                passed = self._desk.loop.time() - started - first
                self._made = 1.0 if not rest else min(1.0, max(0.0, passed / rest))
            self._desk.leave(visit, 200, visit.usage)
            body = replies.reply(
                self._call, visit.usage, identity=_identity(visit), created=self._created()
            )
            await self._answer(200, visit.headers, body, visit)

    async def _fail(self, visit: Visit, fault: Fault, first: float) -> None:
        """A failure after admission: the charge stays, nothing is settled."""
        await _sleep(first)
        if fault.kind == "drop":
            self._desk.leave(visit, 0, None, fault.kind)
            await self._cut()
            return
        status, message, kind, code = _FAILURES[fault.kind]
        body = refusals.error(message, kind, code)
        self._desk.leave(visit, status, None, fault.kind, refusals.message_of(body))
        await self._answer(status, visit.headers, body, visit)

    async def _stream(self, visit: Visit, first: float, rest: float, *, broken: bool) -> None:
        """Headers first, then the text over its time, then the usage; stops when the
        caller has gone.
        """
        gone = asyncio.ensure_future(self._receive())
        try:
            await _sleep(first, gone)
            await self._travel()
            await self._start(200, [*visit.headers, _EVENTS], visit)
            identity, created = _identity(visit), self._created()
            pieces = min(self._setup.pieces, visit.usage.completion_tokens)
            events = replies.stream_events(
                self._call, visit.usage, identity=identity, created=created, pieces=pieces
            )
            for event in events:
                await _sleep(rest * (event.share - self._made), gone)
                if gone.done():
                    return
                self._made = event.share
                if broken and event.share >= 0.5:
                    self._desk.leave(visit, 200, None, "broken_stream")
                    failure = replies.failed_event(
                        self._call, identity=identity, created=created, message=_BROKEN
                    )
                    await self._send({"type": "http.response.body", "body": failure})
                    return
                if event.last:
                    self._desk.leave(visit, 200, visit.usage)
                await self._send(
                    {"type": "http.response.body", "body": event.data, "more_body": not event.last}
                )
        finally:
            gone.cancel()

    async def _answer(
        self, status: int, headers: Headers, body: bytes, visit: Visit | None = None
    ) -> None:
        kind = _TYPES.get(self._call.endpoint, _JSON) if status == 200 else _JSON
        await self._travel()
        await self._start(status, [*headers, kind, (b"content-length", b"%d" % len(body))], visit)
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: Headers, visit: Visit | None) -> None:
        now = self._desk.loop.time()
        general = [
            (b"date", formatdate(EPOCH + now, usegmt=True).encode()),
            (b"openai-organization", self._call.organisation.encode("latin-1", "replace")),
            (b"openai-processing-ms", b"%d" % int((now - self._arrived) * 1000)),
            (b"openai-version", b"2020-10-01"),
        ]
        if visit:
            general.append((b"x-request-id", visit.entry.request_id.encode()))
        await self._send(
            {"type": "http.response.start", "status": status, "headers": general + headers}
        )

    async def _cut(self) -> None:
        """Cut the connection: abort it over HTTP; in process raise what an httpx2
        client sees then (the SDK retries no other class).
        """
        if self._connection is None:
            raise httpx2.RemoteProtocolError(
                "the fake server dropped the connection, as it was told to", request=None
            )
        self._connection.abort()
        # lets the web server hear of it before this call returns without an answer
        await asyncio.sleep(0)

    async def _travel(self) -> None:
        await _sleep(self._setup.latency.network(self._desk.random))

    def _created(self) -> int:
        return EPOCH + int(self._desk.loop.time())


def _identity(visit: Visit) -> str:
    return visit.entry.request_id.removeprefix("req_")


async def _sleep(seconds: float, gone: asyncio.Future[Message] | None = None) -> None:
    """Sleep, no longer than until `gone` is done."""
    if seconds <= 0:
        return
    if gone is None:
        await asyncio.sleep(seconds)
    else:
        await asyncio.wait({gone}, timeout=seconds)
