"""The bodies that a metered transport puts in place of an answer's own.

One is metered while it passes; the other was read before and passes once more.

Owns their passing for what they replace, and their ends. Must never know what the bytes
mean (`metering.py` does), or import an HTTP library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Protocol

from ratelimit.integrations.proxies import TransparentProxy

LARGEST_ERROR: Final = 1_000_000
"""Bytes of a refusal's body that are read for its text; the client reads the rest."""


class Meter(Protocol):
    """What reads a body while it passes, as a `BodyMeter` does."""

    def pass_on(self, piece: bytes, /) -> None:
        """Read a piece on its way."""

    def end(self, *, complete: bool = False) -> None:
        """Take note of the body's end (`complete`), or that it was left."""

    def break_off(self) -> None:
        """Take note that the body broke off."""


class MeteredBody(TransparentProxy):
    """A body that is metered while it passes, for sync clients."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self.metered_inner = inner
        self._meter = meter

    def __iter__(self) -> Iterator[bytes]:
        meter = self._meter
        try:
            for chunk in self.metered_inner:
                meter.pass_on(chunk)
                yield chunk
            meter.end(complete=True)
        except Exception:
            meter.break_off()
            raise
        finally:
            meter.end()

    def close(self) -> None:
        """Close the body; settle by what is known of it."""
        try:
            self.metered_inner.close()
        finally:
            self._meter.end()


class AsyncMeteredBody(TransparentProxy):
    """A body that is metered while it passes, for async clients."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self.metered_inner = inner
        self._meter = meter

    async def __aiter__(self) -> AsyncIterator[bytes]:
        meter = self._meter
        try:
            async for chunk in self.metered_inner:
                meter.pass_on(chunk)
                yield chunk
            meter.end(complete=True)
        except Exception:
            meter.break_off()
            raise
        finally:
            meter.end()

    async def aclose(self) -> None:
        """Close the body; settle by what is known of it."""
        try:
            await self.metered_inner.aclose()
        finally:
            self._meter.end()


class BodyStart:
    """What was read of a refusal's body.

    Up to `LARGEST_ERROR` bytes, or up to the error that broke it off.
    """

    def __init__(self) -> None:
        self.broken: BaseException | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    def is_full_with(self, chunk: bytes) -> bool:
        """Take the next bytes; return whether they were enough."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        return self._size > LARGEST_ERROR

    def read(self) -> bytes:
        """Return what was read."""
        return b"".join(self._chunks)

    def replace(self, body: bytes) -> None:
        """Hand on `body` instead."""
        self._chunks = [body]


class ReplayedBody(TransparentProxy):
    """A refusal's body, once more for a sync client.

    What was read comes first, then the rest or the error that broke it off.
    """

    def __init__(self, inner: Any, start: BodyStart, rest: Iterator[bytes]) -> None:
        self.metered_inner = inner
        self._start = start
        self._rest = rest

    def __iter__(self) -> Iterator[bytes]:
        yield self._start.read()
        if self._start.broken is not None:
            raise self._start.broken
        yield from self._rest


class AsyncReplayedBody(TransparentProxy):
    """A refusal's body, once more for an async client."""

    def __init__(self, inner: Any, start: BodyStart, rest: AsyncIterator[bytes]) -> None:
        self.metered_inner = inner
        self._start = start
        self._rest = rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._start.read()
        if self._start.broken is not None:
            raise self._start.broken
        async for chunk in self._rest:
            yield chunk
