"""docs/quickstart.zh.md is true: its programs and commands run, and what it gives for
each platform is refused nothing by a server that limits as that platform does.
"""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import Limits, RateLimiter
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock
from tests.page_programs import ROOT, programs_of, run_commands, run_programs

PAGE = ROOT / "docs" / "quickstart.zh.md"
PROGRAMS = programs_of(PAGE)
KEYS = dict.fromkeys(("DASHSCOPE_API_KEY", "DEEPSEEK_API_KEY", "MOONSHOT_API_KEY"), "any")
ASKED = {
    "wrapped.py": 1,
    "ask_qwen.py": 12,
    "ask_deepseek.py": 12,
    "ask_kimi.py": 12,
    "decorated.py": 1,
    "reserved.py": 1,
    "shared.py": 1,
    "batch_qwen.py": 12,
    "logged.py": 0,
}
"""How many calls each program makes."""

Platform = tuple[str, list[str], dict[str, Any], int, int]
QWEN: Platform = ("qwen3-max", ["D"], {"rpm": 600, "tpm": 1_000_000}, 60, 50)
DEEPSEEK = {"rpm": None, "tpm": None, "max_in_flight": 500}
KIMI = {"rpm": 200, "tpm": 2_000_000, "max_in_flight": 50}
PLATFORMS: dict[str, Platform] = {
    "ask_qwen.py": QWEN,
    "batch_qwen.py": QWEN,
    "ask_deepseek.py": ("deepseek-v4-pro", ["K"], DEEPSEEK, 505, 50),
    "ask_kimi.py": ("kimi-k2.6", ["A", "K"], KIMI, 300, 16_000),
}
"""What each platform limits: a model, the variants of its server, their limits, how
many calls at once are too many for it, and the `max_tokens` of each.
"""
LESSONS = [
    ("ask_qwen.py", "burst_share"),
    ("ask_deepseek.py", "limits"),
    ("ask_kimi.py", "accounting"),
    ("ask_kimi.py", "concurrency"),
]
"""What the page gives beyond requests and tokens a minute."""


def server_of(name: str, latency: Latency) -> FakeOpenAI:
    """Return the server that a program is for."""
    _, variants, limits, *_ = PLATFORMS.get(name, ("", ["P"], {}))
    return FakeOpenAI(variants, latency=latency, **limits)


def limiter_of(name: str, clock: VirtualClock, without: str) -> RateLimiter:
    """Make the limiter of a program in virtual time, one of its settings left out."""
    (call,) = (
        node.value
        for node in ast.parse(PROGRAMS[name]).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "limiter"
    )
    given = {
        word.arg: eval(ast.unparse(word.value), {"Limits": Limits})  # noqa: S307  # our page
        for word in getattr(call, "keywords", [])
        if word.arg and word.arg != without
    }
    return RateLimiter(**given or {"rpm": 1e6}, clock=clock)


def refused(name: str, without: str = "") -> int:
    """Ask too much at once by a decorated function; return the server's 429s."""
    model, _, _, calls, most = PLATFORMS[name]
    clock = VirtualClock()
    server = server_of(name, Latency(base=0.5, per_token=0.01, spread=0.5))
    limiter = limiter_of(name, clock, without)

    async def main() -> None:
        http = httpx2.AsyncClient(transport=server.transport())
        client = openai.AsyncOpenAI(
            base_url="http://fake/v1", api_key="x", max_retries=0, http_client=http
        )

        @limiter
        async def ask(**request: Any) -> Any:
            return await client.chat.completions.create(**request)

        message = {"role": "user", "content": "你好！"}
        tasks = [ask(model=model, messages=[message], max_tokens=most) for _ in range(calls)]
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main)
    assert len(server.ledger) >= calls
    return len(server.ledger.refused)


@pytest.mark.parametrize(("name", "setting"), LESSONS)
def test_what_the_page_gives_for_a_platform_ends_its_429s(name: str, setting: str) -> None:
    """A server that limits as the platform does refuses nothing; it does without."""
    assert refused(name) == 0
    assert refused(name, without=setting) > 0


def test_the_programs_run(tmp_path: Path) -> None:
    """Each is answered as often as it asks, without a 429, a warning or an error."""
    servers = {name: server_of(name, Latency(0.01, 0, 0)) for name in ASKED}
    ran = run_programs(PROGRAMS, servers, tmp_path, **KEYS)

    assert {name: one.stderr for name, one in ran.items() if one.stderr} == {}
    assert [name for name, server in servers.items() if server.ledger.refused] == []
    assert {name: len(server.ledger.admitted) for name, server in servers.items()} == ASKED


def test_the_commands_run(tmp_path: Path) -> None:
    """The lines of shell that make a file and ask it leave an answer."""
    (commands,) = re.findall(r"```\n(echo .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    commands = commands.replace("https://api.deepseek.com", '"$OPENAI_BASE_URL"')
    run_commands(commands, tmp_path, FakeOpenAI(latency=0.01))

    assert len((tmp_path / "answers.jsonl").read_text("utf-8").splitlines()) == 1
