"""The bodies that the HTTP door puts in place of an answer's own: one that is seen
passing, one that was read before.

Owns their passing for what they replace, and their ends. Must never come in: what the
bytes mean (`transport_metering.py`), HTTP libraries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from ratelimit.integrations.metering import BodyMeter

LARGEST_ERROR = 1_000_000
"""Bytes of a refusal's body that are read for its text; the rest is left to the client.
"""


class TransparentProxy:
    """Passes for the object it stands before, also with `isinstance`: HTTP clients
    check their streams' base class.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def __class__(self) -> type:
        return type(self._inner)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("a stream in disguise keeps its class")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class MeteredBody(TransparentProxy):
    """A body that the tap sees pass."""

    def __init__(self, inner: Any, tap: BodyMeter) -> None:
        self._inner = inner
        self._tap = tap

    def __iter__(self) -> Iterator[bytes]:
        feed = self._tap.feed
        try:
            for chunk in self._inner:
                feed(chunk)
                yield chunk
        except Exception as error:
            self._tap.fail(error)
            raise
        finally:
            self._tap.end()

    def close(self) -> None:
        """Close the body; settle by what has passed."""
        try:
            self._inner.close()
        finally:
            if not self._tap.done:
                self._tap.end()


class AsyncMeteredBody(TransparentProxy):
    """A body that the tap sees pass."""

    def __init__(self, inner: Any, tap: BodyMeter) -> None:
        self._inner = inner
        self._tap = tap

    async def __aiter__(self) -> AsyncIterator[bytes]:
        feed = self._tap.feed
        try:
            async for chunk in self._inner:
                feed(chunk)
                yield chunk
        except Exception as error:
            self._tap.fail(error)
            raise
        finally:
            self._tap.end()

    async def aclose(self) -> None:
        """Close the body; settle by what has passed."""
        try:
            await self._inner.aclose()
        finally:
            self._tap.end()


class ReplayedBody(TransparentProxy):
    """A refusal's body, once more for the client: what was read, then the rest or the
    error that broke it off.
    """

    def __init__(
        self, inner: Any, read: list[bytes], rest: Any, broken: BaseException | None
    ) -> None:
        super().__init__(inner)
        self._read = read
        self._rest = rest
        self._broken = broken

    def __iter__(self) -> Iterator[bytes]:
        yield from self._read
        if self._broken is not None:
            raise self._broken
        yield from self._rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._read:
            yield chunk
        if self._broken is not None:
            raise self._broken
        async for chunk in self._rest:
            yield chunk
