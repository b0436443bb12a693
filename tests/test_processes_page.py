"""docs/processes.md is true: its programs run as they stand, and share one quota."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI, Latency

PAGE = Path(__file__).parent.parent / "docs" / "processes.md"
PROGRAMS = dict(
    re.findall(r"```python\n# (\w+\.py): [^\n]*\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
)

ASK = """
import asyncio, httpx2, web
async def main():
    transport = httpx2.ASGITransport(app=web.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://web") as client:
        for _ in range(2):
            print((await client.get("/ask", params={"q": "Why?"})).status_code)
asyncio.run(main())
"""


@pytest.fixture
def server() -> FakeOpenAI:
    """A server with the limits of the page."""
    return FakeOpenAI(rpm=500, tpm=30_000, latency=Latency(0.01, 0, 0))


def ran(program: str, folder: Path, server: FakeOpenAI) -> str:
    """Run a program in a home of its own; return what it prints."""
    with server.serve() as base_url:
        home = {"HOME": str(folder), "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        done = subprocess.run(
            [sys.executable, program],
            cwd=folder,
            env={**os.environ, **home, "PYTHONPATH": str(PAGE.parents[1])},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def left(folder: Path) -> float:
    """The tokens that are left of the quota in a home."""
    store = f"file:{folder}/.cache/ratelimit/openai"
    return (
        RateLimiter(rpm=500, tpm=30_000, store=store)
        .statistics()
        .families["*"]
        .levels["requests/60s"]
    )


def test_the_pool_of_processes_runs(tmp_path: Path, server: FakeOpenAI) -> None:
    """Four processes answer twenty questions from one quota, without a refusal."""
    (tmp_path / "pool.py").write_text(PROGRAMS["pool.py"], "utf-8")
    assert len(ran("pool.py", tmp_path, server).splitlines()) >= 20

    assert len(server.ledger.admitted) == 20
    assert not server.ledger.refused
    assert left(tmp_path) < 500


def test_the_web_application_runs(tmp_path: Path, server: FakeOpenAI) -> None:
    """What a worker of the web server loads answers, and takes from the quota."""
    (tmp_path / "web.py").write_text(PROGRAMS["web.py"], "utf-8")
    (tmp_path / "ask.py").write_text(ASK, "utf-8")

    assert ran("ask.py", tmp_path, server).split() == ["200", "200"]
    assert len(server.ledger.admitted) == 2
