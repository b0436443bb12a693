"""docs/pool.md is true: its programs run as they stand, and its file is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit.commands.run.pool_file import read_pool
from ratelimit.testing import FakeOpenAI

PAGE = (Path(__file__).parent.parent / "docs" / "pool.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+)\.py: [^\n]*\n(.*?)```", PAGE, re.DOTALL))
EXPECTED = {
    "two": "first: 2 calls, 2 answered, 0 failed\nsecond: 2 calls, 2 answered, 0 failed",
    "fallback": "provisioned: *: nobody waits",
    "by_hand": "only gpt-4o-mini",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_run_as_they_stand(name: str, tmp_path: Path) -> None:
    """Each prints what the page says of it, on a server with any key."""
    server = FakeOpenAI(rpm=500, tpm=30_000, latency=0.05)
    path = tmp_path / f"{name}.py"
    path.write_text(PROGRAMS[name], "utf-8")
    with server.serve() as base_url:
        home = {"HOME": str(tmp_path), "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "any"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(path)],
            env=os.environ | home,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout


def test_every_program_has_its_expectation() -> None:
    """No program of the page is left out."""
    assert set(PROGRAMS) == set(EXPECTED)


def test_the_file_of_a_pool_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's pool.toml makes the members that it describes."""
    found = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    path = tmp_path / "pool.toml"
    path.write_text(found[1], "utf-8")
    monkeypatch.setenv("AZURE_EAST_KEY", "any")
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    async def on_response(_: object) -> None:
        pass

    pool = read_pool(path, on_response).pool

    east, openai = pool.members
    assert (east.name, east.serves("gpt-4o"), east.serves("gpt-5")) == (
        "azure-east",
        "my-deployment",
        None,
    )
    assert (openai.prefer, openai.after) == (1, 2)
    assert openai.request is not None
    assert openai.request({"seed": 1, "max_tokens": 5}) == {"max_completion_tokens": 5}
    assert str(pool.limits("gpt-4o")) == "<Limits 1,100 requests/min, 150,000 tokens/min>"
