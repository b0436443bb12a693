"""What each process asked of a quota in a server, and what came of it, step by step.

Owns the store that writes its steps down, and the processes that use it. Must never
judge a history: `benchmarks/linearize.py` does. The lines are those of `history.py`;
moments are seconds of the server's clock, and the steps are numbered in their order.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.sharing.history import FLYING, LARGEST, LIMITS
from benchmarks.sharing.workers import Start, together
from ratelimit.stores.alone import Alone
from ratelimit.stores.payments import Payment
from ratelimit.stores.redis.copy import Step
from ratelimit.stores.redis.link import SCRIPT, Link
from ratelimit.stores.redis.store import RedisStore
from ratelimit.stores.redis.wire import GIVE, Reply

_READ: Final = "redis.call('GET', KEYS[1])"
TORN: Final = SCRIPT.replace(_READ, "ARGV[2] ~= '' and ARGV[2]")
"""The script with a fault: it takes from the quota as it was read before."""


class TornLink(Link):
    """Reads the quota in one round trip and takes in another: not atomic."""

    def __init__(self, client: redis.Redis, quota: str) -> None:
        super().__init__(client, quota, TORN)
        self._redis = client

    def step(self, key: str, ask: bytes) -> bytes:
        """Take one step from what the quota was a moment ago."""
        before = self._redis.get(key) or b""
        reply = self._redis.eval(TORN, 1, key, ask, before)
        if not isinstance(reply, bytes):
            raise TypeError("no reply")
        return reply


class RecordedStore(RedisStore):
    """A store that writes down each of its steps."""

    def __init__(self, link: Link) -> None:
        self.steps: list[dict[str, Any]] = []
        clock = time.monotonic
        super().__init__(link, link.key("*"), Alone("raise"), LIMITS, clock(), 0.0, clock)

    def _answered(self, step: Step, reply: Reply, sent: float, received: float) -> None:
        super()._answered(step, reply, sent, received)
        operations: list[dict[str, Any]] = [
            {"settle": {change.name: change.first}, "used": {change.name: 0}, "now": reply.now}
            for change in step.changes
            if change.kind == GIVE
        ]
        for place, call in enumerate(step.calls):
            admitted = place < len(reply.grants)
            operations.append({"take": call.amounts, "now": reply.now, "admitted": admitted})
        self.steps.append(
            {
                "asked": sent + self._ahead,
                "operations": operations,
                "full_at": list(reply.columns[0]),
                "over": received + self._ahead,
                "now": reply.now,
            }
        )


def record_steps(
    path: Path, url: str, processes: int, operations: int, *, torn: bool = False
) -> dict[str, Any]:
    """Write the history of that many operations of several processes to a file.

    :param torn: use a script with a fault, which the judge has to find.
    """
    histories = together(act, processes, url, -(-operations // processes), torn)
    steps = [{"process": n, **step} for n, steps in enumerate(histories) for step in steps]
    steps.sort(key=lambda step: step["now"])
    limits = [[one.name, one.amount, one.per, one.burst] for one in LIMITS]
    with path.open("w", encoding="utf-8") as lines:
        print(json.dumps({"limits": limits}), file=lines)
        for number, step in enumerate(steps, 1):
            print(json.dumps({"number": number, **step}), file=lines)
    return {"operations": sum(len(s["operations"]) for s in steps), "processes": processes}


def act(start: Start, url: str, operations: int, torn: bool) -> list[dict[str, Any]]:
    """Take and settle at random in one process; return its steps."""
    chance = random.Random()
    client = redis.Redis.from_url(url)
    flying: list[Payment] = []
    moment = start()
    store = RecordedStore(TornLink(client, "history") if torn else Link(client, "history"))
    time.sleep(max(moment - time.monotonic(), 0.0))
    made = 0
    while made < operations or flying:
        made += 1
        now = time.monotonic()
        enough = len(flying) > FLYING or made >= operations
        if flying and (enough or chance.random() < 0.4):
            payment = flying.pop(chance.randrange(len(flying)))
            store.settle(payment, {"tokens": chance.uniform(0, LARGEST)}, now)
        else:
            payment = Payment({"requests": 1, "tokens": chance.uniform(1, LARGEST)})
            if store.take(payment, now, waits=False) is None:
                flying.append(payment)
    store.step()
    return store.steps
