"""A connection on which the head of a queue sends its step, and waits in its own way.

Owns the bytes of one command and of its reply. Must never know what a step says, or
connect again: what goes wrong here is mended by the thread of the steps.
"""

from __future__ import annotations

import socket
from typing import Any

from redis.exceptions import RedisError


class LinkError(OSError):
    """The server cannot be reached or refuses; the step may have been taken."""


class Line:
    """Carries one step at a time.

    :param connection: of redis-py, connected, and nobody else's.
    :param start: the bytes of the command up to the step.
    """

    def __init__(self, connection: Any, start: bytes) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock  # noqa: SLF001  # it has no other name
        self._start = start

    def __del__(self) -> None:
        self._socket.close()  # in a forked process the parent's stays open

    def fileno(self) -> int:
        """Return the number by which an event loop knows the socket."""
        return self._socket.fileno()

    def send(self, ask: bytes) -> None:
        """Send one step.

        Raises `LinkError` where the connection is broken.
        """
        try:
            self._socket.sendall(b"%b$%d\r\n%b\r\n" % (self._start, len(ask), ask))
        except OSError as error:
            raise LinkError(f"{type(error).__name__}: {error}") from error

    def read(self) -> bytes:
        """Return the reply to the step that was sent.

        Raises `LinkError` where the connection is broken, or the server refuses.
        """
        try:
            reply = self._connection.read_response(disable_decoding=True)
        except (RedisError, OSError) as error:
            raise LinkError(f"{type(error).__name__}: {error}") from error
        if not isinstance(reply, bytes):
            raise LinkError("the reply is none to a step")
        return reply

    def shut(self) -> None:
        """Let nobody wait for a reply any more; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is shut

    def close(self) -> None:
        """Close the connection; nobody waits for it."""
        self._connection.disconnect()
