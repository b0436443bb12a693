"""Pools over fake servers, in virtual time.

Owns making them. Must never wait in real time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx2
from openai import AsyncOpenAI

from ratelimit import Member, Pool, RateLimiter
from ratelimit.testing import FakeOpenAI, VirtualClock

HELLO: Any = [{"role": "user", "content": "Hello there."}]


def fake_client(server: FakeOpenAI, host: str = "fake", key: str = "any") -> AsyncOpenAI:
    """Make a client of a fake server in process."""
    http = httpx2.AsyncClient(transport=server.transport())
    return AsyncOpenAI(api_key=key, base_url=f"http://{host}/v1", http_client=http, max_retries=2)


@dataclass
class Site:
    """One member's place: a fake server and the limiter before it."""

    name: str
    clock: VirtualClock
    rpm: float = 60
    tpm: float = 1_000_000
    latency: float = 0.5
    key: str = "any"
    server_options: dict[str, Any] = field(default_factory=dict)
    limiter_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = FakeOpenAI(
            rpm=self.rpm, tpm=self.tpm, latency=self.latency, output=10, **self.server_options
        )
        self.limiter = RateLimiter(
            rpm=self.rpm, tpm=self.tpm, clock=self.clock, **self.limiter_options
        )

    def member(self, **options: Any) -> Member:
        """Make the member."""
        client = fake_client(self.server, self.name, self.key)
        return Member(client, limiter=self.limiter, name=self.name, **options)

    @property
    def answered(self) -> int:
        """Calls that the server has answered."""
        return sum(entry.status == 200 for entry in self.server.ledger)

    @property
    def refused(self) -> int:
        """429s of the server."""
        return sum(entry.status == 429 for entry in self.server.ledger)


def sites(clock: VirtualClock, *names: str, **options: Any) -> list[Site]:
    """Make places alike."""
    return [Site(name, clock, **options) for name in names]


def pool_of(*members: Member, **options: Any) -> Pool:
    """Make a pool."""
    return Pool(members, **options)


async def ask(client: AsyncOpenAI, content: str = "Hello there.", **body: Any) -> str:
    """Ask once; return the member that answered."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}], **body}
    answer = await client.chat.completions.with_raw_response.create(**body)
    return str(answer.headers["x-ratelimit-member"])
