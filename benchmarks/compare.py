"""Compare clients that live with a limit, against a bound that no client can beat.

    python benchmarks/compare.py --json out.json
    python benchmarks/compare.py --quick
    python benchmarks/compare.py --variant C --workload tokens,short --plot out.png
    python benchmarks/compare.py --all
    python benchmarks/compare.py --real-time --only limiter,semaphore --variant P
    python benchmarks/compare.py --calls calls.jsonl.gz --workload calls

The default set takes a few minutes on two cores, --quick runs two workloads on P, --all
every client, workload and promised variant. Everything runs on a virtual clock: the
real SDK, the clients, and a server that enforces its limits. The same seed prints the
same table, byte for byte; CPU and the longest callback, which depend on the machine, go
to the standard error and into the JSON (`--deterministic` omits them). `--real-time`
runs a minute of work over HTTP on loopback, each row beside the same row on the virtual
clock, and shows whether they agree.

The packages are in the extras `bench` and `peers`: `pip install -e '.[bench,peers]'`.
What is not installed is named and skipped. `race/clients.py` documents each client.

Owns the choice of races and the exit status. Must never contain clients or arithmetic.

Exit status: 0; 1 when ours falls short of its promise (nothing rejected, nothing
failed, at most 1.10 times the bound on P, I, C and H), or real and virtual time
disagree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only

from benchmarks.race.entries import (
    PROMISED,
    QUICK,
    REAL,
    Entry,
    chosen,
    clients_named,
    known_workloads,
    run,
    skipped,
)
from benchmarks.race.peers import REAL_TIME_ONLY
from benchmarks.race.results import Row
from benchmarks.race.show import as_json, plot, promised, show
from benchmarks.race.workloads import RECORDED, WORKLOADS
from ratelimit.testing.variants import rules_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and show it."""
    options = _options(arguments)
    clients = clients_named(options.only)
    left_out = skipped(clients, real=options.real_time)
    entries = _entries(options, [client for client in clients if client not in left_out])
    rows = run(entries)
    show(rows, left_out)
    if options.json:
        options.json.write_text(
            as_json(rows, left_out, options.seed, deterministic=options.deterministic),
            encoding="utf-8",
        )
    if options.plot:
        plot(_plotted(rows), options.plot)
    short = [f"short of the promise: {line}" for line in promised(rows)] + _disagreeing(rows)
    for line in short:
        print(line)
    return 1 if short else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        type=_listed,
        default=[],
        metavar="CLIENTS",
        help="comma-separated; 'limiter' stands for its three doors",
    )
    parser.add_argument(
        "--variant",
        type=_listed,
        default=[],
        metavar="LETTERS",
        help="servers, as P,C or F+C; see ratelimit.testing.variants",
    )
    parser.add_argument(
        "--workload",
        type=_listed,
        default=[],
        metavar="NAMES",
        help=f"comma-separated, of: {', '.join(known_workloads())}",
    )
    parser.add_argument(
        "--calls",
        type=Path,
        help="recorded calls (JSON lines, gzipped) for the workload 'calls', which it adds",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--all",
        action="store_true",
        help="every workload for every client on every promised variant",
    )
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)} on P")
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="over HTTP on loopback, beside the same on the virtual clock",
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="leave out of the JSON what depends on the machine",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        help="draw the server's bucket and the 429s over time, one family a client",
    )
    options = parser.parse_args(arguments)
    if options.quick or options.real_time:
        options.variant = options.variant or [PROMISED[0]]
        options.workload = options.workload or list(QUICK if options.quick else REAL)
    if options.calls and RECORDED not in options.workload:
        options.workload = [*(options.workload or WORKLOADS), RECORDED]
    if unknown := set(options.workload) - set(known_workloads()):
        parser.error(f"no workload is called {min(unknown)!r}")
    if RECORDED in options.workload and not options.calls:
        parser.error("the workload 'calls' needs --calls FILE")
    for variant in options.variant:
        rules_of(variant)
    return options


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _entries(options: argparse.Namespace, clients: Sequence[str]) -> list[Entry]:
    entries = [
        Entry(
            client,
            variant,
            workload,
            options.seed,
            trace=options.plot is not None,
            calls=options.calls,
        )
        for client, variant, workload in chosen(
            clients, options.variant, options.workload, everything=options.all
        )
    ]
    if not options.real_time:
        return entries
    return [
        replace(entry, real=real)
        for entry in entries
        for real in (True, False)
        if real or entry.client not in REAL_TIME_ONLY
    ]


def _plotted(rows: Sequence[Row]) -> list[Row]:
    """Choose the rows to plot: those of "tokens", or of the first workload."""
    first = next((row for row in rows if row.workload == "tokens"), rows[0])
    return [
        row
        for row in rows
        if (row.variant, row.workload, row.clock) == (first.variant, first.workload, first.clock)
    ]


def _disagreeing(rows: Sequence[Row]) -> list[str]:
    """Name each row of real time that disagrees with virtual time; print the rest."""
    virtual = {
        (row.client, row.variant, row.workload): row.verdict
        for row in rows
        if row.clock == "virtual"
    }
    lines = []
    for row in rows:
        other = virtual.get((row.client, row.variant, row.workload))
        if row.clock == "real" and other is not None:
            if row.verdict != other:
                where = f"{row.client} on {row.variant}, {row.workload}"
                lines.append(
                    f"real and virtual time disagree: {where}: {row.verdict} in real time,"
                    f" {other} on the virtual clock"
                )
            else:
                print(
                    f"real and virtual time agree: {row.client} on {row.variant}, {row.workload}:"
                    f" {other}"
                )
    return lines


if __name__ == "__main__":
    sys.exit(main())
