"""Stores on a real server with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable

import redis

from ratelimit.stores.redis.link import SCRIPT, Link
from ratelimit.stores.redis.store import RedisStore


class Time:
    """A clock that tests set, for stores and for the script alike."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


START = 1_700_000_000
"""When the server's clock starts."""

_CLOCK = "redis.call('TIME')"
_SET_CLOCK = "redis.call('LRANGE', KEYS[1] .. ':time', 0, 1)"


def steered(script: str) -> str:
    """The script with a clock that tests set, and without what it does for speed."""
    for before, after in (
        (_CLOCK, _SET_CLOCK),
        ("HORIZON = 0.25", "HORIZON = 0"),
        ("PASSING = 0.25", "PASSING = 0"),
    ):
        assert script.count(before) == 1
        script = script.replace(before, after)
    return script


class SteeredLink(Link):
    """A link to a script with a clock of the test's."""

    def __init__(self, client: redis.Redis, quota: str, clock: Callable[[], float]) -> None:
        super().__init__(client, quota, steered(SCRIPT))
        self._redis = client
        self._clock = clock

    def step(self, key: str, ask: bytes) -> bytes:
        """Take one step at the time of the test's clock."""
        seconds = START + self._clock()
        with self._redis.pipeline() as pipeline:
            pipeline.delete(f"{key}:time")
            pipeline.rpush(f"{key}:time", int(seconds), (seconds - int(seconds)) * 1e6)
            pipeline.execute()
        return super().step(key, ask)


class SteeredStore(RedisStore):
    """A store without a queue that tells the server each change at once."""

    def _ring(self) -> None:
        self.rung = True

    def _empty_inbox(self) -> None:
        super()._empty_inbox()
        while getattr(self, "rung", False) and not self._lock.locked():
            self.rung = False
            self.step()

    def levels(self, now: float) -> dict[tuple[str, float], float]:
        """What is left, by the server's word."""
        self.step()
        return dict(super().levels(now))
