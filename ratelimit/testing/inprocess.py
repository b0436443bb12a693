"""The server without a network, which behaves as over a network.

Owns the way of a request from an httpx2 client to an ASGI app on the same event loop.
Must never touch limits.

httpx2's own ASGITransport returns a response when the app has finished it, and cancels
the app with its caller. Here, as over a wire, the headers of a stream arrive when they
are sent and its text as it is made; when the caller goes away, a stream notices it and
an answer that is computed in one go does not. On a virtual loop this keeps the moments
of headers and tokens right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx2

__all__ = ["InProcess"]

Message = MutableMapping[str, Any]
App = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]


class InProcess(httpx2.AsyncBaseTransport):
    """An async httpx2 transport to an ASGI app.

    It runs on asyncio only, because the app's time is its loop's.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        # the loop itself holds tasks by weak references only
        self._running: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Start the app on this request; return as soon as it has sent its headers."""
        exchange = _Exchange(await request.aread())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (request.url.host, request.url.port),
            "client": None,
        }
        task = asyncio.ensure_future(self._run(scope, exchange))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            start = await exchange.next()
        except asyncio.CancelledError:
            exchange.gone.set()
            raise
        return httpx2.Response(start["status"], headers=start["headers"], stream=_Stream(exchange))

    async def _run(self, scope: MutableMapping[str, Any], exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001  # `next` raises it to the caller
            exchange.end(error)
        else:
            exchange.end(
                httpx2.RemoteProtocolError(
                    "the app ended without completing its response", request=None
                )
            )


class _Exchange:
    """One request and its response, each a one-way queue of ASGI messages."""

    def __init__(self, body: bytes) -> None:
        self.gone = asyncio.Event()
        self._body: bytes | None = body
        self._messages: asyncio.Queue[Message | Exception] = asyncio.Queue()

    async def receive(self) -> Message:
        """Return the body to the app, then nothing until the caller is gone."""
        if self._body is None:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take a message of the app."""
        self._messages.put_nowait(message)

    def end(self, error: Exception) -> None:
        """End the app's messages by an error, which `next` raises."""
        self._messages.put_nowait(error)

    async def next(self) -> Message:
        """Return the app's next message."""
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message


class _Stream(httpx2.AsyncByteStream):
    """The response's body, piece by piece as the app sends it."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._exchange.next()
            more = message.get("more_body", False)
            if body := message.get("body"):
                yield body

    async def aclose(self) -> None:
        self._exchange.gone.set()
