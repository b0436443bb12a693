"""The server over real HTTP: uvicorn in a thread.

Owns the thread, the socket and their end. Must never touch limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ratelimit.errors import LimiterError
from ratelimit.installation import install_command

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as missing:  # pragma: no cover - tests install every extra
    raise ImportError(
        f"serving FakeOpenAI over HTTP needs uvicorn: {install_command('testing')}"
    ) from missing

if TYPE_CHECKING:
    from ratelimit.testing.session import Connections

__all__ = ["serving"]

App = Callable[..., Awaitable[Any]]


class _Server(uvicorn.Server):
    """A web server that ends at once: it cuts calls in flight off, without an error.

    uvicorn on its own answers them with a 500 and prints that they were cancelled; from
    Python 3.12 on it waits for their end.
    """

    def __init__(self, app: App, connections: Connections) -> None:
        self._app, self._connections = app, connections
        config = uvicorn.Config(
            self._answer,
            http=self._protocol(),
            interface="asgi3",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="error",
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=60,
        )
        super().__init__(config)

    def _protocol(self) -> type[H11Protocol]:
        """Return uvicorn's HTTP protocol, which also records the transport of a caller.

        A fault, or the end, cuts it.
        """
        server, connections = self, self._connections

        class Protocol(H11Protocol):
            _caller: object = None

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                # Head and body are two writes: together they would wait 40 ms for the
                # client's delayed acknowledgement. asyncio sets this only on sockets
                # that name their protocol, which one accepted from
                # `socket.create_server` does not.
                transport.get_extra_info("socket").setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
                )
                self._caller = transport.get_extra_info("peername")
                connections[self._caller] = transport
                if server.should_exit:
                    transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                connections.pop(self._caller, None)
                super().connection_lost(exc)

        return Protocol

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.should_exit:
                raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut every connection, so that uvicorn has none to wait for."""
        for transport in list(self._connections.values()):
            transport.abort()
        await super().shutdown(sockets)

    def end(self) -> None:
        """Request the end; any thread may."""
        self.force_exit = self.should_exit = True


@contextlib.contextmanager
def serving(
    app: App, connections: Connections, host: str, port: int, prepare: Callable[[], None]
) -> Iterator[str]:
    """Serve `app` until the block ends; yield the base URL for an OpenAI client.

    :param prepare: called before the block is entered.

    Raises OSError when the address cannot be had, and LimiterError when the web server
    does not start.
    """
    listener = socket.create_server((host, port), backlog=2048)
    server = _Server(app, connections)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="FakeOpenAI", daemon=True
    )
    thread.start()
    try:
        prepare()
        while not server.started:
            if not thread.is_alive():
                raise LimiterError(
                    "the fake server's web server ended before it started; see the log of "
                    "uvicorn.error"
                )

            thread.join(0.005)
        yield f"http://{host}:{listener.getsockname()[1]}/v1"
    finally:
        server.end()
        thread.join()
        listener.close()
