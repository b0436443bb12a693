"""Check the history of a shared quota against one sequential bucket.

A history is linearizable if its operations can be put into one order that no process
can tell from what it saw: an operation that was over before another one was asked for
stands before it, and each answer is the one that a single bucket gives in that order.
The number of the record that a step wrote is the order that the store claims; this
script checks the claim:

* each number is there once: no step has overwritten another one's;
* no step was over before it was asked for, or another one of a lower number was, and
  none has an operation of a later moment;
* a bucket that goes through the operations in that order, with arithmetic of its own,
  admits and refuses as the store did, and stands after each step where the store stood.

    python benchmarks/processes.py --store file --history history.jsonl
    python benchmarks/linearize.py history.jsonl

Without a file it has eight processes make a shorter history first.

Owns the check and its arithmetic. Must never use the limiter's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a script sees its own folder only

from benchmarks.sharing.history import record

PROCESSES: Final = 8
OPERATIONS: Final = 20_000
"""Of the history that this script has made, where it is given none."""
NEAR: Final = 1e-6
"""Seconds within which two moments are the same: the rest of rounding."""


class Bucket:
    """One limit, by the moment at which its bucket is next full."""

    def __init__(self, name: str, amount: float, per: float, burst: float | None) -> None:
        self.name = name
        self.rate = amount / per
        self.window = (amount if burst is None else burst) / self.rate
        self.full_at = float("-inf")

    def fits_at(self, amount: float) -> float:
        """Return when so much is there, at the earliest."""
        return self.full_at + amount / self.rate - self.window

    def add(self, amount: float, now: float) -> None:
        """Debit an amount; one below zero is given back."""
        self.full_at = max(self.full_at, now) + amount / self.rate


def violations(limits: Sequence[Sequence[Any]], steps: Iterable[dict[str, Any]]) -> list[str]:
    """Return a sentence for each step that no sequential bucket explains."""
    buckets = [Bucket(*limit) for limit in limits]
    found: list[str] = []
    latest, before = float("-inf"), 0
    for step in sorted(steps, key=lambda step: int(step["number"])):
        number = int(step["number"])
        if number != before + 1:
            found.append(f"step {number} follows step {before}")
        if latest > step["over"]:
            found.append(f"step {number} was over before an earlier one was asked for")
        if step["asked"] > step["over"]:
            found.append(f"step {number} was over before it was asked for")
        latest, before = max(latest, step["asked"]), number
        for operation in step["operations"]:
            if operation["now"] > step["over"]:
                found.append(f"step {number}: an operation is dated after it")
            found.extend(f"step {number}: {fault}" for fault in _replay(buckets, operation))
        for bucket, full_at in zip(buckets, step["full_at"], strict=True):
            moment = step.get("now", step["asked"])
            fault = _difference(full_at, bucket.full_at, moment)
            if fault:
                found.append(f"step {number}: {bucket.name} is full {fault}")
            bucket.full_at = full_at  # so that one fault is counted once
    return found if before else ["the history has no step"]


def _difference(full_at: float, expected: float, now: float) -> str:
    """Say how a bucket differs from the one that is expected, or nothing.

    Moments that have passed mean the same: the bucket is full.
    """
    if isnan(full_at):
        return "at no moment"
    gap = max(full_at, now) - max(expected, now)
    if abs(gap) <= NEAR:
        return ""
    return f"{abs(gap):.6f} s too {'late' if gap > 0 else 'early'}"


def _replay(buckets: Sequence[Bucket], operation: dict[str, Any]) -> list[str]:
    now = operation["now"]
    if "settle" in operation:
        for bucket in buckets:
            if bucket.name in operation["used"]:
                reserved, used = operation["settle"][bucket.name], operation["used"][bucket.name]
                bucket.add(used - reserved, now)
        return []
    amounts = operation["take"]
    late = max(bucket.fits_at(amounts[bucket.name]) for bucket in buckets) - now
    if operation["admitted"]:
        for bucket in buckets:
            bucket.add(amounts[bucket.name], now)
        return [f"a call was admitted {late:.6f} s too early"] if late > NEAR else []
    return [f"a call was refused that fitted {-late:.6f} s before"] if late < -NEAR else []


def check(path: Path) -> dict[str, Any]:
    """Return the figures of a history in a file."""
    with path.open(encoding="utf-8") as lines:
        limits = json.loads(next(lines))["limits"]
        steps = [json.loads(line) for line in lines]
    found = violations(limits, steps)
    return {
        "operations": sum(len(step["operations"]) for step in steps),
        "steps": len(steps),
        "processes": len({step["process"] for step in steps}),
        "violations": len(found),
        "first_violations": found[:5],
    }


def main() -> None:
    """Check the file that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "history", type=Path, nargs="?", help="what processes.py --history has written"
    )
    path = parser.parse_args().history
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "history.jsonl"
            record(path, Path(folder) / "history.quota", PROCESSES, OPERATIONS)
        figures = check(path)
    print(json.dumps(figures, indent=2))
    sys.exit(bool(figures["violations"]))


if __name__ == "__main__":
    main()
