"""`ratelimit run`: a file of requests in, a file of answers out.

Owns the order of things (is the file usable, what is left to do, ask, sum up), the
signals, the exit status, and the silence about the API key. Must never come in: how
requests are asked or results kept (`batch/`), how it is shown (`progress.py`).

Exit statuses: 0 every request has its answer, 1 some failed or the run could not go on
(what was done is kept), 2 the input or the arguments cannot be used (nothing was sent),
130 interrupted (what was done is kept).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from openai import AsyncOpenAI
from rich.console import Console

from ratelimit.batch.journal import Done, Journal
from ratelimit.batch.running import Batch
from ratelimit.batch.survey import Source, Survey
from ratelimit.commands import CommandError, check_writable
from ratelimit.commands.forecast import show_forecast
from ratelimit.commands.progress import Meter, Prices, display
from ratelimit.commands.show import duration, table
from ratelimit.commands.tiers import limits_of
from ratelimit.errors import LimiterError
from ratelimit.families import pattern_of
from ratelimit.feedback import read_exception
from ratelimit.limiter import RateLimiter
from ratelimit.limits import Limits

RETRIES: Final = 3  # the SDK's own, of one request
CAPTION: Final = "limits: what was used of a full bucket and its refill, from the first answer to the last sending."
LOOK_EVERY: Final = 0.2  # seconds
SHORTEST_KEY: Final = 12  # a shorter text is no key, and may stand in any answer


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments of the command; see `ratelimit run --help`."""

    file: Path
    output: Path | None = None
    rpm: float | None = None
    tpm: float | None = None
    rpd: float | None = None
    tpd: float | None = None
    tier: str | None = None
    model: str | None = None
    base_url: str | None = None
    concurrency: int | None = None
    priority: str = "batch"
    retry_failed: bool = False
    dry_run: bool = False
    price_in: float | None = None
    price_out: float | None = None
    json_path: Path | None = None

    @property
    def prices(self) -> Prices:
        """Of a million tokens."""
        return Prices(self.price_in, self.price_out)


def run(settings: Settings) -> int:
    """Do what the settings say; return the exit status."""
    if settings.tier is not None and any(
        limit is not None for limit in (settings.rpm, settings.tpm, settings.rpd, settings.tpd)
    ):
        raise CommandError("give a tier or limits, not both")
    check_writable(settings.json_path)
    if settings.dry_run:
        source = Source(
            settings.file,
            Done.read(settings.output) if settings.output else Done(),
            model=settings.model,
            retry=settings.retry_failed,
        )
        survey = _usable(source.survey())
        return show_forecast(
            source, make_limiter(settings, survey), settings.prices, settings.json_path
        )
    if settings.output is None:
        raise CommandError(
            "where should the results go? Give -o FILE (or --dry-run, which sends nothing)"
        )
    key, address = _key(), _address(settings)
    console = Console(stderr=True)
    with Journal(settings.output) as journal:
        source = Source(
            settings.file, journal.done, model=settings.model, retry=settings.retry_failed
        )
        survey = _usable(source.survey())
        limiter = make_limiter(settings, survey)
        if journal.healed:
            _say(console, journal.healed)
        if settings.retry_failed and survey.left:
            journal.forget_failures()
        return _Run(settings, journal, source, survey, limiter, console).go(key, address)


def make_limiter(settings: Settings, survey: Survey) -> RateLimiter:
    """The limiter of the limits that were given; of those of a tier; or one that learns
    them, of each model family apart.
    """
    if settings.tier is not None:
        return (
            RateLimiter(limits=limits_of(settings.tier, survey.models))
            if survey.models
            else RateLimiter()
        )
    given = Limits(rpm=settings.rpm, tpm=settings.tpm, rpd=settings.rpd, tpd=settings.tpd)
    families: list[str] = []
    # "gpt-4o" before its snapshots, which share its limits
    for model in sorted(survey.models, key=len):
        if pattern_of(model, families) is None:
            families.append(model)
    if len(given) or len(families) < 2:
        return RateLimiter(limits=given)
    return RateLimiter(limits={family: Limits() for family in families})


def _usable(survey: Survey) -> Survey:
    if survey.broken:
        more = (
            f"; and {survey.broken - len(survey.problems)} more like these"
            if survey.broken > len(survey.problems)
            else ""
        )
        raise CommandError("; ".join(survey.problems) + more + ". Nothing was sent")
    return survey


def _key() -> str:
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise CommandError(
            "there is no API key: set OPENAI_API_KEY (to any text for a server that asks for none)"
        )
    # it would not fit into a header, and the error about that would show it
    if not key.isascii() or not key.isprintable() or " " in key:
        raise CommandError(
            "OPENAI_API_KEY holds a space, a line break or another sign that no key has"
        )
    return key


def _address(settings: Settings) -> str | None:
    address = settings.base_url or os.environ.get("OPENAI_BASE_URL") or None
    if address is not None and not address.startswith(("http://", "https://")):
        raise CommandError(
            f"the base URL should begin with http:// or https://, such as http://127.0.0.1:8000/v1, not {address!r}"
        )
    return address


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, highlight=False, markup=False, soft_wrap=True)


class _Run:
    """The run itself, from the first request to the summary."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        source: Source,
        survey: Survey,
        limiter: RateLimiter,
        console: Console,
    ) -> None:
        self._settings, self._journal, self._source, self._survey, self._limiter = (
            settings,
            journal,
            source,
            survey,
            limiter,
        )
        self._console = console
        done = journal.done
        self._earlier = survey.total - survey.left
        self._failed_earlier = 0 if settings.retry_failed else len(done.failed)
        self._reasons: Counter[str] = Counter()
        self._interrupted = False
        self._problem = ""
        self.meter = Meter(limiter, survey.left, self._earlier, survey.models, settings.prices)

    def go(self, key: str, address: str | None) -> int:
        """Ask what is left; return the exit status."""
        if self._survey.left:
            if self._earlier:
                _say(
                    self._console,
                    f"{self._earlier} of {self._survey.total} requests have their results already.",
                )
            anyio.run(self._ask, key, address)
        self._sum_up()
        if self._problem:
            print(f"ratelimit run: {self._problem}", file=sys.stderr)
            return 1
        if self._interrupted:
            return 130
        return 1 if self.meter.failed or self._failed_earlier else 0

    async def _ask(self, key: str, address: str | None) -> None:
        secret = key.encode() if len(key) >= SHORTEST_KEY else b""
        async with AsyncOpenAI(api_key=key, base_url=address, max_retries=RETRIES) as client:
            batch = Batch(
                self._source,
                client,
                self._limiter,
                concurrency=self._settings.concurrency,
                priority=self._settings.priority,
            )
            with display(self._console, self.meter) as look:
                async with anyio.create_task_group() as watchers:
                    watchers.start_soon(self._listen, batch)
                    watchers.start_soon(_tick, look)
                    async with aclosing(batch):
                        await self._keep(batch, secret, str(client.base_url))
                    watchers.cancel_scope.cancel()

    async def _keep(self, batch: Batch, secret: bytes, address: str) -> None:
        try:
            async for result in batch:
                line = result.line()
                self._write(line.replace(secret, b"***") if secret else line)
                self.meter.hear(result)
                if not result.ok:
                    self._reasons[result.reason.replace(secret.decode() or "\0", "***")[:300]] += 1
        except _DiskRefused as error:
            self._problem = str(error)
        except Exception as error:  # noqa: BLE001  # it ends the run: said in one sentence, after the summary of what is kept
            self._problem = _explained(error, address)

    def _write(self, line: bytes) -> None:
        try:
            self._journal.write(line)
        except OSError as error:
            raise _DiskRefused(
                f"cannot write {self._journal.path}: {error.strerror or error}; the answers of the calls in flight are lost, run the command"
                " again when there is room"
            ) from None

    async def _listen(self, batch: Batch) -> None:
        """Ctrl-C once: finish what is in flight; twice: stop now. Where the system has
        no such signals, once is at once.
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
                _say(self._console, "finishing what is in flight; once more to stop now")

    def _sum_up(self) -> None:
        meter, output = self.meter, self._journal.path
        rows = [
            ("answered", f"{meter.done - meter.failed:,}"),
            ("failed", f"{meter.failed:,}"),
            ("results from before", f"{self._earlier:,}"),
            ("left for another run", f"{meter.left - meter.done:,}"),
            ("429s", f"{meter.refused:,}"),
            ("time", duration(meter.seconds)),
            ("tokens in", f"{meter.prompt_tokens:,}"),
            ("tokens out", f"{meter.output_tokens:,}"),
        ]
        rows += [
            (f"of the limit of {name} per {duration(per)}", f"{share:.0%}")
            for (name, per), share in meter.share().items()
        ]
        if (cost := meter.cost) is not None:
            rows.append(("cost", f"{cost:,.2f}"))
        out = Console()
        out.print(table(str(output), ("", ""), rows, CAPTION if meter.share() else ""))
        for reason, count in self._reasons.most_common(3):
            _say(out, f"{count} failed by {reason}")
        if self._failed_earlier and not meter.failed:
            _say(
                out,
                f"{self._failed_earlier} results from before are failures; --retry-failed sends them again",
            )
        if self._settings.json_path is not None:
            _write_json(self._settings.json_path, meter, self._earlier)


class _DiskRefused(Exception):
    """A line of results could not be written; the message is the sentence to print."""


async def _tick(look: Any) -> None:
    while True:
        look()
        await anyio.sleep(LOOK_EVERY)


def _explained(error: Exception, address: str) -> str:
    """Why a run cannot go on, in one sentence that never repeats what a server says of
    the key.
    """
    again = "; what was done is kept, run the command again to go on"
    if getattr(error, "status_code", None) == 401:
        return f"{address} refuses the API key; set OPENAI_API_KEY to a valid one{again}"
    outcome = read_exception(error)
    if outcome.refusal is not None and outcome.refusal.advice:
        return outcome.refusal.advice.rstrip(".") + again
    if outcome.kind == "nothing_sent" and not isinstance(error, LimiterError):
        return f"cannot reach {address}: {error.__cause__ or error}{again}"
    return (
        f"{error}{again}"
        if isinstance(error, LimiterError)
        else f"{type(error).__name__}: {error}{again}"
    )


def _write_json(path: Path, meter: Meter, earlier: int) -> None:
    figures = {
        "answered": meter.done - meter.failed,
        "failed": meter.failed,
        "earlier": earlier,
        "rejected": meter.refused,
        "seconds": round(meter.seconds, 3),
        "prompt_tokens": meter.prompt_tokens,
        "output_tokens": meter.output_tokens,
        "utilization": {
            f"{name}/{per:g}s": round(share, 4) for (name, per), share in meter.share().items()
        },
        "utilization_of_the_whole_time": {
            f"{name}/{per:g}s": round(share, 4)
            for (name, per), share in meter.share(whole=True).items()
        },
    }
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
