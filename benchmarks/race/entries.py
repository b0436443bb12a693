"""Which races are run: the default set, all of them, or what was asked for.

Owns the choice, and running it on two processes. Must never contain how a race
works, tables.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from benchmarks.race.clients import CLIENTS, OURS
from benchmarks.race.peers import PEERS, missing
from benchmarks.race.results import Row
from benchmarks.race.running import race
from benchmarks.race.servers import course_for
from benchmarks.race.workloads import RECORDED, WORKLOADS

PROCESSES: Final = 2
PROMISED: Final = ("P", "I", "C", "H")
"""The variants on which the limiter is to answer everything, without a 429, near the
bound.
"""
TENANT: Final = "another tenant"
"""The workload "tokens" on variant F, beside somebody who takes up to 60 % of the same
limit.
"""
UNFIT: Final = {("C", "long")}
"""Not in the default set: the fake C charges 16 tokens for an answer whose body sets no
bound, which no real server of its kind does.
"""
WIDE: Final = ("tokens",)
"""The workloads that peers run on every variant of the default set; all others they run
on P only.
"""
QUICK: Final = ("tokens", "short")
REAL: Final = ("brief",)
"""The workload of real time: a line from the first moment on and short answers, so that
a minute shows what there is to see.
"""
REAL_PROCESSES: Final = 4  # they mostly wait
STUCK: Final = 1_800
"""Real seconds after which a race is stuck: its process says where, and ends, instead
of being waited for in silence.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One race to be run."""

    client: str
    variant: str
    workload: str
    seed: int
    real: bool = False
    trace: bool = False
    calls: Path | None = None


def clients_named(names: Sequence[str]) -> list[str]:
    """Return the clients of these names, all for none.

    "limiter" means all three entry points of ours, "aiolimiter" the pair.
    """
    known = [*CLIENTS, *PEERS]
    if not names:
        return known
    found = []
    for name in names:
        matching = [
            each for each in known if each == name or each.startswith((f"{name}/", f"{name} "))
        ]
        if not matching:
            raise SystemExit(
                f"no client is called {name!r}: {', '.join(known)}, or limiter for all its doors"
            )
        found += [each for each in matching if each not in found]
    return found


def chosen(
    clients: Sequence[str], variants: Sequence[str], workloads: Sequence[str], *, everything: bool
) -> Iterator[tuple[str, str, str]]:
    """Return client, variant and workload of each race, the clients side by side.

    What is named is run. Of what is not named the default set takes every workload on P
    for all clients, every workload on the other promised variants for ours and `WIDE`
    for the peers, and the other tenant on F.
    """
    for variant in variants or (*PROMISED, "F"):
        names = workloads or (
            [TENANT]
            if variant == "F"
            else [name for name in WORKLOADS if name not in REAL and (variant, name) not in UNFIT]
        )
        for workload in names:
            for client in clients:
                narrow = not (everything or variants or workloads) and variant not in {"P", "F"}
                if not narrow or client in OURS or workload in WIDE:
                    yield client, variant, workload


def skipped(clients: Sequence[str], *, real: bool) -> dict[str, str]:
    """The clients that cannot run here, and why."""
    return {client: why for client in clients if (why := missing(client, real=real)) is not None}


def run(entries: Sequence[Entry]) -> list[Row]:
    """Run all, spread over a few processes; rows in the order of the entries."""
    if len(entries) == 1:
        return [_run(entries[0])]
    rows = []
    processes = REAL_PROCESSES if any(entry.real for entry in entries) else PROCESSES
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for number, row in enumerate(pool.map(_run, entries), 1):
            rows.append(row)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{number} of {len(entries)} races\033[K")
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return rows


def _run(entry: Entry) -> Row:
    workload = "tokens" if entry.workload == TENANT else entry.workload
    course = course_for(workload, entry.variant, entry.seed, calls=entry.calls)
    faulthandler.dump_traceback_later(STUCK, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        return race(
            entry.client,
            course,
            entry.variant,
            entry.seed,
            real=entry.real,
            trace=entry.trace,
            name=entry.workload,
        )
    finally:
        faulthandler.cancel_dump_traceback_later()


def known_workloads() -> list[str]:
    """All names that `--workload` takes."""
    return [*WORKLOADS, TENANT, RECORDED]
