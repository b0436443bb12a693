"""docs/processes.md is true: its programs run as they stand, and share one quota."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sharing.workers import excess
from ratelimit import Limit, Limits, WouldBlock
from ratelimit.commands.top.look import QuotaShown, look
from ratelimit.stores.folder.store import FileStore
from ratelimit.testing import FakeOpenAI, Latency, ThreadClock
from tests.quota_files import limiter, store_of

PAGE = Path(__file__).parent.parent / "docs" / "processes.md"
PROGRAMS = dict(
    re.findall(r"```python\n# (\w+\.py): [^\n]*\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
)

ASK = """
import asyncio, httpx2, tasks, web
async def main():
    transport = httpx2.ASGITransport(app=web.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://web") as client:
        for _ in range(2):
            print((await client.get("/ask", params={"q": "Why?"})).status_code)
asyncio.run(main())
print(repr(tasks.summarise("A long story.")))
"""

CELERY = """
class Celery:
    def __init__(self, name, *, broker):
        self.name, self.broker = name, broker

    def task(self, function):
        return function
"""
"""What the page needs of Celery, in its place: a task runs when it is called."""


@pytest.fixture
def server() -> FakeOpenAI:
    """A server with the limits of the page."""
    return FakeOpenAI(rpm=500, tpm=30_000, latency=Latency(0.01, 0, 0))


def ran(folder: Path, server: FakeOpenAI, *files: tuple[str, str]) -> str:
    """Run the last of these files in a home of its own; return what it prints."""
    for name, text in files:
        (folder / name).write_text(text, "utf-8")
    with server.serve() as base_url:
        home = {"HOME": str(folder), "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        done = subprocess.run(
            [sys.executable, files[-1][0]],
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


def quota(folder: Path) -> QuotaShown:
    """The one quota in a home."""
    (shown,) = look(folder / ".cache" / "ratelimit" / "openai")
    return shown


def test_every_program_of_the_page_is_run_here() -> None:
    """A new one needs a test."""
    assert set(PROGRAMS) == {"pool.py", "web.py", "tasks.py"}
    assert PAGE.read_text("utf-8").count("```python") == len(PROGRAMS)


def test_the_pool_of_processes_runs(tmp_path: Path, server: FakeOpenAI) -> None:
    """What its processes ask comes out of one quota, without a refusal."""
    printed = ran(tmp_path, server, ("pool.py", PROGRAMS["pool.py"]))

    assert len(printed.splitlines()) >= 20
    assert len(server.ledger.admitted) == quota(tmp_path).admitted == 20
    assert not server.ledger.refused


def test_the_web_application_and_the_task_run(tmp_path: Path, server: FakeOpenAI) -> None:
    """What workers of the web server and of Celery load answers, out of one quota."""
    files = (
        ("celery.py", CELERY),
        ("web.py", PROGRAMS["web.py"]),
        ("tasks.py", PROGRAMS["tasks.py"]),
        ("ask.py", ASK),
    )
    first, second, summary = ran(tmp_path, server, *files).splitlines()

    assert (first, second) == ("200", "200")
    assert len(summary) > 2
    assert len(server.ledger.admitted) == quota(tmp_path).admitted == 3


@pytest.mark.logs("was deleted or replaced")
@pytest.mark.parametrize("skew", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("burst", [10, 300])
def test_a_deleted_file_costs_no_more_than_the_page_says(
    store: str, path: Path, monkeypatch: pytest.MonkeyPatch, burst: int, skew: float
) -> None:
    """A burst and what two seconds refill, whenever each process looks for the file;
    after three seconds all that make calls share the new one.
    """
    rate, clock, times = 100.0, ThreadClock(), list[float]()
    limits = Limits(Limit("requests", rate * 60, burst=burst))
    limiters = []
    monkeypatch.setattr(FileStore, "processes", 4)
    for _ in range(4):
        limiters.append(limiter(store, limits=limits, clock=clock))
        clock.sleep(skew / 4)

    def go(until: float) -> None:
        while clock.now() < until:
            for one in limiters:
                try:
                    while True:
                        one.acquire_nowait(requests=1).settle(requests=1)
                        times.append(clock.now())
                except WouldBlock:
                    continue
            clock.sleep(0.04)

    go(2.0)
    path.unlink()
    go(5.0)
    shared = path.stat().st_ino
    files = [store_of(one)._file for one in limiters]
    go(8.0)

    assert [file and os.fstat(file.fileno()).st_ino for file in files] == [shared] * 4
    assert excess(times, burst, rate) <= burst + 2 * rate
