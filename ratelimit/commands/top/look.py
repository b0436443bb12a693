"""What the files of a shared quota show at one moment.

Owns the shapes and the look. Must never lock a file, change a level or print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ratelimit.admission.clock import Clock
from ratelimit.commands import CommandError
from ratelimit.stores.buckets import Buckets
from ratelimit.stores.processes import process_of
from ratelimit.stores.quota_file import QuotaFile, Record, row_of
from ratelimit.stores.shared import limits_of


@dataclass(frozen=True, slots=True)
class LevelShown:
    """One limit and what is left of it; below zero in debt."""

    limit: str
    amount: float
    level: float


@dataclass(frozen=True, slots=True)
class ProcessShown:
    """One limiter of one process."""

    pid: int
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
            LevelShown(str(limit), limit.amount, levels[limit.name, limit.per]) for limit in limits
        ],
        concurrency=limits.concurrency if record.cap < 0 else record.cap,
        in_flight=sum(row.in_flight for _, row in living),
        waiting=sum(row.waits_until > now for _, row in living),
        admitted=record.departed + sum(row.admitted for _, row in rows),
        closed_for=max(record.closed_until - now, 0.0),
        processes=[
            ProcessShown(
                process.pid, row.admitted, row.in_flight, row.waits_until > now, now - row.seen
            )
            for process, row in living
        ],
    )
