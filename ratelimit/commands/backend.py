"""The demo's server, in a process of its own, so that its work does not slow the client
that is being measured.

Owns both ends of the pipe between them. Must never come in: clients, tables. One JSON
object a line: the settings of a server come in, its address goes out; a further line
ends that server, and what it saw goes out. The process ends with its standard input, so
it never outlives whoever started it, however that one ends.
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

# a fast model, so that the limits are what takes the time
QUICK: Final = Latency(base=0.2, per_token=1 / 600, spread=0.3)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server saw of one client: attempts let in and refused with a 429, and the
    tokens it took from the bucket in the end.
    """

    admitted: int
    refused: int
    tokens: int


class Backend:
    """The parent's end: start one server after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, **settings: Any) -> str:
        """Start a fresh server with full buckets, and return its base URL; `settings`
        are `FakeOpenAI`'s.
        """
        return str(self._ask(settings)["url"])

    def stop(self) -> Seen:
        """End the server, calls in flight included, and hear what it saw."""
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
            raise LimiterError(
                "the demo's server has ended; what it said of the reason stands above"
            )
        reply: dict[str, Any] = json.loads(answer)
        return reply


@contextmanager
def backend() -> Iterator[Backend]:
    """Run the server's process while the block runs."""
    # A session of its own: Ctrl-C in the terminal is for the client, who then asks what
    # the server saw.
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
    """Live at the server's end of the pipe until it is closed."""
    for line in inlet:
        server = FakeOpenAI(**json.loads(line), latency=QUICK)
        with server.serve() as url:
            _tell(outlet, {"url": url})
            inlet.readline()
        entries = server.ledger.entries()
        settled = server_settles(json.loads(line).get("variant", "P"))
        _tell(
            outlet,
            {
                "admitted": sum(entry.admitted for entry in entries),
                "refused": len(server.ledger.refused),
                "tokens": sum(taken(entry, settled=settled) for entry in entries if entry.admitted),
            },
        )


def server_settles(variant: str) -> bool:
    """Whether the variant replaces the charge by the usage when a call ends."""
    return variant == "P"


def taken(entry: Entry, *, settled: bool) -> int:
    """Tokens that an admitted call has cost the bucket in the end."""
    return entry.usage.total_tokens if settled and entry.usage is not None else entry.charge


def _tell(outlet: IO[str], message: dict[str, Any]) -> None:
    outlet.write(json.dumps(message) + "\n")
    outlet.flush()


if __name__ == "__main__":
    run(sys.stdin, sys.stdout)
