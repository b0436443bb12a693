"""One request's way through the server, from its arrival to the last byte.

Owns the order of events and every wait. Must never touch limits, arithmetic or the
shapes of bodies. An answer is billed when it is finished: in full when it is delivered,
up to the tokens made when its caller has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx2

from ratelimit.testing import refusals, replies
from ratelimit.testing.bodies import Answer
from ratelimit.testing.figures import wrong_usage
from ratelimit.testing.headers import EPOCH

if TYPE_CHECKING:
    from ratelimit.testing.faults import Fault, Faults
    from ratelimit.testing.headers import Headers
    from ratelimit.testing.requests import Call
    from ratelimit.testing.settings import Setup
    from ratelimit.testing.state import Attempt, ServerState

__all__ = ["Connections", "Session"]

Message = MutableMapping[str, Any]
Connections = MutableMapping[Hashable, asyncio.Transport]

_EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")


class Session:
    """One request and its answer.

    :param connection: the client's connection, which a fault may cut; None in process.
    """

    def __init__(
        self,
        setup: Setup,
        state: ServerState,
        call: Call,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        *,
        connection: asyncio.Transport | None,
    ) -> None:
        self._setup, self._state, self._call = setup, state, call
        self._receive, self._send, self._connection = receive, send, connection
        self._arrived = state.loop.time()
        self._made = 0.0  # share of the output that exists

    async def run(self, faults: Faults) -> None:
        """Decide and answer."""
        call = self._call
        await self._travel()
        if call.problem and call.problem.status != HTTPStatus.BAD_REQUEST:
            body = refusals.problem_body(call.problem)
            await self._turn_away(call.problem.status, "bad_request", body)
        elif call.endpoint == "models":
            await self._answer_models()
        else:
            fault = faults.draw(call.endpoint, call.model, call.path, "arrival")
            if fault and fault.instead:
                await self._answer_instead(fault)
            else:
                await self._answer_call(fault, faults)

    async def _turn_away(
        self, status: int, reason: str, body: refusals.ErrorBody, headers: Headers | None = None
    ) -> None:
        self._state.turn_away(self._call, status, reason, body.message)
        await self._answer(status, headers or [], body.data, body.kind)

    async def _answer_models(self) -> None:
        name = self._call.model
        if not name:
            listed = replies.model_list(self._state.model_names())
            await self._answer(200, [], replies.as_json(listed))
        elif self._state.serves(name):
            await self._answer(200, [], replies.as_json(replies.model(name)))
        else:
            text = f"The model '{name}' does not exist or you do not have access to it."
            body = refusals.error(text, "invalid_request_error", "model_not_found", "model")
            await self._answer(404, [], body.data)

    async def _answer_instead(self, fault: Fault) -> None:
        """Play a fault that takes the place of admission."""
        call, style = self._call, self._setup.rules.style
        if fault.kind == "error_200":
            await self._turn_away(200, fault.kind, refusals.error_in_200(fault.code))
            return

        if fault.kind == "wrong_refusal":
            refusal, headers = self._state.refuse_wrongly(call, fault)
            headers = headers + refusals.retry_headers(
                refusal, style, self._setup.rules.retry_after
            )
            await self._turn_away(
                429, fault.kind, refusals.refusal_body(refusal, call, style), headers
            )
            return

        headers = []
        if fault.kind == "redirect":
            query = f"?{call.query}" if call.query else ""
            headers = [(b"location", f"{quote(call.path)}/{query}".encode())]
        elif fault.kind == "wrong_wait":
            headers = [(b"retry-after", f"{fault.value:g}".encode())]

        failure = refusals.FAILURES[fault.kind]
        await self._turn_away(failure.status, fault.kind, failure.body(), headers)

    async def _answer_call(self, shown: Fault | None, faults: Faults) -> None:
        """Admit the call or refuse it, and answer."""
        call, rules = self._call, self._setup.rules
        style = rules.style
        if rules.queue and not call.problem:
            await self._state.turn(call)

        attempt = self._state.admit(call, shown)
        if attempt.refusal:
            body = refusals.refusal_body(attempt.refusal, call, style)
            self._state.end(attempt, 429, None, message=body.message)
            waits = refusals.retry_headers(attempt.refusal, style, rules.retry_after)
            headers = [] if style == "litellm" else attempt.headers
            await self._answer(429, headers + waits, body.data, body.kind, attempt)
        elif call.problem:
            body = refusals.problem_body(call.problem)
            self._state.end(attempt, 400, None, "bad_request", body.message)
            await self._answer(400, attempt.headers, body.data, body.kind, attempt)
        else:
            fault = faults.draw(call.endpoint, call.model, call.path, "answer")
            try:
                await self._serve(attempt, fault)
            finally:  # without effect unless the caller has gone: what was made is billed
                completion = int(attempt.usage.completion_tokens * self._made)
                made = replace(attempt.usage, completion_tokens=completion)
                self._state.end(attempt, 499, made, "aborted")

    async def _serve(self, attempt: Attempt, fault: Fault | None) -> None:
        latency = self._setup.latency
        factor = latency.draw(self._state.random)
        first = latency.base * factor + (fault.seconds if fault else 0.0)
        rest = latency.per_token * attempt.usage.completion_tokens * factor
        streamed = replies.is_streamed(self._call)
        kind = fault.kind if fault else ""
        if fault and (kind in {"500", "503", "drop"} or (kind == "broken_stream" and not streamed)):
            await self._fail(attempt, fault, first)
        elif streamed:
            await self._stream(attempt, fault, first, rest)
        else:
            await self._make(first, rest)
            self._state.end(attempt, 200, attempt.usage)
            body = replies.reply(self._content(attempt, fault))
            await self._answer(200, attempt.headers, body.data, body.kind, attempt)

    async def _make(self, first: float, rest: float) -> None:
        """Let the time of a whole answer pass, and note how far it got."""
        started = self._state.loop.time()
        try:
            await _sleep(first + rest)
        finally:
            passed = self._state.loop.time() - started - first
            self._made = min(1.0, max(0.0, passed / rest)) if rest else 1.0

    async def _fail(self, attempt: Attempt, fault: Fault, first: float) -> None:
        """Fail after admission: the charge stays, and nothing is settled."""
        await _sleep(first)
        if fault.kind == "drop":
            self._state.end(attempt, 0, None, fault.kind)
            await self._cut()
            return

        failure = refusals.FAILURES[fault.kind]
        body = failure.body()
        self._state.end(attempt, failure.status, None, fault.kind, body.message)
        await self._answer(failure.status, attempt.headers, body.data, body.kind, attempt)

    async def _stream(
        self, attempt: Attempt, fault: Fault | None, first: float, rest: float
    ) -> None:
        """Send headers first, then the text over its time, then the usage.

        Stop when the caller has gone.
        """
        gone = asyncio.ensure_future(self._receive())
        broken = fault is not None and fault.kind == "broken_stream"
        try:
            await _sleep(first, gone)
            await self._travel()
            await self._start(200, [*attempt.headers, _EVENTS], attempt)
            answer = self._content(attempt, fault)
            pieces = min(self._setup.pieces, max(1, attempt.usage.completion_tokens))
            for event in replies.stream_events(answer, pieces):
                await _sleep(rest * (event.share - self._made), gone)
                if gone.done():
                    return

                self._made = event.share
                if broken and event.share >= 0.5:
                    self._state.end(attempt, 200, None, "broken_stream")
                    failure = replies.failed_event(answer, refusals.BROKEN)
                    await self._send({"type": "http.response.body", "body": failure})
                    return

                if event.last:
                    self._state.end(attempt, 200, attempt.usage)

                await self._send(
                    {"type": "http.response.body", "body": event.data, "more_body": not event.last}
                )
        finally:
            gone.cancel()

    def _content(self, attempt: Attempt, fault: Fault | None) -> Answer:
        """Return all that the body depends on, with the wrong usage of a fault."""
        usage = attempt.usage
        wrong = fault is not None and fault.kind == "wrong_usage"
        return Answer(
            call=self._call,
            content=attempt.content,
            usage=wrong_usage(usage, fault) if fault and wrong else usage,
            output=usage.completion_tokens - usage.reasoning_tokens,
            identity=attempt.entry.request_id.removeprefix("req_"),
            created=EPOCH + int(self._state.loop.time()),
        )

    async def _answer(
        self,
        status: int,
        headers: Headers,
        data: bytes,
        kind: bytes = b"application/json",
        attempt: Attempt | None = None,
    ) -> None:
        await self._travel()
        described = [(b"content-type", kind), (b"content-length", b"%d" % len(data))]
        await self._start(status, [*headers, *described], attempt)
        await self._send({"type": "http.response.body", "body": data})

    async def _start(self, status: int, headers: Headers, attempt: Attempt | None) -> None:
        now = self._state.loop.time()
        general = [(b"date", formatdate(EPOCH + now, usegmt=True).encode())]
        if self._setup.rules.style not in {"nginx", "plain"} or status == HTTPStatus.OK:
            organisation = self._call.organisation.encode("latin-1", "replace")
            processing = int((now - self._arrived) * 1000)
            general += [
                (b"openai-organization", organisation),
                (b"openai-processing-ms", b"%d" % processing),
                (b"openai-version", b"2020-10-01"),
            ]
            if attempt:
                general.append((b"x-request-id", attempt.entry.request_id.encode()))

        await self._send(
            {"type": "http.response.start", "status": status, "headers": general + headers}
        )

    async def _cut(self) -> None:
        """Cut the connection.

        In process raise what an httpx2 client raises then: the SDK retries no other
        class.
        """
        if self._connection is None:
            raise httpx2.RemoteProtocolError(
                "the fake server dropped the connection, as a fault asked", request=None
            )

        self._connection.abort()
        # the web server learns of it before this call returns without an answer
        await asyncio.sleep(0)

    async def _travel(self) -> None:
        await _sleep(self._setup.latency.network(self._state.random))


async def _sleep(seconds: float, gone: asyncio.Future[Message] | None = None) -> None:
    """Sleep, no longer than until `gone` is done."""
    if seconds <= 0:
        return

    if gone is None:
        await asyncio.sleep(seconds)
    else:
        await asyncio.wait({gone}, timeout=seconds)
