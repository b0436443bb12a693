"""docs/refusals.md is true: its programs and commands run, each remedy that the log
gives leads to a section, and each section's setting ends the 429s that it is about.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ratelimit import Limit, Limits, RateLimiter, events
from ratelimit.events import Refused, reports
from ratelimit.feedback import finality
from ratelimit.testing import FakeOpenAI, Latency, VirtualClock
from tests.answers import refused_for
from tests.test_demo_readme import RUN_EACH

PAGE = Path(__file__).parent.parent / "docs" / "refusals.md"
TEXT = PAGE.read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"```\n((?:ratelimit|export) .*?)```", TEXT, re.DOTALL)
SETTINGS = re.findall(r"^limiter = (RateLimiter\(.*\))$", TEXT, re.MULTILINE)[2:]
"""The cures, in the order of the page; the first two limiters are only looked at."""
ROWS = re.findall(r'^\| "(.*?)" \| (.*) \|$', TEXT, re.MULTILINE)
"""What the log's line says, and the links beside it."""
PLAIN = "RateLimiter(rpm=500, tpm=30_000)"

Case = tuple[str, dict[str, Any], int, str]
CASES: dict[str, Case] = {
    "RateLimiter(rpm=500, tpm=30_000)": ("P", {}, 550, "RateLimiter()"),
    "RateLimiter(rpm=500, tpm=30_000, rpd=60)": ("P", {"rpd": 60}, 80, PLAIN),
    "RateLimiter(rpm=60, tpm=30_000)": ("P", {"rpm": 60}, 120, PLAIN),
    "RateLimiter(rpm=500, tpm=30_000, initial_level=0.2)": ("P", {"level": 0.2}, 200, PLAIN),
    "RateLimiter(rpm=200, tpm=12_000)": ("F+P", {}, 300, PLAIN),
    'RateLimiter(rpm=500, tpm=30_000, accounting="never_refund")': ("A", {}, 200, PLAIN),
    "RateLimiter(rpm=500, tpm=30_000, burst_share=1 / 60)": ("D", {}, 80, PLAIN),
    'RateLimiter(limits=Limits(Limit("requests", 8, per=1), Limit("tokens", 500, per=1)))': (
        "D",
        {},
        80,
        PLAIN,
    ),
    "RateLimiter(rpm=500, tpm=30_000, concurrency=10)": ("K", {}, 80, PLAIN),
}
"""The server that each cure is for, its options, how many calls show it, and what is
refused there.
"""


def refusals(
    setting: str, variant: str, options: dict[str, Any], calls: int, door: str
) -> list[Refused]:
    """Ask all at once, and return the 429s that the server has answered."""
    clock = VirtualClock()
    known = {"RateLimiter": RateLimiter, "Limit": Limit, "Limits": Limits, "clock": clock}
    timed = setting.removesuffix(")") + ", clock=clock)"
    limiter = eval(timed.replace("(, ", "("), known)  # noqa: S307  # the page is ours
    seen: list[Refused] = []
    subscription = limiter.subscribe(seen.append, Refused)
    latency = Latency(base=0.3, per_token=0.005, spread=0.5)
    server = FakeOpenAI(variant, **{"latency": latency, "seed": 1, **options})

    async def main() -> None:
        http = httpx2.AsyncClient(transport=server.transport())
        client = openai.AsyncOpenAI(
            base_url="http://fake/v1", api_key="x", max_retries=0, http_client=http
        )
        client = limiter.wrap(client) if door == "wrap" else client

        async def create(**request: Any) -> Any:
            return await client.chat.completions.create(**request)

        ask = limiter(create) if door == "decorator" else create

        async def one(number: int) -> None:
            text = "word " * (number % 40 + 1)
            message = {"role": "user", "content": text}
            try:
                await ask(model="gpt-4o", messages=[message], max_tokens=300)
            except openai.RateLimitError:
                return

        await asyncio.gather(*(one(number) for number in range(calls)))

    clock.run(main)
    assert events.flush(10)
    subscription.close()
    assert len(seen) == limiter.statistics().refused == len(server.ledger.refused)
    return seen


def section_of(setting: str) -> str:
    """Return the anchor of the section that a setting stands in."""
    before = TEXT[: TEXT.rindex(f"limiter = {setting}\n")]
    title = re.findall("^## (.*)$", before, re.MULTILINE)
    return str(title[-1]).lower().replace(" ", "-")


def test_every_setting_of_the_page_is_tried_here() -> None:
    """A cure that is added to the page is given the server that it is for."""
    assert list(CASES) == SETTINGS


@pytest.mark.parametrize("setting", CASES)
def test_each_setting_ends_the_429s_that_it_is_about(setting: str) -> None:
    """A decorated function is refused without it, is not with it, and the log's first
    line leads to it.
    """
    variant, options, calls, before = CASES[setting]
    first, *_ = refusals(before, variant, options, calls, "decorator")
    (sections,) = (to for quoted, to in ROWS if first.remedy.startswith(quoted))

    assert f"(#{section_of(setting)})" in sections
    assert refusals(setting, variant, options, calls, "decorator") == []


@pytest.mark.parametrize("setting", [one for one in CASES if "burst_share" not in one])
def test_each_setting_is_right_for_a_wrapped_client_too(setting: str) -> None:
    """It is refused nothing; limits by the second are given as the page says."""
    variant, options, calls, _ = CASES[setting]

    assert refusals(setting, variant, options, calls, "wrap") == []


def test_every_remedy_of_the_log_leads_to_a_section() -> None:
    """Each sentence has its row, and no row quotes a sentence that is gone."""
    texts = [
        value
        for module in (reports, finality)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and value.endswith(".")
    ]
    texts.append(finality.too_large(None, None))
    quoted = [row[0] for row in ROWS]

    assert len(texts) > 10
    assert [text for text in texts if not any(text.startswith(one) for one in quoted)] == []
    assert [one for one in quoted if not any(text.startswith(one) for text in texts)] == []


@contextmanager
def served(command: str) -> Iterator[str]:
    """Run a command of the page that serves, at any free port; yield its address."""
    program = [sys.executable, "-m", *command.split(), "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_the_programs_run_against_the_server_of_the_page(tmp_path: Path) -> None:
    """Each on its own, at the address that the command serves."""
    serve, export = COMMANDS
    with served(serve) as url:
        done = subprocess.run(
            [
                "sh",
                "-ec",
                f'{export.replace("http://127.0.0.1:8080/v1", url)}"$0" -c "$1"',
                sys.executable,
                RUN_EACH,
            ],
            input=json.dumps(PROGRAMS),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )

    assert done.returncode == 0, done.stderr
    assert "1 admitted, 0 refused (429)" in done.stdout
    assert "limits: " in done.stdout
    assert len(PROGRAMS) == len(SETTINGS) + 2


def test_the_hook_of_the_page_prints_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    """It is called with a refusal, and every field that it reads is there."""
    (hook,) = re.findall(r"^(def on_refusal.*?\n)\n", TEXT, re.MULTILINE | re.DOTALL)
    known: dict[str, Any] = {}
    exec(hook, known)  # noqa: S102  # the page is ours
    known["on_refusal"](refused_for("tokens/60s"))

    assert "tokens/60s server: None of None" in capsys.readouterr().out
