"""The demo's server, in a process of its own: its work must not slow the client.

Owns both ends of the pipe between them. Must never hold clients or tables.

The pipe carries one JSON object a line: the settings of a server come in, its address
goes out; a further line ends that server, and what it saw goes out. The process ends
with its standard input, so it never outlives its parent, however that one ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final

from ratelimit.errors import LimiterError
from ratelimit.testing import Entry, FakeOpenAI, Latency

QUICK: Final = Latency(base=0.2, per_token=1 / 600, spread=0.3)
"""A fast model, so that the limits are what takes the time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server saw of one client."""

    admitted: int
    refused: int
    """Attempts that got a 429."""
    tokens: int
    """What it took from the bucket in the end."""


class Backend:
    """The parent's end: start one server after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, **settings: Any) -> str:
        """Start a fresh server with full buckets, and return its base URL.

        :param settings: of `FakeOpenAI`.
        """
        return str(self._ask(settings)["url"])

    def stop(self) -> Seen:
        """End the server, calls in flight included, and return what it saw."""
        return Seen(**self._ask({}))

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        inlet, outlet = self._process.stdin, self._process.stdout
        if inlet is None or outlet is None:
            raise LimiterError("the demo's server has no pipe")

        try:
            inlet.write(json.dumps(message) + "\n")
            inlet.flush()
            answer = outlet.readline()
        except BrokenPipeError:
            answer = ""

        if not answer:
            raise LimiterError("the demo's server has ended; its reason stands above")
        reply: dict[str, Any] = json.loads(answer)
        return reply


@contextmanager
def backend() -> Iterator[Backend]:
    """Run the server's process while the block runs."""
    # A session of its own: Ctrl-C in the terminal is for the client, which then asks
    # what the server saw.
    command = [sys.executable, "-P", "-m", __name__]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        yield Backend(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        if process.stdout is not None:
            process.stdout.close()


def run(inlet: IO[str], outlet: IO[str]) -> None:
    """Serve at the other end of the pipe until it is closed."""
    for line in inlet:
        server = FakeOpenAI(**json.loads(line), latency=QUICK)
        with server.serve() as url:
            _send(outlet, {"url": url})
            inlet.readline()
        entries = server.ledger.entries()
        settled = server_settles(json.loads(line).get("variant", "P"))
        _send(
            outlet,
            {
                "admitted": sum(entry.admitted for entry in entries),
                "refused": len(server.ledger.refused),
                "tokens": sum(taken(entry, settled=settled) for entry in entries if entry.admitted),
            },
        )


def server_settles(variant: str) -> bool:
    """Return whether the variant replaces the charge by the usage when a call ends."""
    return variant == "P"


def taken(entry: Entry, *, settled: bool) -> int:
    """Return the tokens that an admitted call has cost the bucket in the end."""
    return entry.usage.total_tokens if settled and entry.usage is not None else entry.charge


def _send(outlet: IO[str], message: dict[str, Any]) -> None:
    outlet.write(json.dumps(message) + "\n")
    outlet.flush()


if __name__ == "__main__":
    run(sys.stdin, sys.stdout)
