"""Asking: requests in, results out as they come, at the full rate of the limits.

Owns a run: taking requests no faster than they are sent, one task for each, stopping
softly and at once. Must never know files, tables or signals, or what an answer means.

*Flat memory.* A request holds one of a bounded number of slots from when it is taken
until its result is handed over; nothing is read ahead of the slots. Without a
``concurrency`` there are `FIRST_SLOTS` at the start, one more for each answer that
comes while most of them are taken and no call waits for the limits, and `MOST_SLOTS` at
most: so the number follows what the limits and the answers' time ask for.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from math import inf
from typing import Any, Final, Self

import anyio
import anyio.abc

from ratelimit.batch.asking import Asker, Ending
from ratelimit.batch.background import BackgroundTask
from ratelimit.batch.outage import Outage
from ratelimit.batch.requests import Request, read_endpoint, read_request
from ratelimit.batch.results import Result
from ratelimit.errors import InvalidArgument, LimiterError
from ratelimit.families import pattern_of
from ratelimit.limiter import RateLimiter
from ratelimit.limits import Limits, amount_of
from ratelimit.pool import Pool

FIRST_SLOTS: Final = 64
"""Requests in flight at the start."""

LOOK_EVERY: Final = 0.1
"""Seconds between two looks, while calls wait for the limits, whether they still do."""

MOST_SLOTS: Final = 1_000
"""Requests in flight at most: the connections of the SDK's client."""

Requests = Iterable[object] | AsyncIterable[object]


def run(
    requests: Requests,
    client: Any,
    limiter: RateLimiter | Pool,
    *,
    concurrency: int | None = None,
    priority: str | float = "batch",
    endpoint: str | None = None,
    patience: float | None = None,
    tenant: str | None = None,
) -> AsyncGenerator[Result, None]:
    """Ask all `requests` and yield a `Result` for each, as they come.

    The results come in no order, at the full rate of the limits, without a 429::

        limiter = RateLimiter(tpm=30_000)
        async for result in ratelimit.run(bodies, AsyncOpenAI(), limiter):
            print(result.custom_id, result.body if result.ok else result.reason)

    :param requests: an iterable or async iterable of request bodies, lines of the Batch
        API or `Request`; taken only as fast as they are sent. A sync one is read in the
        event loop: it should have its items at hand.
    :param client: an `openai.AsyncOpenAI` or its Azure form, wrapped or not; its own
        retries pass the limiter too.
    :param limiter: or a `Pool`; then the client is one of `Pool.client`.
    :param concurrency: the most requests taken and not yet handed back; by
        default as many as the limits ask for, 1,000 at most.
    :param priority: as in `RateLimiter.reserve`.
    :param endpoint: where bodies are asked that do not show it: "embeddings", or a path
        such as "/v1/rerank". Lines that name an endpoint keep theirs. Answers are JSON.
    :param patience: seconds for which a server that cannot be reached is waited for; by
        default 10 minutes once it has answered, and not at all before.
    :param tenant: as in `RateLimiter.reserve`.

    A request that fails is a result with its error. What every further one would share
    ends the run, once what was sent is answered and yielded: a spent budget of the
    limiter (`BudgetSpent`), a refused key, a used-up account, a model that does not
    exist, a server that stays away, 50 failures of one model alike with no answer of it
    between, an error of `requests` itself; that exception is then raised, and the
    request that showed it has no result. Closing the generator stops at once and leaves
    no task, connection or lease behind. Works on asyncio and trio.
    """
    batch = Batch(
        requests,
        client,
        limiter,
        concurrency=concurrency,
        priority=priority,
        endpoint=endpoint,
        patience=patience,
        tenant=tenant,
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
        limiter: RateLimiter | Pool,
        *,
        concurrency: int | None = None,
        priority: str | float = "batch",
        endpoint: str | None = None,
        patience: float | None = None,
        tenant: str | None = None,
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
        self._asker = Asker(client, limiter, priority, patience, tenant)
        self._limiter = limiter
        self._slots = anyio.CapacityLimiter(concurrency or FIRST_SLOTS)
        self._grows = concurrency is None
        self._grows_from = -inf
        self._complete = False
        self._task: BackgroundTask[Result] | None = None

    @property
    def outage(self) -> Outage | None:
        """The server's absence, while the run waits for it to end."""
        return self._asker.outage

    @property
    def ending(self) -> Ending:
        """Which failure has ended the run."""
        return self._asker.ending

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

        error, self._asker.error = self._asker.error, None
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
        self._asker.stop()
        if self._task is not None:
            self._task.taking.cancel()

    def pause(self) -> None:
        """Send nothing more until `resume`; what the limits have let go is finished."""
        self._asker.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self._asker.resume()

    def cancel(self) -> None:
        """Stop at once, calls in flight included; the iteration ends."""
        self._asker.stopped = self._complete = True
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
                    self._asker.error = self._asker.error or error
        self._complete = True

    async def _take(self, group: anyio.abc.TaskGroup, task: BackgroundTask[Result]) -> None:
        number = 0
        while True:
            ticket = object()
            await self._slots.acquire_on_behalf_of(ticket)
            if self._asker.stopped:  # a slot that was being handed over all the same
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
            result = await self._asker.ask(request)
            if result is not None:
                await task.send(result)
                self._grow(request)
        except Exception as error:  # noqa: BLE001  # raised after the last result
            self._asker.end(error, request)
        finally:
            if self._asker.error is not None:
                task.taking.cancel()
            self._slots.release_on_behalf_of(ticket)

    def _grow(self, request: Request) -> None:
        slots = self._slots
        now = anyio.current_time()
        is_wanted = (
            self._grows
            and MOST_SLOTS > slots.total_tokens < 2 * slots.borrowed_tokens
            and now >= self._grows_from
        )
        if not is_wanted:
            return

        if self._waits(request.model):
            self._grows_from = now + LOOK_EVERY
        else:
            slots.total_tokens += 1

    def _waits(self, model: str) -> bool:
        """Whether calls of a model's family wait for the limits."""
        if isinstance(self._limiter, Pool):
            return self._limiter.statistics().waiting > 0
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
