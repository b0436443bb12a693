"""Asking: requests in, results out as they come, as many in flight as the limits let
through.

Owns the life of a run: taking requests no faster than they are sent, one task for each,
what failure concerns one request and what all of them, stopping softly and at once.
Must never come in: files, tables, signals, waiting for limits (the limiter's), retrying
(the SDK's).

*Flat memory.* A request holds one of a bounded number of slots from when it is taken
until its result is handed over; nothing is read ahead of the slots. Who does not bound
them himself has 64 at the start, one more for each answer that comes while most of them
are taken and nobody waits for the limits, and 1,000 at most, the connections of the
SDK's client: so the number follows what the limits and the answers' time ask for.

*Tasks that nobody has to nurse.* The tasks live in one of their own, outside the
iterating code: an async generator that kept them itself could not be left early, since
tasks must end where they began, and a generator may be closed from anywhere.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Final, Self

import anyio
import anyio.abc
import anyio.lowlevel

from ratelimit.batch.requests import Request, read_request
from ratelimit.batch.results import Result, answered, failed
from ratelimit.errors import InvalidArgument, LimiterError, RequestTooLarge
from ratelimit.feedback import read_exception
from ratelimit.lease import AdmittedLease
from ratelimit.limiter import RateLimiter

FIRST_SLOTS: Final = 64
MOST_SLOTS: Final = 1_000

Requests = Iterable[object] | AsyncIterable[object]


def run(
    requests: Requests,
    client: Any,
    limiter: RateLimiter,
    *,
    concurrency: int | None = None,
    priority: str | float = "batch",
) -> AsyncGenerator[Result, None]:
    """Ask all `requests` and yield a `Result` for each, as they come: not in order, at
    the full rate of the limits, without a 429.

        async for result in ratelimit.run(bodies, AsyncOpenAI(), RateLimiter(tpm=30_000)):
            print(result.custom_id, result.body if result.ok else result.reason)

    :param requests: an iterable or async iterable of request bodies, lines of the Batch
        API or `Request`; taken only as fast as they are sent. A sync one is read in the
        event loop: it should have its items at hand.
    :param client: an `openai.AsyncOpenAI` or its Azure form, wrapped or not; its own
        retries pass the limiter too.
    :param concurrency: at most so many requests taken and not yet handed back; by
        default as many as the limits ask for, 1,000 at most.
    :param priority: as in `RateLimiter.reserve`.

    A request that fails is a result with its error. What would befall every further one
    ends the run, once what was sent is answered and yielded: a refused key, a used-up
    account, a server that cannot be reached, an error of `requests` itself; that
    exception is then raised. Closing the generator stops at once and leaves no task,
    connection or lease behind. Works on asyncio and trio.
    """
    return _results(Batch(requests, client, limiter, concurrency=concurrency, priority=priority))


async def _results(batch: Batch) -> AsyncGenerator[Result, None]:
    try:
        async for result in batch:
            yield result
    finally:
        await batch.aclose()


class Batch:
    """One run, as an async iterator of results that can also be told to `stop`."""

    def __init__(
        self,
        requests: Requests,
        client: Any,
        limiter: RateLimiter,
        *,
        concurrency: int | None = None,
        priority: str | float = "batch",
    ) -> None:
        if not inspect.iscoroutinefunction(getattr(client, "post", None)) or not hasattr(
            client, "max_retries"
        ):
            raise InvalidArgument(
                f"run() takes an openai.AsyncOpenAI or AsyncAzureOpenAI client, not {type(client).__name__}"
            )
        if not isinstance(requests, (Iterable, AsyncIterable)) or isinstance(
            requests, (str, bytes)
        ):
            raise InvalidArgument(
                f"run() takes an iterable or async iterable of requests, not {type(requests).__name__}"
            )
        if concurrency is not None and (
            isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
        ):
            raise InvalidArgument(
                f"concurrency= must be a whole number of at least 1, not {concurrency!r}"
            )
        self._read = _reader(requests)
        self._client = limiter.wrap(client, priority=priority)
        self._limiter = limiter
        self._priority = priority
        self._slots = anyio.CapacityLimiter(concurrency or FIRST_SLOTS)
        self._grows = concurrency is None
        self._waiting: set[anyio.CancelScope] = set()
        self._stopped = False
        self._complete = False
        self._error: Exception | None = None
        self._life: _Life | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        if self._life is None:
            self._life = _Life()
            self._life.start(self._live)
        try:
            return await self._life.results.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._life.results.close()
        error, self._error = self._error, None
        if error is not None:
            raise error
        if not self._complete:
            raise LimiterError(
                "the run was cancelled by its event loop; results that came until then were handed over"
            )
        raise StopAsyncIteration

    def stop(self) -> None:
        """Send nothing more than the limits have let go by now; the iteration ends when
        that is answered.
        """
        self._stopped = True
        if self._life is not None:
            self._life.taking.cancel()
        for scope in self._waiting:
            scope.cancel()

    def cancel(self) -> None:
        """Stop at once, calls in flight included; the iteration ends."""
        self._stopped = self._complete = True
        if self._life is not None:
            self._life.running.cancel()

    async def aclose(self) -> None:
        """Stop at once, and return when nothing is left."""
        self.cancel()
        if self._life is None:
            self._life = _Life()  # an iteration that begins now ends now
            self._life.end()
        self._life.results.close()
        with anyio.CancelScope(shield=True):
            await self._life.ended.wait()

    # ---- inside the task ------------------------------------------------------------------------------------------------------------------

    async def _live(self, life: _Life) -> None:
        with life.running:
            async with anyio.create_task_group() as group:
                try:
                    with life.taking:
                        await self._take(group, life)
                except Exception as error:  # noqa: BLE001  # whatever `requests` raises is raised to who iterates, after the last result
                    self._error = self._error or error
        self._complete = True

    async def _take(self, group: anyio.abc.TaskGroup, life: _Life) -> None:
        number = 0
        while True:
            ticket = object()
            await self._slots.acquire_on_behalf_of(ticket)
            if self._stopped:  # a slot that was being handed over all the same
                return
            try:
                item = await self._read()
            except StopAsyncIteration:
                return
            number += 1
            request = item if isinstance(item, Request) else read_request(item, number)
            group.start_soon(self._serve, request, life, ticket)

    async def _serve(self, request: Request, life: _Life, ticket: object) -> None:
        try:
            result = await self._result(request)
            if result is not None:
                await life.send(result)
                self._grow()
        except Exception as error:  # noqa: BLE001  # raised to who iterates: it is none of one request's, those are results
            self._fail(error)
        finally:
            self._slots.release_on_behalf_of(ticket)

    async def _result(self, request: Request) -> Result | None:
        """Ask; None when the run has ended before this request was sent, or ends by it."""
        try:
            lease = await self._admitted(request)
        except RequestTooLarge as error:
            return Result(request, error={"code": "request_too_large", "message": str(error)})
        if lease is None:
            return None
        try:
            # the first attempt uses this admission; a retry of the SDK gets its own
            with lease.current():
                answer = await self._client.post(
                    request.path, cast_to=object, body=request.body, options=_RAW
                )
        except Exception as error:  # noqa: BLE001  # whatever becomes of one request is its result, and the run goes on
            if _concerns_all(error):
                self._fail(error)
                return None
            return failed(request, error)
        finally:
            if lease.claim():  # no attempt has used it: nothing was sent
                lease.cancel()
        return answered(request, answer.http_response)

    async def _admitted(self, request: Request) -> AdmittedLease | None:
        if self._stopped:
            return None
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                lease = await self._limiter.acquire(
                    request.body, endpoint=request.endpoint, priority=self._priority
                )
                if not self._stopped and isinstance(lease, AdmittedLease):
                    return lease
                # a task that was being woken already is not reached by the cancellation
                lease.cancel()
            finally:
                self._waiting.discard(scope)
        return None

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self.stop()

    def _grow(self) -> None:
        slots = self._slots
        needed = self._grows and slots.borrowed_tokens > slots.total_tokens / 2
        if needed and slots.total_tokens < MOST_SLOTS and not self._limiter.statistics().waiting:
            slots.total_tokens += 1


class _Life:
    """What exists while a run runs: a task of its own, the way out of it, and the
    scopes that end it.
    """

    def __init__(self) -> None:
        self._inlet, self.results = anyio.create_memory_object_stream[Result]()
        self.send = self._inlet.send
        self.running = anyio.CancelScope()
        self.taking = anyio.CancelScope()
        self.ended = anyio.Event()
        self._task: object = None

    def start(self, live: Callable[[_Life], Awaitable[None]]) -> None:
        """Run ``live(self)`` in a task that belongs to the event loop, not to the
        caller.
        """

        async def main() -> None:
            try:
                await live(self)
            finally:
                self.end()

        native: Any = anyio.lowlevel.current_token().native_token
        if hasattr(native, "create_task"):
            self._task = native.create_task(main(), name="ratelimit.run")
        else:
            import trio  # noqa: PLC0415  # trio is no dependency; here it runs

            trio.lowlevel.spawn_system_task(
                main, name="ratelimit.run", context=contextvars.copy_context()
            )

    def end(self) -> None:
        """No result comes any more."""
        self._inlet.close()
        self.ended.set()


_RAW: Final[Any] = {"headers": {"X-Stainless-Raw-Response": "true"}}
"""What ``with_raw_response`` sets: the SDK then hands over the HTTP answer, without
building models of it.
"""


def _reader(requests: Requests) -> Callable[[], Awaitable[object]]:
    if isinstance(requests, AsyncIterable):
        return aiter(requests).__anext__
    iterator = iter(requests)

    async def read() -> object:
        try:
            return next(iterator)
        except StopIteration:
            raise StopAsyncIteration from None

    return read


def _concerns_all(error: Exception) -> bool:
    """Whether every further request would end the same way: the key is refused, the
    account is used up, the server cannot be reached.
    """
    if getattr(error, "status_code", None) == 401:
        return True
    outcome = read_exception(error)
    if outcome.refusal is not None:
        # Hopeless for this one alone is a request larger than its limit, which names
        # that limit; an account's end names none.
        return (
            outcome.refusal.hopeless
            and outcome.refusal.kind is None
            and getattr(error, "status_code", None) != 413
        )
    return outcome.kind == "nothing_sent" and not isinstance(error, RequestTooLarge)
