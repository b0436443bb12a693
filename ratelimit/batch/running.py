"""Asking: requests in, results out as they come, at the full rate of the limits.

Owns a run: taking requests no faster than they are sent, one task for each, waiting for
a server that is away, stopping softly and at once. Must never know files, tables or
signals, wait for limits (the limiter does) or retry one request (the SDK does).

*Flat memory.* A request holds one of a bounded number of slots from when it is taken
until its result is handed over; nothing is read ahead of the slots. Without a
``concurrency`` there are `FIRST_SLOTS` at the start, one more for each answer that
comes while most of them are taken and no call waits for the limits, and `MOST_SLOTS` at
most: so the number follows what the limits and the answers' time ask for.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Final, Self

import anyio
import anyio.abc

from ratelimit.batch.background import BackgroundTask
from ratelimit.batch.failures import Failures, Kind, Verdict, kind_of_exception, kind_of_result
from ratelimit.batch.outage import Outage
from ratelimit.batch.requests import Request, read_endpoint, read_request
from ratelimit.batch.results import Result, answered, error_in, failed
from ratelimit.errors import InvalidArgument, LimiterError, RequestTooLarge
from ratelimit.families import pattern_of
from ratelimit.feedback import read_error
from ratelimit.lease import Lease
from ratelimit.limiter import RateLimiter
from ratelimit.limits import Limits, amount_of

FIRST_SLOTS: Final = 64
"""Requests in flight at the start."""

MOST_SLOTS: Final = 1_000
"""Requests in flight at most: the connections of the SDK's client."""

Requests = Iterable[object] | AsyncIterable[object]

_RAW: Final[Any] = {"headers": {"X-Stainless-Raw-Response": "true"}}
"""What ``with_raw_response`` sets: the SDK then hands over the HTTP answer, without
building models of it.
"""


def run(
    requests: Requests,
    client: Any,
    limiter: RateLimiter,
    *,
    concurrency: int | None = None,
    priority: str | float = "batch",
    endpoint: str | None = None,
    patience: float | None = None,
) -> AsyncGenerator[Result, None]:
    """Ask all `requests` and yield a `Result` for each, as they come.

    The results come in no order, at the full rate of the limits, without a 429.

        limiter = RateLimiter(tpm=30_000)
        async for result in ratelimit.run(bodies, AsyncOpenAI(), limiter):
            print(result.custom_id, result.body if result.ok else result.reason)

    :param requests: an iterable or async iterable of request bodies, lines of the Batch
        API or `Request`; taken only as fast as they are sent. A sync one is read in the
        event loop: it should have its items at hand.
    :param client: an `openai.AsyncOpenAI` or its Azure form, wrapped or not; its own
        retries pass the limiter too.
    :param concurrency: at most so many requests taken and not yet handed back; by
        default as many as the limits ask for, 1,000 at most.
    :param priority: as in `RateLimiter.reserve`.
    :param endpoint: where bodies are asked that do not show it: "embeddings", or a path
        such as "/v1/audio/speech". Lines that name an endpoint keep theirs.
    :param patience: seconds for which a server that cannot be reached is waited for; by
        default 10 minutes once it has answered, and not at all before.

    A request that fails is a result with its error. What every further one would share
    ends the run, once what was sent is answered and yielded: a refused key, a used-up
    account, a model that does not exist, a server that stays away, an error of
    `requests` itself; that exception is then raised, and the request that showed it has
    no result. Closing the generator stops at once and leaves no task, connection or
    lease behind. Works on asyncio and trio.
    """
    batch = Batch(
        requests,
        client,
        limiter,
        concurrency=concurrency,
        priority=priority,
        endpoint=endpoint,
        patience=patience,
    )
    return _results(batch)


async def _results(batch: Batch) -> AsyncGenerator[Result, None]:
    try:
        async for result in batch:
            yield result
    finally:
        await batch.aclose()


class Batch:
    """One run, as an async iterator of results that can be stopped; see `run`."""

    def __init__(
        self,
        requests: Requests,
        client: Any,
        limiter: RateLimiter,
        *,
        concurrency: int | None = None,
        priority: str | float = "batch",
        endpoint: str | None = None,
        patience: float | None = None,
    ) -> None:
        if not inspect.iscoroutinefunction(getattr(client, "post", None)) or not hasattr(
            client, "max_retries"
        ):
            raise InvalidArgument(
                "run() takes an openai.AsyncOpenAI or AsyncAzureOpenAI client, not"
                f" {type(client).__name__}"
            )
        if not isinstance(requests, (Iterable, AsyncIterable)) or isinstance(
            requests, (str, bytes)
        ):
            raise InvalidArgument(
                "run() takes an iterable or async iterable of requests, not"
                f" {type(requests).__name__}"
            )
        Limits(concurrency=concurrency)  # says what is wrong with it
        if patience is not None:
            patience = amount_of(patience, "patience=, in seconds,")
        self._endpoint = None if endpoint is None else read_endpoint(endpoint)
        self._read = _reader(requests)
        self._client = limiter.wrap(client, priority=priority)
        self._limiter = limiter
        self._priority = priority
        self._slots = anyio.CapacityLimiter(concurrency or FIRST_SLOTS)
        self._grows = concurrency is None
        self._failures = Failures(patience)
        self._waiting: set[anyio.CancelScope] = set()
        self._stopped = False
        self._complete = False
        self._error: Exception | None = None
        self._task: BackgroundTask[Result] | None = None
        self.outage: Outage | None = None
        """The server's absence, while the run waits for it to end."""
        self.culprit: Request | None = None
        """The request whose failure has ended the run."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        if self._task is None:
            self._task = BackgroundTask()
            self._task.start(self._work)
        try:
            return await self._task.results.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._task.results.close()

        error, self._error = self._error, None
        if error is not None:
            raise error

        if not self._complete:
            raise LimiterError(
                "the run was cancelled by its event loop; results that came until then were"
                " handed over"
            )
        raise StopAsyncIteration

    def stop(self) -> None:
        """Send nothing more than the limits have let go by now.

        The iteration ends when that is answered.
        """
        self._stopped = True
        if self._task is not None:
            self._task.taking.cancel()
        for scope in self._waiting:
            scope.cancel()

    def cancel(self) -> None:
        """Stop at once, calls in flight included; the iteration ends."""
        self._stopped = self._complete = True
        if self._task is not None:
            self._task.running.cancel()

    async def aclose(self) -> None:
        """Stop at once, and return when nothing is left."""
        self.cancel()
        if self._task is None:
            self._task = BackgroundTask()  # an iteration that begins now ends now
            self._task.end()
        self._task.results.close()
        with anyio.CancelScope(shield=True):
            await self._task.ended.wait()

    async def _work(self, task: BackgroundTask[Result]) -> None:
        with task.running:
            async with anyio.create_task_group() as group:
                try:
                    with task.taking:
                        await self._take(group, task)
                except Exception as error:  # noqa: BLE001  # raised after the last result
                    self._error = self._error or error
        self._complete = True

    async def _take(self, group: anyio.abc.TaskGroup, task: BackgroundTask[Result]) -> None:
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
            request = (
                item
                if isinstance(item, Request)
                else read_request(item, number, endpoint=self._endpoint)
            )
            group.start_soon(self._serve, request, task, ticket)

    async def _serve(self, request: Request, task: BackgroundTask[Result], ticket: object) -> None:
        try:
            result = await self._result(request)
            if result is not None:
                await task.send(result)
                self._grow(request)
        except Exception as error:  # noqa: BLE001  # raised after the last result
            self._end(error, request)
        finally:
            self._slots.release_on_behalf_of(ticket)

    async def _result(self, request: Request) -> Result | None:
        """Ask until there is a result; None when the run ends before there is one."""
        while not self._stopped:
            outage = self.outage
            if outage is None:
                answer = await self._ask(request)
            else:
                with anyio.CancelScope() as scope:
                    self._waiting.add(scope)
                    try:
                        await outage.wait_for_turn()
                    finally:
                        self._waiting.discard(scope)
                if scope.cancelled_caught:
                    return None
                try:
                    if self._stopped or self.outage is not outage:
                        continue
                    answer = await self._ask(request)
                finally:
                    outage.pass_turn()

            if not isinstance(answer, Kind):
                return answer
        return None

    async def _ask(self, request: Request) -> Result | Kind | None:
        """Send one request, the SDK's retries included.

        Returns the result, the kind of failure for which the request is to be sent once
        more, or None when the run has ended.
        """
        repeats = self._client.max_retries
        while True:
            try:
                lease = await self._admitted(request)
            except RequestTooLarge as error:
                return Result(request, error={"code": "request_too_large", "message": str(error)})
            if lease is None:
                return None

            try:
                result = await self._post(request, lease)
            except Exception as error:  # noqa: BLE001  # it is judged, and mostly a result
                return self._judge(request, kind_of_exception(error), error)

            if result.ok:
                self._failures.on_success(request.model)
                self._end_outage()
                return result

            # The SDK takes a refusal inside a success for an answer.
            refusal = read_error(error_in(result.body)) if result.error is None else None
            if refusal is None or refusal.hopeless or not repeats:
                return self._judge(request, kind_of_result(result), result)
            repeats -= 1

    async def _post(self, request: Request, lease: Lease) -> Result:
        try:
            # the first attempt uses this admission; a retry of the SDK gets its own
            with lease.current():
                answer = await self._client.post(
                    request.path, cast_to=object, body=request.body, options=_RAW
                )
        finally:
            if lease.claim():  # no attempt has used it: nothing was sent
                lease.cancel()
        return answered(request, answer.http_response)

    async def _admitted(self, request: Request) -> Lease | None:
        if self._stopped:
            return None

        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                lease = await self._limiter.acquire(
                    request.body, endpoint=request.endpoint, priority=self._priority
                )
                if not self._stopped:
                    return lease
                # a task that was being woken already is not reached by the cancellation
                lease.cancel()
            finally:
                self._waiting.discard(scope)
        return None

    def _judge(
        self, request: Request, kind: Kind, failure: Exception | Result
    ) -> Result | Kind | None:
        """Decide what becomes of a failed request, and of the run."""
        result = failure if isinstance(failure, Result) else failed(request, failure)
        error = (
            failure
            if isinstance(failure, Exception)
            else LimiterError(f"the server answers with an error: {result.reason}")
        )
        verdict = self._failures.on_failure(kind, request.model, result.code)
        if verdict is Verdict.WAIT:
            return self._await_server(request, kind, error)

        if kind not in {Kind.SERVER, Kind.UNREACHABLE}:
            self._end_outage()
        if verdict is Verdict.RESULT:
            return result

        self._end(error, request)
        # What is in the body is the request's own, and stays its result: the next run
        # over the same file goes on behind it.
        return result if kind is Kind.BODY else None

    def _await_server(self, request: Request, kind: Kind, error: Exception) -> Kind | None:
        now = anyio.current_time()
        if self.outage is None:
            self.outage = Outage(error, now, self._failures.patience)
        elif self.outage.is_over_patience(now):
            self._end(error, request)
            return None
        return kind

    def _end_outage(self) -> None:
        outage, self.outage = self.outage, None
        if outage is not None:
            outage.end()

    def _end(self, error: Exception, request: Request) -> None:
        if self._error is None:
            self._error = error
            self.culprit = request
        self.stop()

    def _grow(self, request: Request) -> None:
        slots = self._slots
        if (
            self._grows
            and slots.borrowed_tokens > slots.total_tokens / 2
            and slots.total_tokens < MOST_SLOTS
            and not self._waits(request.model)
        ):
            slots.total_tokens += 1

    def _waits(self, model: str) -> bool:
        """Whether calls of a model's family wait for the limits."""
        families = self._limiter.statistics().families
        family = families.get(pattern_of(model, families) or model)
        return family is not None and family.waiting > 0


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
