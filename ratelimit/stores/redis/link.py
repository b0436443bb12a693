"""The connection to the server of a shared quota.

Owns the client and how one step reaches the script. Must never know what a step says.
redis-py connects, again if need be, over TLS, and to Sentinel's and Cluster's servers.
"""

from __future__ import annotations

import hashlib
import os
import re
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry

TIMEOUT: Final = 1.0
"""Seconds after which a server that does not answer is lost."""
PAUSE: Final = 0.02
"""Seconds between a connection that broke and the next one, three times."""
QUOTA: Final = "quota"
"""The field of an address that names the quota: it is ours, not redis-py's."""

FAILURES: Final = (RedisError, RedisClusterException, OSError)
"""What redis-py raises where a server cannot be used."""

SCRIPT: Final = (files(__package__) / "step.lua").read_text("utf-8")


class LinkError(OSError):
    """The server cannot be reached or refuses; the step may have been taken."""


class Link:
    """Sends steps to the script, over one client.

    :param client: of redis-py.
    :param quota: the name of the quota: programs that name another one share nothing.
    :param script: what runs in the server.
    """

    def __init__(self, client: Any, quota: str, script: str = SCRIPT) -> None:
        self._client = client
        self._prefix = f"ratelimit:{quota}:"
        self._script = script
        self._digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        self.round_trips = 0

    def key(self, family: str) -> str:
        """Return the key of a family of models; all of it is in that one."""
        whole = f"{self._prefix}{family}"
        return whole.encode("utf-8", "backslashreplace").decode()

    def families(self) -> list[str]:
        """Return the names of the families that have a quota.

        Raises `LinkError` where the server cannot be asked.
        """
        found = set()
        try:
            for key in self._client.scan_iter(match=f"{_literal(self._prefix)}*", count=1_000):
                text = key if isinstance(key, str) else bytes(key).decode("utf-8", "replace")
                found.add(text.removeprefix(self._prefix))
        except FAILURES as error:
            raise LinkError(f"{type(error).__name__}: {error}") from error
        return sorted(found)

    def evaluate(self, script: str, key: str) -> bytes | None:
        """Return what a script says of a key; None: nothing is there.

        Raises `LinkError` where the server cannot be asked, or the key is no quota.
        """
        try:
            reply = self._client.execute_command("EVAL", script, 1, key, NEVER_DECODE=True)
        except FAILURES as error:
            raise LinkError(f"{type(error).__name__}: {error}") from error
        return reply if isinstance(reply, bytes) else None

    def step(self, key: str, ask: bytes) -> bytes:
        """Take one step and return the reply.

        Raises `LinkError` where that cannot be; the step may have been taken, or not.
        """
        self.round_trips += 1
        try:
            try:
                return self._send("EVALSHA", self._digest, key, ask)
            except NoScriptError:  # the server was started again, or its scripts were flushed
                self.round_trips += 1
                return self._send("EVAL", self._script, key, ask)
        except FAILURES as error:
            raise LinkError(f"{type(error).__name__}: {error}") from error

    def _send(self, command: str, script: str, key: str, ask: bytes) -> bytes:
        reply = self._client.execute_command(command, script, 1, key, ask, NEVER_DECODE=True)
        if not isinstance(reply, bytes):
            raise LinkError(f"{key} is no quota of this version")
        return reply


def _literal(text: str) -> str:
    """Return the pattern that this very text matches alone."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", text)


class AddressedClient:
    """A client of one address, which a forked process makes anew.

    The locks of its parent's may be held for good.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._pid = 0
        self._client: Any = None
        self._now().connection_pool.make_connection()  # refuses what it does not know

    def _now(self) -> Any:
        if self._pid != os.getpid():
            self._client = redis.Redis.from_url(
                self._address,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                # One that does not answer in time is frozen: it is not asked again.
                retry=Retry(ConstantBackoff(PAUSE), 3, supported_errors=(RedisConnectionError,)),
            )
            self._pid = os.getpid()
        return self._client

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Send a command and return its reply."""
        return self._now().execute_command(*arguments, **options)

    def scan_iter(self, **options: Any) -> Any:
        """Yield the keys that match."""
        return self._now().scan_iter(**options)


def connected(address: str) -> tuple[AddressedClient, str]:
    """Return a client for an address, and the name of the quota that it gives.

    Raises `ValueError` or `TypeError` for what is no address.
    """
    place, _, query = address.partition("?")
    fields = parse_qs(query, keep_blank_values=True)
    quota = fields.pop(QUOTA, ["default"])[-1]
    if not quota:
        raise ValueError("the quota has no name")
    scheme, _, path = place.partition("://")
    database = path.partition("/")[2]
    if scheme != "unix" and database and not database.isdecimal():
        raise ValueError("a database is a number")
    return AddressedClient(f"{place}?{urlencode(fields, doseq=True)}" if fields else place), quota
