"""The run itself, from the first request to the summary.

Owns the signals, what is written when, and the silence about the API key. Must never
know how requests are asked (`batch/`) or what the summary looks like.

Failures that may turn out to be every request's are written once a later success of
their model has shown that they are not, or at the end. A run that ends by them does
not write them, so that the same command sends those requests again when the reason is
mended.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, nullcontext
from typing import Final

import anyio
from openai import AsyncOpenAI
from rich.console import Console, RenderableType

from ratelimit import Budget, BudgetSpent, Pool, RateLimiter
from ratelimit.batch import Result
from ratelimit.batch.failures import may_concern_all
from ratelimit.batch.journal import Journal
from ratelimit.batch.outage import Outage
from ratelimit.batch.running import Batch
from ratelimit.batch.survey import Source, Survey
from ratelimit.commands import CommandError
from ratelimit.commands.run.client import make_client
from ratelimit.commands.run.control import Control
from ratelimit.commands.run.display import display, table_of
from ratelimit.commands.run.ending import budget_spent, explain, why_away
from ratelimit.commands.run.meter import Meter
from ratelimit.commands.run.settings import RunSettings
from ratelimit.commands.run.summary import Outcome, show_summary
from ratelimit.commands.secrets import Address, Secrets
from ratelimit.commands.show import duration, say
from ratelimit.commands.streams import print_note

BUDGET_SPENT: Final = 3
"""The exit status of a run that its budget has ended."""

RETRIES: Final = 3
"""The SDK's own, of one request."""

LOOK_EVERY: Final = 0.2
"""Seconds between two looks at the figures."""

MOST_HELD: Final = 1_000
"""Failures that wait for a success before they are written."""

MOST_REASONS: Final = 100
"""Reasons of failures that are counted apart; the rest is counted together."""


class Session:
    """One run of the command; `run` it once."""

    def __init__(
        self,
        settings: RunSettings,
        journal: Journal,
        source: Source,
        survey: Survey,
        limiter: RateLimiter | Pool,
        console: Console,
        address: Address,
        secrets: Secrets,
        control: Control | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._source = source
        self._survey = survey
        self._limiter = limiter
        self._console = console
        self._address = address
        self._secrets = secrets
        self._earlier = survey.total - survey.left
        self._held: list[Result] = []
        self._reasons: Counter[str] = Counter()
        self._interrupted = False
        self._problem = ""
        self._status = 1  # where there is a problem
        self._control = control
        self._budget = budget
        self._outage: Outage | None = None
        self.meter = Meter(limiter, survey.left, self._earlier, survey.models, settings.prices)

    def run(self, key: str) -> int:
        """Ask what is left; return the exit status."""
        if self._earlier:
            say(
                self._console,
                f"{self._earlier} of {self._survey.total} requests have their results already.",
            )
        anyio.run(self._ask, key)
        failed_earlier = stale = 0
        if not self._settings.retry_failed:
            failed_earlier = self._survey.failed
            stale = len(self._journal.done.failed) - failed_earlier
        try:
            show_summary(
                self._settings,
                self.meter,
                self._outcome(failed_earlier, stale),
            )
        except CommandError as error:  # the figures could not be written
            self._problem = self._problem or str(error)
        if self._problem:
            print_note(f"ratelimit run: {self._problem}")
            return self._status

        if self._interrupted:
            return 130

        return 1 if self.meter.failed or failed_earlier else 0

    def _outcome(self, failed_earlier: int, stale: int) -> Outcome:
        control, budget = self._control, self._budget
        return Outcome(
            self._journal.path,
            self._earlier,
            failed_earlier,
            stale,
            self._reasons,
            control="" if control is None else control.shown,
            budget="" if budget is None else str(budget),
        )

    async def _ask(self, key: str) -> None:
        async with AsyncExitStack() as clients:
            if isinstance(self._limiter, Pool):
                for member in self._limiter.members:
                    await clients.enter_async_context(member.client)
            client = await clients.enter_async_context(self._client(key))
            batch = Batch(
                self._source,
                client,
                self._limiter,
                concurrency=self._settings.concurrency,
                priority=self._settings.priority,
                patience=self._settings.patience,
            )
            if self._control is not None and self._control.paused:
                batch.pause()
                say(self._console, f"{self._control.name}: paused from the start")
            with (
                self._table() as table,
                display(self._console, self.meter, self._notice, table) as look,
            ):
                async with anyio.create_task_group() as watchers:
                    watchers.start_soon(self._handle_signals, batch)
                    watchers.start_soon(self._watch, batch, look)
                    async with aclosing(batch):
                        await self._keep(batch)
                    watchers.cancel_scope.cancel()

    def _client(self, key: str) -> AsyncOpenAI:
        """Return the client of a run: the pool's, or one with this key."""
        if isinstance(self._limiter, Pool):
            client: AsyncOpenAI = self._limiter.client(
                priority=self._settings.priority, max_retries=RETRIES
            )
            return client
        return make_client(key, self._address, RETRIES, self.on_response)

    async def on_response(self, _: object) -> None:
        """Count an answer of a server."""
        self.meter.on_response()

    def _table(self) -> AbstractContextManager[Callable[[], RenderableType] | None]:
        if isinstance(self._limiter, Pool):
            return nullcontext()
        return table_of(self._console, self._limiter, wanted=self._settings.live)

    async def _keep(self, batch: Batch) -> None:
        """Write the results as they come, and find out why the run ends."""
        try:
            async for result in batch:
                self._take(result)
            self._write_held()
        except _DiskRefused as error:
            self._problem = str(error)
        except BudgetSpent as error:
            self._write_held()
            self._problem = budget_spent(error, self.meter.left - self.meter.done)
            self._status = BUDGET_SPENT
        except Exception as error:  # noqa: BLE001  # it ends the run: shown in one sentence, after the summary of what is kept
            sentence = explain(error, batch.ending, self._address, batch.outage)
            self._problem = self._secrets.mask(sentence)

    def _take(self, result: Result) -> None:
        if result.ok:
            if self._held:
                self._write_held(result.request.model)
        elif may_concern_all(result):
            self._held.append(result)
            if len(self._held) > MOST_HELD:
                self._write_held()
            return

        self._write(result)

    def _write_held(self, answered: str | None = None) -> None:
        """Write the failures that a success of this model, or the end, makes sure of.

        A success of any model shows that the server is well.
        """
        held, self._held = self._held, []
        for result in held:
            is_of_server = result.status is None or result.status >= 500
            if answered is None or is_of_server or result.request.model == answered:
                self._write(result)
            else:
                self._held.append(result)

    def _write(self, result: Result) -> None:
        result = self._secrets.mask_result(result)
        try:
            self._journal.write(result.line())
        except OSError as error:
            raise _DiskRefused(
                f"cannot write {self._journal.path}: {error.strerror or error}; the answers of the"
                " calls in flight are lost, run the command again when there is room"
            ) from None

        self.meter.record(result)
        if not result.ok:
            reason = result.reason[:300]
            if reason not in self._reasons and len(self._reasons) >= MOST_REASONS:
                reason = "other reasons"
            self._reasons[reason] += 1

    async def _handle_signals(self, batch: Batch) -> None:
        """Ctrl-C once: finish what is in flight; twice: stop now.

        Where the system has no such signals, once is at once.
        """
        if sys.platform == "win32":
            return

        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._interrupted:
                    batch.cancel()
                    return

                self._interrupted = True
                batch.stop()
                say(self._console, "finishing what is in flight; once more to stop now")

    async def _watch(self, batch: Batch, look: Callable[[], None]) -> None:
        while True:
            self._watch_outage(batch)
            self._obey(batch)
            look()
            await anyio.sleep(LOOK_EVERY)

    def _watch_outage(self, batch: Batch) -> None:
        """Show when the server goes away, and when it is back."""
        before, self._outage = self._outage, batch.outage
        if before is None and self._outage is not None:
            reason = self._secrets.mask(why_away(self._outage.error, self._address))
            say(
                self._console,
                f"{reason}; trying again for up to {duration(self._outage.patience)}"
                " (--patience), Ctrl-C ends the run",
            )
        elif before is not None and self._outage is None and not self._interrupted:
            away = duration(anyio.current_time() - before.since)
            say(self._console, f"{self._address.shown} answers again after {away}")

    def _obey(self, batch: Batch) -> None:
        """Do what the control file asks for, if it asks for anything else now."""
        control = self._control
        if control is None or self._interrupted:
            return
        sentence = control.look()
        if control.paused:
            batch.pause()
        else:
            batch.resume()
        if sentence:
            say(self._console, self._secrets.mask(sentence))

    def _notice(self) -> str:
        """Return what the progress shows of a pause, or while the server is away."""
        if self._control is not None and self._control.paused:
            return f"paused by {self._control.name}"
        if self._outage is None:
            return ""

        return f"server away for {duration(anyio.current_time() - self._outage.since)}"


class _DiskRefused(Exception):
    """A line of results could not be written; the message is the sentence to print."""
