"""A stream that settles its lease when it ends.

Owns the proxy around iterators and async iterators of chunks (SDK streams, generators):
what passes is read, nothing is changed or kept back.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from ratelimit.feedback import StreamUsage
from ratelimit.lease import AdmittedLease as Lease


class MeteredStream:
    """Behaves as the stream it wraps, also for ``isinstance``; settles by the usage in
    the last chunk, else by the text that passed.

    A stream closed early settles by what passed until then; one that raises, by the
    exception; one that is forgotten keeps its reserve.
    """

    def __init__(self, stream: Any, lease: Lease) -> None:
        self._stream = stream
        self._lease = lease
        self._meter = StreamUsage()
        self._done = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property  # as unittest.mock does: isinstance(proxy, openai.Stream) holds
    def __class__(self) -> type:
        return type(self._stream)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("the class of a metered stream is its stream's")

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            if self._meter.usage is not None:
                self._lease.settle(self._meter.usage)
            else:
                self._lease.settle_by_text(self._meter.text)

    def _fail(self, error: BaseException) -> None:
        if not self._done:
            self._done = True
            self._lease.fail(error)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        try:
            with self._lease.current():
                chunk = step(*args)
        except StopIteration:
            self._finish()
            raise
        except BaseException as error:
            self._fail(error)
            raise
        self._meter.feed(chunk)
        return chunk

    async def _step_async(self, step: Callable[..., Any], *args: Any) -> Any:
        try:
            with self._lease.current():
                chunk = await step(*args)
        except StopAsyncIteration:
            self._finish()
            raise
        except BaseException as error:
            self._fail(error)
            raise
        self._meter.feed(chunk)
        return chunk

    def __iter__(self) -> MeteredStream:
        return self

    def __next__(self) -> Any:
        return self._step(self._stream.__next__)

    def send(self, value: Any) -> Any:
        """As a generator's."""
        return self._step(self._stream.send, value)

    def throw(self, *error: Any) -> Any:
        """As a generator's."""
        return self._step(self._stream.throw, *error)

    def close(self) -> Any:
        """Close the stream and settle by what has passed."""
        try:
            return self._stream.close()
        finally:
            self._finish()

    def __aiter__(self) -> MeteredStream:
        return self

    async def __anext__(self) -> Any:
        return await self._step_async(self._stream.__anext__)

    async def asend(self, value: Any) -> Any:
        """As an async generator's."""
        return await self._step_async(self._stream.asend, value)

    async def athrow(self, *error: Any) -> Any:
        """As an async generator's."""
        return await self._step_async(self._stream.athrow, *error)

    async def aclose(self) -> None:
        """Close the stream and settle by what has passed."""
        await self._close_async("aclose")

    async def _close_async(self, name: str) -> None:
        try:
            await getattr(self._stream, name)()
        finally:
            self._finish()

    def __enter__(self) -> MeteredStream:
        self._stream.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        try:
            return self._stream.__exit__(kind, error, trace)
        finally:
            self._finish()

    async def __aenter__(self) -> MeteredStream:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        try:
            return await self._stream.__aexit__(kind, error, trace)
        finally:
            self._finish()
