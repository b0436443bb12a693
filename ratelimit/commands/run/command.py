"""The order of things: is the file usable, what is left to do, ask, sum up.

Owns that order. Must never know how requests are asked or results kept (`batch/`), or
how a run is shown.

Exit statuses: 0 every request has its answer, 1 some failed or the run could not go on
(what was done is kept), 2 the input or the arguments cannot be used (nothing was sent),
3 the budget is spent and requests are left (what was done is kept), 130 interrupted
(what was done is kept).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ratelimit import Budget, Limits, Pool, RateLimiter
from ratelimit.batch.files import same_file
from ratelimit.batch.journal import Done, Journal
from ratelimit.batch.requests import read_endpoint
from ratelimit.batch.survey import Source, Survey
from ratelimit.commands import CommandError
from ratelimit.commands.figures import check_writable
from ratelimit.commands.run.control import Control
from ratelimit.commands.run.forecast import show_forecast
from ratelimit.commands.run.pool_file import read_pool
from ratelimit.commands.run.session import Session
from ratelimit.commands.run.settings import RunSettings, limits_asked, make_limiter
from ratelimit.commands.run.summary import show_nothing_to_do
from ratelimit.commands.secrets import Address, Secrets, environment_secrets, read_key
from ratelimit.commands.show import Notes, say
from ratelimit.errors import InvalidArgument, LimiterError
from ratelimit.pool.requests import BASE


def run(settings: RunSettings) -> int:
    """Do what the settings say; return the exit status."""
    settings.check()
    check_writable(settings.json_path, settings.file, settings.output)
    if settings.endpoint is not None:
        read_endpoint(settings.endpoint)  # says what is wrong with it, before the file is read
    if settings.base_url is not None:
        Address.read(settings.base_url)
    if settings.dry_run:
        return _forecast(settings)

    if settings.output is None:
        raise CommandError(
            "where should the results go? Give -o FILE (or --dry-run, which sends nothing)"
        )
    if same_file(settings.file, settings.output):
        raise CommandError(
            f"{settings.output} is the file of requests; give the results a file of their own"
        )

    if settings.pool is not None:
        return _run_pool(settings, settings.pool)

    key = read_key()
    given = settings.base_url
    address = Address.read(
        given if given is not None else os.environ.get("OPENAI_BASE_URL") or None
    )
    secrets = Secrets([key, *address.secrets, *environment_secrets(os.environ)])
    return _run(settings, secrets, address, key, partial(make_limiter, settings))


def _run_pool(settings: RunSettings, path: Path) -> int:
    """Run over the members of a pool's file."""
    sessions: list[Session] = []

    async def on_response(response: object) -> None:
        for session in sessions:
            await session.on_response(response)

    found = read_pool(path, on_response)
    secrets = Secrets([*found.secrets, *environment_secrets(os.environ)])
    address = Address(BASE, "every member of the pool", remedy="set the variables of the keys")
    return _run(settings, secrets, address, "", lambda *_: found.pool, sessions)


def _run(
    settings: RunSettings,
    secrets: Secrets,
    address: Address,
    key: str,
    limiter_of: Callable[[dict[str, Limits], Budget | None], RateLimiter | Pool],
    sessions: list[Session] | None = None,
) -> int:
    """Ask what is left; return the exit status.

    :param sessions: the session is added there before it sends.
    """
    console = Notes()
    output = settings.output
    assert output is not None  # noqa: S101  # `run` has checked it
    with _masked(secrets), Journal(output) as journal:
        source = _source(settings, journal.done)
        survey = _usable(source.survey())
        budget = settings.make_budget()
        limits = limits_asked(settings, survey)
        limiter = limiter_of(limits, budget)
        control = None
        if settings.control is not None and isinstance(limiter, RateLimiter):
            control = Control(settings.control, limiter, limits)
        if budget is not None:
            _count(journal, budget)
        if journal.healed:
            say(console, journal.healed)
        if journal.done.asked_again:  # by a run that was killed
            _tidy(journal, console)
        if not survey.left:
            return show_nothing_to_do(settings, survey, journal.done)

        session = Session(
            settings, journal, source, survey, limiter, console, address, secrets, control, budget
        )
        if sessions is not None:
            sessions.append(session)
        status = session.run(key)
        if settings.retry_failed:
            _tidy(journal, console)
        return status


def _count(journal: Journal, budget: Budget) -> None:
    """Count what the results that are there have cost."""
    for model, usage in journal.usages():
        if usage is None:
            budget.add(model=model)
        else:
            cached = usage.cached_tokens
            prompt, output = usage.prompt_tokens, usage.output_tokens
            budget.add(model=model, prompt=prompt, output=output, cached=cached)


def _tidy(journal: Journal, console: Notes) -> None:
    """Drop the failures that were asked again; the newer results stand beside them."""
    try:
        journal.drop_outdated()
    except InvalidArgument as error:
        say(
            console,
            f"the failures that were asked again stay in {journal.path} ({error}); of several"
            " lines of one request the answer counts, or else the last one",
        )


def _forecast(settings: RunSettings) -> int:
    done = Done.read(settings.output) if settings.output is not None else Done()
    source = _source(settings, done)
    survey = _usable(source.survey())
    limiter = make_limiter(settings, limits_asked(settings, survey))
    return show_forecast(source, limiter, settings.prices, settings.json_path)


def _source(settings: RunSettings, done: Done) -> Source:
    return Source(
        settings.file,
        done,
        model=settings.model,
        endpoint=settings.endpoint,
        retry=settings.retry_failed,
    )


def _usable(survey: Survey) -> Survey:
    if survey.broken:
        hidden = survey.broken - len(survey.problems)
        more = f"; and {hidden} more like these" if hidden else ""
        raise CommandError("; ".join(survey.problems) + more + ". Nothing was sent")

    return survey


@contextmanager
def _masked(secrets: Secrets) -> Iterator[None]:
    """Let warnings and refusals quote no secret while the block runs."""
    show = warnings.showwarning

    def masked(
        message: Warning | str, category: type[Warning], *arguments: object, **options: object
    ) -> None:
        show(category(secrets.mask(str(message))), category, *arguments, **options)  # type: ignore[arg-type]  # handed through

    warnings.showwarning = masked
    try:
        yield
    except (CommandError, LimiterError) as error:
        raise CommandError(secrets.mask(str(error))) from None
    finally:
        warnings.showwarning = show
