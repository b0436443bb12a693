"""Stores on a real server with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import redis

from benchmarks.sharing.redis_server import RedisServer
from ratelimit import Limits
from ratelimit.stores.alone import Alone, OnStoreError
from ratelimit.stores.redis.link import SCRIPT, Link, LinkError
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


def steered(script: str, *, plain: bool = True) -> str:
    """The script with a clock that tests set.

    :param plain: without what it does for speed.
    """
    speed = [("HORIZON = 0.25", "HORIZON = 0"), ("PASSING = 0.25", "PASSING = 0")]
    for before, after in [(_CLOCK, _SET_CLOCK), *(speed if plain else ())]:
        assert script.count(before) == 1
        script = script.replace(before, after)
    return script


class SteeredLink(Link):
    """A link to a script with a clock of the test's."""

    def __init__(
        self, client: redis.Redis, quota: str, clock: Callable[[], float], *, plain: bool = True
    ) -> None:
        super().__init__(client, quota, steered(SCRIPT, plain=plain))
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
    """A store without a queue that tells the server each change at once.

    Unless it is `quiet`.
    """

    quiet = rung = False

    def _ring(self) -> None:
        self.rung = not self.quiet

    def _empty_inbox(self) -> None:
        super()._empty_inbox()
        while self.rung and not self._lock.locked() and not self._courier.connection.locked():
            self.rung = False
            self.step()

    def levels(self, now: float) -> dict[tuple[str, float], float]:
        """What is left, by the server's word."""
        self.step()
        return dict(super().levels(now))


class FlakyLink(SteeredLink):
    """A link that breaks when the test says so, before or after the step was taken."""

    broken: Literal["", "before", "after"] = ""

    def step(self, key: str, ask: bytes) -> bytes:
        """Take one step, or break."""
        if self.broken == "before":
            raise LinkError("ConnectionError: refused")
        reply = super().step(key, ask)
        if self.broken == "after":
            raise LinkError("ConnectionError: reset by peer")
        return reply


class Bench:
    """Stores of one quota on a clock that the test sets, and their server."""

    plain = True
    """Whether the script does nothing for speed alone."""

    def __init__(self, server: RedisServer, quota: str) -> None:
        self.client = server.client
        self.quota = quota
        self.time = Time()
        self.key = f"ratelimit:{quota}:*"

    def store(
        self,
        limits: Limits,
        policy: OnStoreError = "raise",
        broken: Literal["", "before", "after"] = "",
        ahead: float = 0.0,
    ) -> tuple[SteeredStore, FlakyLink]:
        """One process's store, and its link.

        :param broken: how the link is at the start.
        :param ahead: seconds by which this process's clock is ahead of the others'.
        """
        link = FlakyLink(self.client, self.quota, self.time, plain=self.plain)
        link.broken = broken

        def clock() -> float:
            return self.time.now + ahead

        store = SteeredStore(link, self.key, Alone(policy), limits, clock(), 0.0, clock)
        return store, link
