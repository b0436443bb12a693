"""Measure what it costs to look at the limiter while it works.

Slices of the alternatives take turns, each ratio is taken slice by slice, and the
median is shown: the machine may be noisy.

Owns the cost of one call, acquire and settle with a cost by hand:

* idle: with nothing subscribed and no logging set up, against the commit before events
  were there, in two processes that take turns; git has that commit, or ``--before``
  names a checkout of it;
* logging: with the program's log at INFO, against no logging set up;
* otel: with the OpenTelemetry SDK's meters and an in-memory reader;
* logging_waits, otel_waits: the same of calls that each wait a second of virtual time,
  until all that they report was delivered. Their waits are what a log looks at: a call
  that goes at once has nothing to say there.

Must never reach into the limiter: it is measured through its public face.

    python benchmarks/observe.py --json observe.json
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from ratelimit import RateLimiter, events
from ratelimit.testing import VirtualClock

TOKENS: Final = 1_000
"""Tokens of each call."""
CALLS: Final = 3_000
"""Calls of a slice."""
WAITS: Final = 500
"""Calls of a slice in which each waits."""
ROOT: Final = Path(__file__).parent.parent
PROCESSES: Final = 9
"""Pairs of processes of the idle measure."""
BEFORE: Final = "7349539"
"""The last commit without events."""

ROWS: Final = {
    "idle": "nothing",
    "logging": "logging at INFO",
    "logging_waits": "logging at INFO, calls that wait",
    "otel": "OTel SDK",
    "otel_waits": "OTel SDK, calls that wait",
}
"""What is measured, and what it is called in the table."""

Figures = dict[str, float]

CHILD: Final = """
import asyncio, sys, time
from ratelimit import RateLimiter

async def main():
    limiter = RateLimiter(rpm=1e9, tpm=1e12)
    for line in sys.stdin:
        calls = int(line)
        start = time.process_time()
        for _ in range(calls):
            lease = await limiter.acquire(tokens=1000)
            lease.settle(tokens=900)
        print((time.process_time() - start) / calls * 1e6, flush=True)

asyncio.run(main())
"""
"""Measures slices of the package on its path, one a line: microseconds of a call."""


async def _slice(limiter: RateLimiter) -> float:
    """Return the CPU microseconds of one call."""
    start = time.process_time()
    for _ in range(CALLS):
        lease = await limiter.acquire(tokens=TOKENS)
        lease.settle(tokens=900)
    return (time.process_time() - start) / CALLS * 1e6


async def _slice_of_waits(limiter: RateLimiter) -> float:
    """Return the CPU microseconds of one call that waits, its reports included."""
    (await limiter.acquire(tokens=TOKENS)).close()
    start = time.process_time()
    for _ in range(WAITS):
        lease = await limiter.acquire(tokens=TOKENS)
        lease.close()
        if not lease.waited:
            raise RuntimeError("a call has not waited: nothing was measured")
    if not events.flush(60):
        raise RuntimeError("what the calls have reported was not delivered within a minute")
    return (time.process_time() - start) / WAITS * 1e6


Slice = Callable[[RateLimiter], Awaitable[float]]


def _limiter() -> RateLimiter:
    return RateLimiter(rpm=1e9, tpm=1e12)


def _waiting_limiter(clock: VirtualClock) -> RateLimiter:
    """Return a limiter that lets one call go a second."""
    return RateLimiter(tpm=60 * TOKENS, burst_share=1 / 60, arrival_slack=0, clock=clock)


def _process(root: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env=environment,
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(process: subprocess.Popen[str]) -> float:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    process.stdin.write(f"{CALLS}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def _checkout() -> Iterator[Path | None]:
    """Yield a folder with the package of `BEFORE`; None where git does not have it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["git", "-C", str(ROOT), "archive", BEFORE, "ratelimit"]
        try:
            packed = subprocess.run(command, capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def _pairs(before: Path, slices: int) -> list[tuple[float, float]]:
    """Return the microseconds of a call here and in a checkout, slice by slice."""
    with _process(ROOT) as ours, _process(before) as theirs:
        for process in (ours, theirs):
            _ask(process)  # the first slice warms up
        pairs = [(_ask(ours), _ask(theirs)) for _ in range(slices)]
        for process in (ours, theirs):
            if process.stdin is not None:
                process.stdin.close()
    return pairs


def idle(before: Path, slices: int) -> Figures:
    """Measure a call with nothing subscribed, here and in an earlier checkout.

    By several pairs of processes: where its objects lie in memory makes one process a
    few percent slower than the next.
    """
    found = [_pairs(before, slices // PROCESSES + 1) for _ in range(PROCESSES)]
    ratios = [median(one / other for one, other in pairs) for pairs in found]
    return {
        "microseconds_idle": median(one for pairs in found for one, _ in pairs),
        "microseconds_before": median(one for pairs in found for _, one in pairs),
        "ratio_idle": median(ratios),
    }


async def _against(
    plain: RateLimiter,
    other: RateLimiter,
    slices: int,
    switch: Callable[[bool], object],
    measure: Slice,
) -> tuple[float, float]:
    """Return the microseconds of a call of ``other``, and its ratio to ``plain``.

    :param switch: called with whether the slice is one of ``other``.
    :param measure: runs one slice.
    """
    pairs: list[tuple[float, float]] = []
    for _ in range(slices + 1):
        switch(True)
        ours = await measure(other)
        switch(False)
        pairs.append((ours, await measure(plain)))
    del pairs[0]  # it warms up
    return median(one for one, _ in pairs), median(one / two for one, two in pairs)


def logged(slices: int) -> Figures:
    """Measure a call with the log at INFO, and one that waits."""
    logger = logging.getLogger("ratelimit")
    logger.addHandler(logging.StreamHandler())

    def switch(on: bool) -> None:
        logger.setLevel(logging.INFO if on else logging.CRITICAL)

    limiter = _limiter()
    spent, ratio = asyncio.run(_against(limiter, limiter, slices, switch, _slice))
    clock = VirtualClock()
    waits = _waiting_limiter(clock)
    waited, slower = clock.run(_against, waits, waits, slices, switch, _slice_of_waits)
    return {
        "microseconds_logging": spent,
        "ratio_logging": ratio,
        "microseconds_logging_waits": waited,
        "ratio_logging_waits": slower,
    }


def instrumented(slices: int) -> Figures:
    """Measure a call with the OpenTelemetry SDK, and one that waits."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415  # too

    from ratelimit.telemetry.opentelemetry import instrument  # noqa: PLC0415  # too

    provider = MeterProvider([InMemoryMetricReader()])
    limiter = _limiter()
    with instrument(limiter, meter_provider=provider):
        spent, ratio = asyncio.run(_against(_limiter(), limiter, slices, bool, _slice))
    clock = VirtualClock()
    plain, waits = _waiting_limiter(clock), _waiting_limiter(clock)
    with instrument(waits, meter_provider=provider):
        waited, slower = clock.run(_against, plain, waits, slices, bool, _slice_of_waits)
    provider.shutdown()
    return {
        "microseconds_otel": spent,
        "ratio_otel": ratio,
        "microseconds_otel_waits": waited,
        "ratio_otel_waits": slower,
    }


def _measure(console: Console, before: Path | None, *, quick: bool) -> Figures:
    slices = 15 if quick else 101
    figures: Figures = {}
    with console.status("idle") as status, _checkout() as earlier:
        before = before or earlier
        if before is not None:
            figures |= idle(before, slices)
        status.update("logging")
        figures |= logged(slices)
        status.update("OpenTelemetry")
        figures |= instrumented(max(slices // 5, 5))
    return figures


def _show(console: Console, figures: Figures) -> None:
    table = Table("what looks", "us a call", "ratio", title="Cost of looking at the limiter")
    for name, label in ROWS.items():
        if f"ratio_{name}" in figures:
            spent, ratio = figures[f"microseconds_{name}"], figures[f"ratio_{name}"]
            table.add_row(label, f"{spent:,.2f}", f"{ratio:,.3f}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--before", type=Path, help="a checkout to compare idle calls with")
    parser.add_argument("--quick", action="store_true", help="fewer slices, for a first look")
    options = parser.parse_args(arguments)
    console = Console()
    figures = _measure(console, options.before, quick=options.quick)
    _show(console, figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
