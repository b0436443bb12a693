"""What each process asked of a shared store, and what came of it, step by step.

Owns the store that writes its steps down, and the processes that use it. Must never
judge a history: `benchmarks/linearize.py` does.

The first line has the limits, each other line one step: the number of the record that
it wrote, when its last operation was asked for and when the step was over (seconds of
the machine's clock), the operations in the order in which the step applied them, and
when each bucket is next full after it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any, Final

from benchmarks.sharing.workers import Start, together
from ratelimit import Limit, Limits
from ratelimit.stores.alone import Alone
from ratelimit.stores.folder.quota_file import QuotaFile
from ratelimit.stores.folder.store import FileStore
from ratelimit.stores.payments import Payment, Wait

LIMITS: Final = Limits(
    Limit("requests", 30_000, 60, burst=50), Limit("tokens", 6_000_000, 60, burst=20_000)
)
"""Low enough that many calls are refused, by one bucket or the other."""
LARGEST: Final = 400
"""Tokens of a call, at most."""
FLYING: Final = 20
"""Calls of one process in flight, at most."""


class RecordedStore(FileStore):
    """A store on a file that writes down each of its steps.

    :param path: of the quota file.
    """

    def __init__(self, path: Path, now: float, limits: Limits = LIMITS) -> None:
        self.steps: list[dict[str, Any]] = []
        self._asked = self._moment = now
        self._operations: list[dict[str, Any]] = []
        super().__init__(lambda: QuotaFile(path), "history", Alone("raise"), limits, now)

    def take(
        self, payment: Payment, now: float, rank: float = inf, *, waits: bool = True
    ) -> Wait | None:
        """Take, and note when that was asked for."""
        self._asked = time.monotonic()
        return super().take(payment, now, rank, waits=waits)

    def settle(self, payment: Payment, used: Mapping[str, float], now: float) -> None:
        """Settle, and note when that was asked for."""
        self._asked = time.monotonic()
        super().settle(payment, used, now)

    def _take(self, payment: Payment, now: float) -> Wait | None:
        wait = super()._take(payment, now)
        amounts = dict(payment.amounts)
        self._operations.append({"take": amounts, "now": now, "admitted": wait is None})
        return wait

    def _settle(self, payment: Payment, used: Mapping[str, float], now: float) -> None:
        super()._settle(payment, used, now)
        reserved = {name: payment.amounts[name] for name in used}
        self._operations.append({"settle": reserved, "used": dict(used), "now": now})

    def _save(self, file: QuotaFile, now: float) -> None:
        super()._save(file, now)
        self.steps.append(
            {
                "number": self._number,
                "asked": self._asked,
                "operations": self._operations,
                "full_at": list(self._buckets.full_at),
                "over": time.monotonic(),
            }
        )
        self._operations = []


def record(path: Path, quota: Path, processes: int, operations: int) -> dict[str, Any]:
    """Write the history of that many operations of several processes to a file."""
    histories = together(act, processes, quota, -(-operations // processes))
    limits = [[one.name, one.amount, one.per, one.burst] for one in LIMITS]
    with path.open("w", encoding="utf-8") as lines:
        print(json.dumps({"limits": limits}), file=lines)
        for process, steps in enumerate(histories):
            for step in steps:
                print(json.dumps({"process": process, **step}), file=lines)
    made = sum(len(step["operations"]) for steps in histories for step in steps)
    return {"operations": made, "processes": processes}


def act(start: Start, quota: Path, operations: int) -> list[dict[str, Any]]:
    """Take and settle at random in one process; return its steps."""
    chance = random.Random()
    flying: list[Payment] = []
    moment = start()
    store = RecordedStore(quota, time.monotonic())
    time.sleep(max(moment - time.monotonic(), 0.0))
    while _made(store) < operations or flying:
        enough = len(flying) > FLYING or _made(store) >= operations
        if flying and (enough or chance.random() < 0.4):
            payment = flying.pop(chance.randrange(len(flying)))
            store.settle(payment, {"tokens": chance.uniform(0, LARGEST)}, time.monotonic())
        else:
            payment = Payment({"requests": 1, "tokens": chance.uniform(1, LARGEST)})
            if store.take(payment, time.monotonic()) is None:
                flying.append(payment)
    while store.admitted > store.ended:
        time.sleep(0.01)  # a timer of the store settles what found the file busy
    return store.steps


def _made(store: RecordedStore) -> int:
    return len(store.steps) - 1  # but joining, at the start, is no operation
