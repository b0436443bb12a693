"""What a shared quota shows at one moment, in a folder or in a server.

Owns the shapes and the look. Must never lock a file, change a level or print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ratelimit.admission.clock import Clock
from ratelimit.commands import CommandError
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.folder.processes import process_of
from ratelimit.stores.folder.quota_file import QuotaFile, Record, row_of
from ratelimit.stores.opening import folder_of, is_server, link_of
from ratelimit.stores.written import limits_of

if TYPE_CHECKING:
    from ratelimit.stores.redis.link import Link
    from ratelimit.stores.redis.look import QuotaSeen


@dataclass(frozen=True, slots=True)
class LevelShown:
    """One limit and what is left of it; below zero in debt."""

    limit: str
    amount: float
    level: float


@dataclass(frozen=True, slots=True)
class ProcessShown:
    """One limiter of one process."""

    process: str
    """Its number, and its host where it may be another one."""
    admitted: int
    in_flight: int
    waits: bool
    """Whether the first of its queue waits now."""
    seen_ago: float
    """Seconds since it was there last."""


@dataclass(frozen=True, slots=True)
class QuotaShown:
    """One family of models at one moment."""

    family: str
    levels: Sequence[LevelShown]
    concurrency: int | None
    in_flight: int
    waiting: int
    """Processes with calls that wait."""
    admitted: int
    closed_for: float
    """Seconds for which a refusal still pauses all of them."""
    processes: Sequence[ProcessShown]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a quota is."""

    name: str
    """As people are shown it: without a password."""
    look: Callable[[], list[QuotaShown]]
    """Returns what is there now; nothing where there is no quota.

    Raises `CommandError` for what cannot be read.
    """


def place_of(store: str) -> Place:
    """Return the place that ``--store`` names.

    Raises `InvalidArgument` for what is none.
    """
    if is_server(store):
        link = link_of(store)
        return Place("that server", lambda: look_at_server(link))
    folder = folder_of(store)
    return Place(str(folder), lambda: look(folder))


def look_at_server(link: Link) -> list[QuotaShown]:
    """Return what the quota in a server shows now."""
    # redis is of an extra.
    from ratelimit.stores.redis.link import LinkError  # noqa: PLC0415
    from ratelimit.stores.redis.look import look as look_there  # noqa: PLC0415

    try:
        return [_seen(quota) for quota in look_there(link)]
    except LinkError as error:
        raise CommandError(f"the server cannot be asked: {error}") from None


def _seen(quota: QuotaSeen) -> QuotaShown:
    levels = zip(quota.limits, quota.levels, strict=True)
    living = quota.processes
    return QuotaShown(
        family=quota.family,
        levels=[LevelShown(str(limit), limit.amount, level) for limit, level in levels],
        concurrency=quota.limits.concurrency if quota.cap is None else quota.cap,
        in_flight=sum(one.in_flight for one in living),
        waiting=sum(one.waits for one in living),
        admitted=quota.admitted,
        closed_for=quota.closed,
        processes=[
            ProcessShown(
                one.name.rpartition(" ")[0], one.admitted, one.in_flight, one.waits, one.seen_ago
            )
            for one in living
        ],
    )


def look(folder: Path) -> list[QuotaShown]:
    """Return what the files of a quota show now; nothing where there is none.

    Raises `CommandError` for a file that cannot be read.
    """
    return [
        _shown(unquote(path.stem), record)
        for path in sorted(folder.glob("*.quota"))
        for record in _records(path)
    ]


def _records(path: Path) -> Iterator[Record]:
    """Yield the record of one file, if it is still there and has a whole one."""
    try:
        file = QuotaFile(path, only_read=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from None
    record = file.read()
    file.close()
    if record is not None:
        yield record


def _shown(family: str, record: Record) -> QuotaShown:
    clock = Clock()
    now = clock.now()
    record = record.on_clock(clock.epoch.encode(), now)
    rows = [(process_of(packed), row_of(packed)) for packed in record.rows]
    living = [(process, row) for process, row in rows if process.runs]
    limits = limits_of(record.limits)
    buckets = Buckets(limits, now)
    buckets.full_at = list(record.columns[0])
    buckets.deferred = sum(row.deferred for _, row in living)
    levels = buckets.levels(now)
    return QuotaShown(
        family=family,
        levels=[
            LevelShown(str(limit), limit.amount, level)
            for limit, level in zip(limits, levels, strict=True)
        ],
        concurrency=limits.concurrency if record.cap < 0 else record.cap,
        in_flight=sum(row.in_flight for _, row in living),
        waiting=sum(row.waits_until > now for _, row in living),
        admitted=record.departed + sum(row.admitted for _, row in rows),
        closed_for=max(record.closed_until - now, 0.0),
        processes=[
            ProcessShown(
                str(process.pid),
                row.admitted,
                row.in_flight,
                row.waits_until > now,
                now - row.seen,
            )
            for process, row in living
        ],
    )
