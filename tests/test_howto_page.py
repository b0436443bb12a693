"""docs/howto.md is true: its programs run, and its settings for Azure end the 429s of a
server that counts alike.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock
from tests.page_programs import ROOT, programs_of, run_programs

PROGRAMS = programs_of(ROOT / "docs" / "howto.md")
KEYS = dict.fromkeys(("AZURE_OPENAI_API_KEY", "XAI_API_KEY"), "any")
ASKED = {
    "find_my_limits.py": 1,
    "ask_azure.py": 1,
    "ask_xai.py": 1,
    "stream.py": 1,
    "threads.py": 10,
    "notebook.py": 10,
    "batch_file.py": 10,
    "web.py": 2,
}
"""How many calls each program makes."""
VISITS = """

import asyncio, httpx2

async def visit():
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://web") as visitor:
        for _ in range(2):
            print((await visitor.get("/ask", params={"q": "Why?"})).status_code)
        limiter.acquire_sync(tokens=30_000 - 200).close()
        busy = await visitor.get("/ask", params={"q": "Why? " * 600})
        print(busy.status_code, int(busy.headers["Retry-After"]) > 1)

asyncio.run(visit())
"""
"""Two visitors, and one whom the limit keeps waiting for too long."""


def ran(names: set[str], folder: Path, programs: Mapping[str, str] = PROGRAMS) -> dict[str, str]:
    """Run programs of the page, each against a server of its own.

    Returns what each has printed.
    """
    servers = {name: FakeOpenAI(rpm=500, tpm=30_000, latency=0.01) for name in names}
    chosen = {name: programs[name] for name in names}
    done = run_programs(chosen, servers, folder, **KEYS)

    assert {name: one.stderr for name, one in done.items() if one.stderr} == {}
    assert [name for name, server in servers.items() if server.ledger.refused] == []
    counted = {name: len(server.ledger.admitted) for name, server in servers.items()}
    assert counted == {name: ASKED[name] for name in names}
    return {name: one.stdout for name, one in done.items()}


def test_every_program_of_the_page_is_run_here() -> None:
    """A new one is told how often it asks."""
    assert set(PROGRAMS) == set(ASKED)


def test_the_programs_run(tmp_path: Path) -> None:
    """Each on its own, without a 429, a warning or an error."""
    printed = ran(set(ASKED) - {"web.py"}, tmp_path)

    assert "500 requests" in printed["find_my_limits.py"]
    assert "30,000 tokens" in printed["find_my_limits.py"]
    assert printed["batch_file.py"].count("True") == 10


def test_the_web_application_answers_and_says_when_to_come_back(tmp_path: Path) -> None:
    """Visitors are answered; one who would wait for too long is sent away at once."""
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("fastapi is not installed: the extra dev has light packages only")

    printed = ran({"web.py"}, tmp_path, {"web.py": PROGRAMS["web.py"] + VISITS})

    assert printed["web.py"].splitlines() == ["200", "200", "503 True"]


def refused_by_azure(door: str, **settings: Any) -> int:
    """Ask more than a minute's worth at once; return the server's 429s."""
    clock = VirtualClock()
    latency = Latency(base=0.3, per_token=0.005, spread=0.5)
    server = FakeOpenAI("E", rpm=180, tpm=30_000, latency=latency, seed=1)
    limiter = RateLimiter(rpm=180, tpm=30_000, clock=clock, **settings)

    async def main() -> None:
        plain = openai.AsyncAzureOpenAI(
            azure_endpoint="http://fake",
            api_version="2024-10-21",
            api_key="x",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=server.transport()),
        )
        client = limiter.wrap(plain) if door == "wrap" else plain

        async def create(**request: Any) -> Any:
            return await client.chat.completions.create(**request)

        ask = limiter(create) if door == "decorator" else create
        texts = ["word " * (number % 40 + 1) for number in range(400)]
        bodies = [
            {"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 300}
            for text in texts
        ]
        await asyncio.gather(*(ask(**body) for body in bodies), return_exceptions=True)

    clock.run(main)
    return len(server.ledger.refused)


@pytest.mark.parametrize("door", ["decorator", "wrap"])
def test_the_settings_for_azure_end_its_429s(door: str) -> None:
    """None is refused with both of them, and some are without."""
    assert 'burst_share=1 / 60,\n    accounting="never_refund",' in PROGRAMS["ask_azure.py"]
    assert refused_by_azure(door, burst_share=1 / 60, accounting="never_refund") == 0
    assert refused_by_azure(door) > 0
