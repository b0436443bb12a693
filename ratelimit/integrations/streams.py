"""What a decorated function returns before its call is over.

A stream, an awaitable, or one that is a context manager as well. Owns the proxies that
meter them: what passes is read, nothing is changed or kept back. Must never know how
chunks are read (`feedback/` does) or what settles (`settlement.py` does).
"""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from types import MethodType, TracebackType
from typing import Any, Final

from ratelimit.feedback import StreamUsage
from ratelimit.integrations.proxies import TransparentProxy, proxy_class
from ratelimit.integrations.settlement import SettleBy, settle_answer, settle_stream, warn_of_unread
from ratelimit.lease import AdmittedLease as Lease
from ratelimit.lease.flights import note_reader


class StreamMeter:
    """Reads the chunks of one call and settles its lease at their end.

    :param by: what settles a stream without usage.
    :param unsettled: called at the end of a stream that keeps its reserve.
    :param host: the server's name, "" when it is not known.
    """

    def __init__(
        self, lease: Lease, by: SettleBy, unsettled: Callable[[Lease], None], host: str
    ) -> None:
        self.lease = lease
        self.by = by
        self._host = host
        self._unsettled = unsettled
        self._usage = StreamUsage()
        self._begun = self._done = False
        self._is_read = True

    def begin(self) -> None:
        """Note that the call was sent, though no chunk may have come yet."""
        self._begun = True

    def feed(self, chunk: object) -> None:
        """Read a chunk; one that is a text counts where texts settle.

        A stream of which a chunk cannot be read keeps its reserve.
        """
        self._begun = True
        try:
            if self.by == "text" and isinstance(chunk, str):
                chunk = {"choices": [{"text": chunk}]}
            self._usage.feed(chunk)
        except Exception as error:  # noqa: BLE001  # a foreign object may raise anything
            self._is_read = False
            warn_of_unread(error)

    def settle(self, answer: object) -> None:
        """Settle by a whole answer, if it says what the call used."""
        if not self._done:
            self._done = settle_answer(self.lease, answer, by=self.by)

    def end(self, *, complete: bool = False) -> None:
        """Settle a stream that came to its end (`complete`) or was left."""
        if self._done:
            return

        self._done = True
        if not self._is_read:
            self.lease.close()
        elif not settle_stream(
            self.lease, self._usage, complete=complete, by=self.by, host=self._host
        ):
            self._unsettled(self.lease)

    def fail(self, error: BaseException) -> None:
        """Settle by an exception that ended the stream.

        A stream that has shown its last word and its usage settles by these.
        """
        if self._done:
            return
        if self._usage.finished and self._usage.usage is not None and self._is_read:
            self.end()
            return

        self._done = True
        if self._begun:
            self.lease.break_off(error)
        else:
            self.lease.fail(error)


def is_stream(answer: object) -> bool:
    """Tell whether an answer comes in chunks: an iterator or async iterator.

    A file is none, though it can be iterated.
    """
    kind = type(answer)
    iterates = hasattr(kind, "__next__") or hasattr(kind, "__anext__")
    return iterates and not issubclass(kind, io.IOBase)


def is_pending(answer: object) -> bool:
    """Tell whether a call is not over with what a function has returned.

    A stream, an awaitable, or a manager that sends when it is entered. One that can be
    closed is open already, as a file or a picture is.
    """
    if is_stream(answer) or inspect.isawaitable(answer):
        return True

    kind = type(answer)
    enters = hasattr(kind, "__enter__") or hasattr(kind, "__aenter__")
    return enters and not (hasattr(kind, "close") or hasattr(kind, "aclose"))


def metered(inner: Any, meter: StreamMeter, settle: Callable[[Any], Any]) -> Any:
    """Return what stands for `inner`, with exactly its protocols.

    :param settle: settles by what an awaitable gives or a context manager hands out,
        and returns it, or what stands for it.
    """
    return proxy_class(MeteredStream, inner)(inner, meter, settle)


_READING: Final = ("until_done", "get_final_")
"""How the SDKs name the methods of a stream that read it to its end."""


class MeteredStream(TransparentProxy):
    """Stands for an iterator, generator, awaitable or context manager.

    A stream that came to its end settles by its usage, or by its text where that is
    the whole answer; one that raises, by the exception; one that was left or forgotten
    keeps its reserve.
    """

    def __init__(self, inner: Any, meter: StreamMeter, settle: Callable[[Any], Any]) -> None:
        self.metered_inner = inner
        self.metered_by = meter
        self.metered_settle = settle
        self.metered_entered: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.metered_inner, name)
        if name in {"send", "throw"}:
            return partial(self.metered_step, found)
        if name in {"asend", "athrow"}:
            return partial(self.metered_step_async, found)
        if name in {"close", "aclose"} and callable(found):
            is_async = inspect.iscoroutinefunction(found) or name == "aclose"
            return partial(self.metered_close_async if is_async else self.metered_close, found)
        if name.startswith(_READING) and inspect.ismethod(found):
            # It reads what is iterated here.
            return MethodType(found.__func__, self)
        return found

    def metered_step(self, step: Callable[..., Any], *args: Any) -> Any:
        """Take the next chunk, by a method of the stream's own."""
        meter = self.metered_by
        try:
            with meter.lease.current():
                chunk = step(*args)
        except StopIteration:
            meter.end(complete=True)
            raise
        except BaseException as error:
            meter.fail(error)
            raise

        return self.metered_read(chunk)

    async def metered_step_async(self, step: Callable[..., Any], *args: Any) -> Any:
        """Take the next chunk, by an async method of the stream's own."""
        meter = self.metered_by
        try:
            with meter.lease.current():
                chunk = await step(*args)
        except StopAsyncIteration:
            meter.end(complete=True)
            raise
        except BaseException as error:
            meter.fail(error)
            raise

        return self.metered_read(chunk)

    def metered_read(self, chunk: Any) -> Any:
        """Read a chunk; what interrupts that ends the call by its error."""
        try:
            self.metered_by.feed(chunk)
        except BaseException as error:
            self.metered_by.fail(error)
            raise

        note_reader(self.metered_by.lease)
        return chunk

    def metered_close(self, close: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Close the stream and settle by what is known of it."""
        try:
            return close(*args, **kwargs)
        finally:
            self.metered_by.end()

    async def metered_close_async(
        self, close: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Close the stream and settle by what is known of it."""
        try:
            return await close(*args, **kwargs)
        finally:
            self.metered_by.end()

    def metered__iter__(self) -> Any:
        """Iterate over the stream by `metered__next__`, or over what it makes."""
        if hasattr(type(self.metered_inner), "__next__"):
            return self
        return self._chunks(iter(self.metered_inner))

    def _chunks(self, chunks: Iterator[Any]) -> Iterator[Any]:
        stream = metered(chunks, self.metered_by, self.metered_settle)
        try:
            yield from stream
        finally:
            self.metered_by.end()

    def metered__next__(self) -> Any:
        """Take the next chunk."""
        return self.metered_step(self.metered_inner.__next__)

    def metered__aiter__(self) -> Any:
        """Iterate over the stream by `metered__anext__`, or over what it makes."""
        if hasattr(type(self.metered_inner), "__anext__"):
            return self
        return self._chunks_async(aiter(self.metered_inner))

    async def _chunks_async(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for chunk in metered(chunks, self.metered_by, self.metered_settle):
                yield chunk
        finally:
            self.metered_by.end()

    async def metered__anext__(self) -> Any:
        """Take the next chunk."""
        return await self.metered_step_async(self.metered_inner.__anext__)

    def metered__await__(self) -> Generator[Any, Any, Any]:
        """Await the result and settle by it."""
        return self._awaited().__await__()

    async def _awaited(self) -> Any:
        meter = self.metered_by
        try:
            with meter.lease.current():
                result = await self.metered_inner
        except BaseException as error:
            meter.fail(error)
            raise

        return self.metered_settle(result)

    def metered__enter__(self) -> Any:
        """Enter, and meter what is handed out."""
        meter = self.metered_by
        try:
            with meter.lease.current():
                entered = self.metered_inner.__enter__()
        except BaseException as error:
            meter.fail(error)
            raise

        return self._entered(entered)

    def metered__exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        """Leave, and settle by what is known by then."""
        try:
            return self.metered_inner.__exit__(kind, error, trace)
        finally:
            self._exited(error)

    async def metered__aenter__(self) -> Any:
        """Enter, and meter what is handed out."""
        meter = self.metered_by
        try:
            with meter.lease.current():
                entered = await self.metered_inner.__aenter__()
        except BaseException as error:
            meter.fail(error)
            raise

        return self._entered(entered)

    async def metered__aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        """Leave, and settle by what is known by then."""
        try:
            return await self.metered_inner.__aexit__(kind, error, trace)
        finally:
            self._exited(error)

    def _entered(self, entered: Any) -> Any:
        self.metered_by.begin()
        if entered is self.metered_inner:
            return self
        if is_stream(entered):
            return metered(entered, self.metered_by, self.metered_settle)

        self.metered_entered = entered
        return entered

    def _exited(self, error: BaseException | None) -> None:
        meter = self.metered_by
        if self.metered_entered is not None and error is None:
            meter.settle(self.metered_entered)
        if error is not None:
            meter.fail(error)
        else:
            meter.end()
