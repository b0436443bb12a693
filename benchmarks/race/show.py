"""What the race shows: a table, a JSON, a picture.

Owns shapes on paper. Must never contain running anything, deciding anything.

The table on the standard output holds what the seed decides, so the same seed prints
the same bytes. What the machine decides (CPU, the longest callback) goes to the
standard error; the JSON has both, unless it is asked to be deterministic.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.race.clients import OURS
from benchmarks.race.results import MEASURED, NEAR, Row
from benchmarks.race.workloads import WORKLOADS

WIDTH: Final = 150
CAPTION: Final = (
    "rejected: every 429 the server sent; failed: calls that ended with an error. seconds: until"
    " all is answered and no bucket of the server is in debt; bound: no client can be done earlier"
    " (benchmarks/race/bounds.py has the proof); ratio: seconds / bound, - where calls failed."
    " wait: from a call's arrival until the server let it in. Every client is given the same"
    " limits, bodies, arrivals and latency. Ours: decorator is given the limits, on I and C how the"
    ' server counts (accounting="charge", "refund"), and on "half empty" the level at the start'
    " (initial_level=0.5), since headers do not reach a decorated function; wrapped is "
    "given the limits;"
    " learned nothing."
)


def show(rows: Sequence[Row], skipped: Mapping[str, str]) -> None:
    """Print the race's tables to standard output, the machine's to standard error."""
    out = Console(width=WIDTH, highlight=False, soft_wrap=True)
    out.print(_race_table(rows))
    for client, why in skipped.items():
        out.print(f"skipped: {client} ({why})", markup=False)
    out.print(CAPTION, markup=False)
    Console(file=sys.stderr, width=WIDTH).print(_machine_table(rows))


def _race_table(rows: Sequence[Row]) -> Table:
    table = Table(title="The race", title_justify="left")
    for name in ("variant", "workload", "client"):
        table.add_column(name, no_wrap=True)
    for name in (
        "answered",
        "rejected",
        "failed",
        "seconds",
        "bound",
        "ratio",
        "wait p50",
        "p99",
        "longest",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in rows:
        group = row.variant, row.workload
        if before not in {None, group}:
            table.add_section()
        where = (row.variant, row.workload) if group != before else ("", "")
        before = group
        ratio = f"{row.ratio:.3f}" if not row.failed else "-"
        style = "bold" if row.client in OURS else ""
        waits = (f"{wait:.1f}" for wait in (row.wait_p50, row.wait_p99, row.wait_longest))
        client = row.client if row.clock == "virtual" else f"{row.client}, real time"
        counts = map(str, (row.answered, row.rejected, row.failed))
        table.add_row(
            *where,
            client,
            *counts,
            f"{row.seconds:.1f}",
            f"{row.bound:.1f}",
            ratio,
            *waits,
            style=style,
        )
    return table


def _machine_table(rows: Sequence[Row]) -> Table:
    """Sum up by client: single rows differ by the machine's noise, not by workload."""
    table = Table(title="What it cost (server and SDK included)", title_justify="left")
    table.add_column("client", no_wrap=True)
    for name in ("CPU ms a call", "longest callback, CPU ms, median of rows"):
        table.add_column(name, justify="right")
    for client in dict.fromkeys(row.client for row in rows):
        own = [row for row in rows if row.client == client]
        cpu = sum(row.cpu_seconds for row in own) / sum(row.calls for row in own)
        stalls = sorted(row.stall_seconds for row in own)
        table.add_row(client, f"{cpu * 1000:.1f}", f"{stalls[len(stalls) // 2] * 1000:.0f}")
    return table


def as_json(
    rows: Sequence[Row], skipped: Mapping[str, str], seed: int, *, deterministic: bool
) -> str:
    """One object: the rows in full and what they mean."""
    listed = []
    for row in rows:
        fields: dict[str, Any] = asdict(row) | {"verdict": row.verdict}
        for name in ("trace", *(MEASURED if deterministic else ())):
            del fields[name]
        listed.append(fields)
    about = {name: each.what for name, each in WORKLOADS.items()}
    return (
        json.dumps(
            {
                "seed": seed,
                "near": NEAR,
                "rows": listed,
                "skipped": dict(skipped),
                "workloads": about,
            },
            indent=1,
        )
        + "\n"
    )


def promised(rows: Sequence[Row]) -> list[str]:
    """Return what falls short of the promise: our rows on P, I, C and H.

    They must be refused nothing, lose no call and take at most `NEAR` bounds.
    """
    return [
        f"{row.client} on {row.variant}, {row.workload}: {row.rejected} rejected, {row.failed}"
        f" failed, ratio {row.ratio:.3f}"
        for row in rows
        if row.client in OURS
        and row.variant in {"P", "I", "C", "H"}
        and (row.rejected or row.failed or row.ratio > NEAR)
    ]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the server's token bucket and the 429s of each client over time.

    The rows need their traces.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who plots needs it

    families = [(row, row.trace) for row in rows if row.trace is not None]
    figure = Figure(figsize=(11, 0.6 + 1.3 * len(families)), layout="constrained")
    axes = figure.subplots(len(families), 1, sharex=True, squeeze=False)[:, 0]
    for family, (row, trace) in zip(axes, families, strict=True):
        moments = [moment for moment, _, _ in trace.levels for _ in range(2)]
        levels = [
            level / trace.limit for _, before, after in trace.levels for level in (before, after)
        ]
        family.plot(
            moments, levels, linewidth=0.7, color="tab:blue" if row.client in OURS else "tab:gray"
        )
        family.axhline(0, color="black", linewidth=0.5)
        family.plot(
            trace.refused,
            [0.05] * len(trace.refused),
            "|",
            color="tab:red",
            markersize=12,
            markeredgewidth=0.6,
        )
        family.axvline(row.bound, color="tab:green", linewidth=1, linestyle="--")
        family.set_ylim(-0.6, 1.05)
        family.set_yticks([0, 1], ["0", "full"])
        failed = f", {row.failed} failed" if row.failed else ""
        title = (
            f"{row.client} - {row.variant}, {row.workload}: {row.rejected} x 429{failed}, done"
            f" after {row.seconds:.0f} s"
        )
        family.set_title(title, loc="left", fontsize=9)
    axes[-1].set_xlabel(
        "seconds; blue and gray: tokens left at the server, red: a 429, green: no client can be"
        " done earlier"
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})
