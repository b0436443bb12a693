"""The server over real HTTP: uvicorn in a thread, on loopback.

Owns: the thread, the socket and their end. What must never come in: anything about limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ratelimit.errors import LimiterError

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as missing:  # pragma: no cover - tests install every extra
    raise ImportError("serving FakeOpenAI over HTTP needs uvicorn: pip install 'ratelimit-openai[testing]'") from missing

if TYPE_CHECKING:
    from ratelimit.testing.session import Connections

__all__ = ["serving"]


def _protocol(connections: Connections) -> type[H11Protocol]:
    """The HTTP protocol of uvicorn, telling which transport belongs to which caller, so that a fault can cut it."""

    class Protocol(H11Protocol):
        _caller: object = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # Head and body are two writes: together they would wait 40 ms for the client's delayed acknowledgement. asyncio sets this only on
            # sockets that name their protocol, which one accepted from `socket.create_server` does not.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._caller = transport.get_extra_info("peername")
            connections[self._caller] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            connections.pop(self._caller, None)
            super().connection_lost(exc)

    return Protocol


@contextlib.contextmanager
def serving(app: Callable[..., Awaitable[Any]], connections: Connections, host: str, port: int) -> Iterator[str]:
    """Serve `app` until the block ends; yields the base URL for an OpenAI client.

    Raises OSError when the port is taken, LimiterError when the web server does not come up.
    """
    listener = socket.create_server((host, port), backlog=2048)
    config = uvicorn.Config(
        app,
        http=_protocol(connections),
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
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="FakeOpenAI", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise LimiterError("the fake server's web server ended before it started; see the log of uvicorn.error")
            thread.join(0.005)
        yield f"http://{host}:{listener.getsockname()[1]}/v1"
    finally:
        server.force_exit = True  # calls in flight are cut off
        server.should_exit = True
        thread.join()
        listener.close()
